"""What an exported file says of itself: its classes, its input, its outputs.

Every format has it as one JSON text under the key "gfocal": an ONNX file among its metadata
properties, TorchScript and torch.export among their extra files. Neither PyTorch nor Detectron2 is
imported here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from .._padding import Padding

__all__ = ["KEY", "LEVELS", "ModelCard"]

KEY = "gfocal"  # of the metadata
FORMAT = 1
LEVELS = ("raw", "decoded", "full")


@dataclass(frozen=True)
class ModelCard:
    """What an exported file says of itself.

    Attributes:
        level: "raw", "decoded" or "full": how far the graph goes.
        preprocessing: "inside": the graph takes images (N, C, H, W) with values 0..255 of any H and
            W, all N of one size. "outside": normalized and padded images, and ``image_sizes``.
        stds: whether it has an output with the standard deviations of the sides.
        precision: "float32", "float16" or "int8", of backbone and head.
        num_classes: K.
        class_names: of the K classes, in their order; () if nobody knew them.
        category_ids: of the dataset, for each class; () likewise.
        input_format: order of the channels, e.g. "BGR".
        pixel_mean, pixel_std: per channel.
        size_divisibility: to multiples of this, pixels, the image is padded below and to the right;
            to ``square_size`` before, unless that is 0.
        resize: how an image is resized before: {"short_edge": 800, "max_size": 1333} in pixels,
            {"height": 512, "width": 512} of a graph for one size, {} for not at all, None if it
            could not be told. {"center_pad": {"multiple": 31, "extra": 1, "mean": [0]}}: it comes
            into the middle of a larger image, each side of (x | multiple) + extra pixels, whose
            other pixels have that value, one or one a channel.
        strides: of the pyramid levels, pixels; () of a detector that has none.
        score_thresh: a number, or one for each class. (This and the next four are of level "full".)
        nms_thresh: IoU.
        class_agnostic: whether NMS compares boxes of different classes.
        topk_candidates: a level.
        max_detections: an image.
        versions: of gfocal, detectron2 and torch, where the file was written.
        calibrated: whether scores and standard deviations are calibrated, see
            :class:`gfocal.modeling.uncertainty.Calibration`. ``score_thresh`` is of the scores
            before.
        clips_boxes: whether boxes are clipped to the image, and those without area dropped.
        outputs: names of the outputs, in order.
        description: of the weights, with their config, see gfocal.weights.description; {} without.
        format: of this card.
    """

    level: str
    preprocessing: str
    stds: bool
    precision: str
    num_classes: int
    class_names: Sequence[str]
    category_ids: Sequence[int]
    input_format: str
    pixel_mean: Sequence[float]
    pixel_std: Sequence[float]
    size_divisibility: int
    resize: Mapping[str, Any] | None
    strides: Sequence[int]
    score_thresh: float | Sequence[float]
    nms_thresh: float
    class_agnostic: bool
    topk_candidates: int
    max_detections: int
    versions: Mapping[str, str]
    square_size: int = 0
    calibrated: bool = False
    clips_boxes: bool = True
    outputs: Sequence[str] = field(default_factory=list)
    description: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def padding(self) -> Padding:
        return Padding(self.size_divisibility, self.square_size)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) that all images have, of a graph for one size."""
        rule = self.resize or {}
        return (rule["height"], rule["width"]) if "height" in rule else None

    @property
    def takes_sizes(self) -> bool:
        """Whether the graph is told where each image ends."""
        return self.preprocessing == "outside" and self.level != "raw" and self.clips_boxes

    def to_json(self) -> str:
        """The text that lies in the file."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | None, path: str) -> "ModelCard":
        """Reads the text of a file.

        Args:
            text: what lies under ``KEY``; None if there is nothing.
            path: of the file, for errors.

        Raises:
            ValueError: no such text, or one that lacks a field or has another kind of value.
        """
        if not text:
            raise ValueError(f"{path} has no metadata {KEY!r}: gfocal export did not write it")
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise ValueError(  # noqa: TRY004 (of a file, not of an argument)
                f"{path}: its metadata {KEY!r} is no JSON object"
            )
        if data.get("format", FORMAT) != FORMAT:
            raise ValueError(
                f"{path} was written in format {data['format']!r} of gfocal "
                f"{(data.get('versions') or {}).get('gfocal')}; this version reads format {FORMAT}"
            )
        known = {x.name: x for x in fields(cls)}
        missing = [
            name
            for name, x in known.items()
            if name not in data and x.default is MISSING and x.default_factory is MISSING
        ]
        if missing:
            raise ValueError(f"{path}: its metadata {KEY!r} lacks {', '.join(missing)}")
        data = {name: data[name] for name in known if name in data}
        wrong = [
            f"{name} is {data[name]!r}"
            for name, kind in _KINDS.items()
            if name in data and not kind(data[name])
        ]
        if wrong:
            raise ValueError(f"{path}: in its metadata {KEY!r} {'; '.join(wrong)}")
        return cls(**data)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_rule(value: Any) -> bool:
    """Of resizing; see :class:`ModelCard`."""
    if not isinstance(value, dict):
        return value is None
    if value.keys() == {"center_pad"}:
        pad = value["center_pad"]
        return (
            isinstance(pad, dict)
            and pad.keys() == {"multiple", "extra", "mean"}
            and all(_is_integer(pad[name]) and pad[name] >= 0 for name in ("multiple", "extra"))
            and _are_numbers(pad["mean"])
        )
    return all(map(_is_integer, value.values()))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


# What a value must be.
_KINDS = {
    "level": LEVELS.__contains__,
    "preprocessing": ("inside", "outside").__contains__,
    "stds": lambda x: isinstance(x, bool),
    "precision": lambda x: isinstance(x, str),
    "num_classes": _is_integer,
    "class_names": lambda x: isinstance(x, list) and all(isinstance(name, str) for name in x),
    "category_ids": lambda x: isinstance(x, list) and all(map(_is_integer, x)),
    "input_format": lambda x: isinstance(x, str),
    "pixel_mean": _are_numbers,
    "pixel_std": _are_numbers,
    "size_divisibility": _is_integer,
    "square_size": _is_integer,
    "resize": _is_rule,
    "strides": _are_numbers,
    "score_thresh": lambda x: _is_number(x) or _are_numbers(x),
    "nms_thresh": _is_number,
    "class_agnostic": lambda x: isinstance(x, bool),
    "topk_candidates": _is_integer,
    "max_detections": _is_integer,
    "versions": lambda x: isinstance(x, dict),
}
