"""Detections in the form of Roboflow's supervision, for its trackers, annotators and metrics.

PyTorch is not imported here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._installed import MissingPackageError, is_installed

if TYPE_CHECKING:
    from supervision import Detections

__all__ = ["to_supervision"]


def to_supervision(instances: Any, class_names: Sequence[str] | None = None) -> "Detections":
    """Detections of an image as ``supervision.Detections``.

    Args:
        instances: Detectron2's ``Instances`` of a detector, or
            :class:`gfocal.export.detections.Detections`.
        class_names: of the K classes, e.g. ``predictor.class_names``.

    Returns:
        What ``Detections.from_detectron2`` answers: xyxy (M, 4) pixels, confidence and class_id
        (M,), and mask (M, height, width) of an R-CNN with masks. Its ``data`` has "bbox_std" (M, 4)
        in pixels beside, where the detections have standard deviations, and "class_name" with
        ``class_names``.

    Raises:
        ImportError: supervision is not installed.
        ValueError: a class has no name.
    """
    if not is_installed("supervision"):
        raise MissingPackageError(
            "to_supervision needs the package supervision: pip install gfocal[supervision]"
        )
    from supervision import Detections

    classes = _array(instances.pred_classes).astype(int)
    data: dict[str, Any] = {}
    if instances.has("pred_box_stds"):
        data["bbox_std"] = _array(instances.pred_box_stds)
    if class_names is not None:
        if len(classes) and classes.max() >= len(class_names):
            raise ValueError(f"class {classes.max()}; expected one of {len(class_names)} names")
        data["class_name"] = np.array([class_names[i] for i in classes], dtype=object)
    boxes = _array(instances.pred_boxes.tensor).reshape(-1, 4)
    return Detections(
        boxes,
        mask=_array(instances.pred_masks) if instances.has("pred_masks") else None,
        confidence=_array(instances.scores),
        class_id=classes,
        data=data,
    )


def _array(values: Any) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()
