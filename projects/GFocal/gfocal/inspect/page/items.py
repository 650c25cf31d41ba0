"""What a page shows: pictures, the boxes on them, and what may be wrong with one.

C bins a side. Sides are left, top, right, bottom. "px of the image" are those of the image file;
the picture is a part of it, enlarged or shrunk.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ...data.sides import pack_sides, relative_bins

__all__ = ["PageBox", "PageFinding", "PageItem", "as_data", "fitted"]

ROLES = ("prediction", "annotation", "suggestion")
SIDES = ("left", "top", "right", "bottom")


class PageBox(NamedTuple):
    """A box on a picture.

    Attributes:
        bbox: x0, y0, x1, y1, px of the image.
        role: "prediction", "annotation" or "suggestion" (what the annotation should be).
        class_name: of its class.
        score: in [0, 1]; None: it has none.
        stds: (4,) standard deviations of the sides, px of the image; None: it has none. Without
            probabilities the page shows normal distributions.
        probabilities: (4, C) of the bins of each side; None: it has none.
        bin_edges: (4, C) place of a side if it lies at that bin, px of the image.
    """

    bbox: Sequence[float] | np.ndarray
    role: str
    class_name: str
    score: float | None = None
    stds: Sequence[float] | np.ndarray | None = None
    probabilities: np.ndarray | None = None
    bin_edges: np.ndarray | None = None


class PageFinding(NamedTuple):
    """What may be wrong with an annotation.

    Attributes:
        id: an integer that no other finding of the page has.
        kind: such as "missing", "spurious", "wrong_class", "bad_side", "duplicate".
        score: how sure it is, in [0, 1].
        class_name: of the annotation, or of the box that should be one.
        text: one sentence, what is wrong.
        sides: which sides are suspect.
    """

    id: int
    kind: str
    score: float
    class_name: str
    text: str
    sides: tuple[str, ...] = ()


class PageItem(NamedTuple):
    """A picture with its boxes.

    Attributes:
        image: (h, w, 3) uint8 RGB, cut out and scaled.
        origin: x, y of the picture's top left corner, px of the image.
        scale: picture px per image px.
        title: the name of the file.
        boxes: on the picture.
        finding: with it a card with a question, without it a picture to look at.
    """

    image: np.ndarray
    origin: tuple[float, float]
    scale: float
    title: str
    boxes: Sequence[PageBox]
    finding: PageFinding | None = None


def fitted(image: np.ndarray, longest: int = 640) -> tuple[np.ndarray, float]:
    """An image shrunk to a size for pages.

    Args:
        image: (h, w, 3) uint8 RGB.
        longest: of its longer side, pixels. A smaller image stays as it is.

    Returns:
        the picture, and picture px per image px.
    """
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image, 1.0
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small), scale


def as_data(item: PageItem) -> dict[str, Any]:
    """An item without its pixels, as the page's script reads it.

    Raises:
        TypeError: the picture is no uint8 array (h, w, 3).
        ValueError: a number is out of range; the title and the box are named.
    """
    image = item.image
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = getattr(image, "dtype", type(image).__name__)
        raise TypeError(f"{item.title}: expected a uint8 RGB picture (h, w, 3), got {got}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"{item.title}: expected a picture (h, w, 3), got shape {image.shape}")
    if not item.scale > 0:
        raise ValueError(f"{item.title}: scale is {item.scale}; expected a positive number")
    bins: list[list[float]] = []
    boxes = []
    for index, box in enumerate(item.boxes):
        try:
            boxes.append(_box_as_data(box, bins))
        except ValueError as error:
            raise ValueError(f"{item.title}, box {index}: {error}") from error
    ret: dict[str, Any] = {
        "title": item.title,
        "width": image.shape[1],
        "height": image.shape[0],
        "origin": _numbers("origin", item.origin, 2),
        "scale": round(float(item.scale), 6),
        "bins": bins,
        "boxes": boxes,
    }
    if item.finding is not None:
        try:
            ret["finding"] = _finding_as_data(item.finding)
        except ValueError as error:
            raise ValueError(f"{item.title}: {error}") from error
    return ret


def _box_as_data(box: PageBox, bins: list[list[float]]) -> dict[str, Any]:
    """Adds to the bins of its item those that are not there yet."""
    if box.role not in ROLES:
        raise ValueError(f"role is {box.role!r}; expected one of {', '.join(ROLES)}")
    bbox = _numbers("bbox", box.bbox, 4)
    if bbox[2] < bbox[0] or bbox[3] < bbox[1]:
        raise ValueError(f"bbox is {bbox}; expected x0, y0, x1, y1 with x0 <= x1 and y0 <= y1")
    ret: dict[str, Any] = {"role": box.role, "class": box.class_name, "bbox": bbox}
    if box.score is not None:
        ret["score"] = _score(box.score)
    if box.stds is not None:
        ret["stds"] = _numbers("stds", box.stds, 4)
        if min(ret["stds"]) < 0:
            raise ValueError(f"stds are {ret['stds']}; expected none below 0")
    if (box.probabilities is None) != (box.bin_edges is None):
        raise ValueError("expected both probabilities and bin_edges, or none of them")
    if box.probabilities is not None and box.bin_edges is not None:
        probabilities, edges = np.asarray(box.probabilities), np.asarray(box.bin_edges)
        _check_sides(probabilities, edges)
        (sides,) = pack_sides(probabilities[None], edges[None])
        ret.update(sides, bins=_index_of(bins, relative_bins(edges)))
    return ret


def _index_of(bins: list[list[float]], places: list[float]) -> int:
    """Of the places among the bins, where they are added if they are new. Edges in float32 and
    rounded ones differ a little from box to box."""
    for index, known in enumerate(bins):
        if len(known) == len(places) and np.allclose(known, places, rtol=0, atol=2e-3):
            return index
    bins.append([round(x, 4) for x in places])
    return len(bins) - 1


def _check_sides(probabilities: np.ndarray, edges: np.ndarray) -> None:
    shape = probabilities.shape
    if len(shape) != 2 or shape[0] != 4 or shape[1] < 2 or edges.shape != shape:
        raise ValueError(
            f"probabilities {shape} and bin_edges {edges.shape}; expected (4, C) twice, C >= 2"
        )
    if not (np.isfinite(probabilities).all() and np.isfinite(edges).all()):
        raise ValueError("probabilities or bin_edges are not finite")
    if probabilities.min() < 0 or (probabilities.max(axis=1) <= 0).any():
        raise ValueError("probabilities are below 0, or those of a side are all 0")
    if (edges[:, 0] == edges[:, -1]).any():
        raise ValueError("the first and the last of the bin_edges of a side are the same place")


def _finding_as_data(finding: PageFinding) -> dict[str, Any]:
    wrong = [side for side in finding.sides if side not in SIDES]
    if wrong:
        raise ValueError(f"finding {finding.id} has the sides {wrong}; expected {', '.join(SIDES)}")
    return {
        "id": int(finding.id),
        "kind": finding.kind,
        "score": _score(finding.score),
        "class": finding.class_name,
        "text": finding.text,
        "sides": list(finding.sides),
    }


def _score(score: float) -> float:
    if not 0 <= score <= 1:
        raise ValueError(f"score is {score}; expected a number from 0 to 1")
    return round(float(score), 4)


def _numbers(name: str, values: Any, count: int) -> list[float]:
    array = np.asarray(values, float)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"{name} is {values}; expected {count} finite numbers")
    return [round(float(x), 2) for x in array]
