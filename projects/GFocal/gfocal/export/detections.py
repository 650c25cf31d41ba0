"""The detections of an image as arrays, with the names of Detectron2's ``Instances``.

D: number of detections. Boxes are XYXY, in pixels of the image.
"""

from typing import Any

import numpy as np

from .._installed import require

__all__ = ["BoxArray", "Detections"]

# Why a field is not there, of those that only some files have.
_WHY = {
    "pred_box_stds": ": the file was exported without standard deviations (--no-stds, or a box "
    "representation that has none, such as DiracDistance)"
}


class BoxArray:
    """Boxes, with the names of Detectron2's ``Boxes``.

    Attributes:
        tensor: (D, 4) float32, XYXY.
    """

    def __init__(self, tensor: np.ndarray):
        self.tensor = np.asarray(tensor, np.float32).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, item: Any) -> "BoxArray":
        return BoxArray(self.tensor[item])

    def __repr__(self) -> str:
        return f"BoxArray({self.tensor})"

    def area(self) -> np.ndarray:
        """(D,), pixels."""
        sides = self.tensor[:, 2:] - self.tensor[:, :2]
        return sides[:, 0] * sides[:, 1]

    def nonempty(self) -> np.ndarray:
        """(D,) bool: whether a box has an area."""
        return np.all(self.tensor[:, 2:] > self.tensor[:, :2], axis=1)


class Detections:
    """The detections of an image, the best first.

    Attributes:
        pred_boxes: :class:`BoxArray`.
        scores: (D,) float32.
        pred_classes: (D,) int64, from 0 on.
        pred_box_stds: (D, 4) float32, pixels: of the left, top, right and bottom side. Only of a
            file that has them, see :meth:`has`: of one written with ``--no-stds``, or of a detector
            whose box representation has none, there is no such field.

    Examples:
        ```python
        sure = detections[detections.scores > 0.5]
        print(len(sure), sure.pred_boxes.tensor)
        ```
    """

    pred_boxes: BoxArray
    scores: np.ndarray
    pred_classes: np.ndarray
    pred_box_stds: np.ndarray

    def __init__(self, image_size: tuple[int, int], **fields: Any):
        """
        Args:
            image_size: (height, width), pixels.
            fields: by name, each of length D.

        Raises:
            ValueError: fields of different lengths.
        """
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, values in fields.items():
            self.set(name, values)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image, pixels."""
        return self._image_size

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields:
            why = _WHY.get(name, "")
            raise AttributeError(f"Detections has no field {name!r}{why}")
        return self._fields[name]

    def __setattr__(self, name: str, values: Any) -> None:
        if name.startswith("_") or name == "image_size":
            super().__setattr__(name, values)
        else:
            self.set(name, values)

    def __len__(self) -> int:
        return len(next(iter(self._fields.values()), ()))

    def __getitem__(self, item: Any) -> "Detections":
        """Those of a mask, of indices, of a slice, or the one of an index (still Detections).

        Raises:
            IndexError: no such detection.
        """
        if isinstance(item, (int, np.integer)):
            if not -len(self) <= item < len(self):
                raise IndexError(f"no detection {item} of {len(self)}")
            item = slice(item, None, len(self))
        found = {name: values[item] for name, values in self._fields.items()}
        return Detections(self.image_size, **found)

    def __repr__(self) -> str:
        height, width = self.image_size
        fields = ", ".join(self._fields)
        return f"Detections({len(self)} in {height} x {width} pixels; fields: {fields})"

    def set(self, name: str, values: Any) -> None:
        """Adds a field of length D, or replaces it.

        Raises:
            ValueError: another length.
        """
        others = self._fields.keys() - {name}
        if others and len(values) != len(self):
            raise ValueError(f"{name} has length {len(values)}; expected {len(self)} detections")
        self._fields[name] = values

    def has(self, name: str) -> bool:
        """Whether there is a field of this name."""
        return name in self._fields

    def get(self, name: str) -> Any:
        """The field of this name.

        Raises:
            KeyError: there is none.
        """
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """All fields by name."""
        return dict(self._fields)

    def to(self, device: Any) -> "Detections":
        """The same: arrays are on the CPU.

        Raises:
            ValueError: another device.
        """
        if str(device) != "cpu":
            raise ValueError(f"arrays are on the cpu, not on {device}; see to_instances")
        return self

    def to_instances(self) -> Any:
        """The same as Detectron2's ``Instances``, with tensors.

        Raises:
            ImportError: PyTorch or Detectron2 is not installed.
        """
        require("Detections.to_instances")
        import torch
        from detectron2.structures import Boxes, Instances

        fields = {
            name: Boxes(torch.from_numpy(values.tensor.copy()))
            if isinstance(values, BoxArray)
            else torch.from_numpy(np.array(values))
            for name, values in self._fields.items()
        }
        return Instances(self.image_size, **fields)
