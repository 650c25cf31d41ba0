"""Do the boxes of a whole dataset look like another format than the one they are said to have?

A single box cannot tell. A format is "fitting" for a box if the box that it gives has an area and
lies inside its image, up to a tolerance. Boxes of the right format fit nearly always, so they are
never suspected. Boxes of a wrong format often don't, and then the right one fits all.

What cannot be told: boxes of a wrong format that all fit (one object that fills each picture), a
shift by one pixel, and x and y exchanged in square pictures.

Units: numbers of a box as they stand in the file; sizes of images in pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["FORMATS", "Suspicion", "box_suspicion"]

_FEWEST = 4  # boxes that don't fit, before there is a word about it
_ENOUGH = 12  # boxes before there is an error, not a warning


class Suspicion(NamedTuple):
    """What boxes look like.

    Attributes:
        text: with the evidence.
        is_error: whether the evidence is overwhelming.
    """

    text: str
    is_error: bool


def _xywh(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
    return [a, b, a + c, b + d]


def _xyxy(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
    return [a, b, c, d]


def _cxcywh(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
    return [a - c / 2, b - d / 2, a + c / 2, b + d / 2]


def _yxyx(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
    return [b, a, d, c]


def _yxhw(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
    return [b, a, b + d, a + c]


# The likelier first: of two that fit alike, it is named.
FORMATS: dict[str, Callable[..., list[np.ndarray]]] = {
    "XYXY (x0, y0, x1, y1)": _xyxy,
    "XYWH (x0, y0, width, height)": _xywh,
    "CXCYWH (centre x, centre y, width, height)": _cxcywh,
    "YXYX (y0, x0, y1, x1)": _yxyx,
    "YXHW (y0, x0, height, width), or width and height of the images exchanged": _yxhw,
}


def box_suspicion(boxes: np.ndarray, sizes: np.ndarray, declared: str) -> Suspicion | None:
    """What boxes look like, if not like the format that they are said to have.

    Args:
        boxes: (n, 4) finite numbers.
        sizes: (n, 2) width and height of the image of each.
        declared: the format: "XYWH" or "XYXY".

    Returns:
        None if they look right, or if nobody can tell.
    """
    if not len(boxes):
        return None
    if scale := _relative(boxes, sizes):
        return scale
    name = next(x for x in FORMATS if x.startswith(declared))
    fits = {x: _fits(FORMATS[x], boxes, sizes) for x in FORMATS}
    misfits = int(len(boxes) - fits[name].sum())
    # A few boxes that reach out are usual: annotators guess what the border hides.
    if misfits < max(_FEWEST, 0.02 * len(boxes)):
        return None
    other = max(fits, key=lambda x: int(fits[x].sum()))
    share = misfits / len(boxes)
    evidence = (
        f"{misfits} of {len(boxes)} boxes, read as {declared}, have no area or reach out of their "
        "images"
    )
    if fits[other].mean() >= 0.99 and other != name:
        fitting = int(fits[other].sum())
        text = (
            f"the boxes look like {other}, not {declared}: {evidence}; {fitting} fit as the other"
        )
        return Suspicion(text, is_error=len(boxes) >= _ENOUGH and share >= 0.2)
    if mixed := _mixed(~fits[name], fits, declared, evidence):
        return mixed
    if share < 0.3:
        return None
    return Suspicion(
        f"{evidence}; no other format fits either. Are they of images of another size?",
        is_error=False,
    )


def _mixed(
    misfit: np.ndarray, fits: dict[str, np.ndarray], declared: str, evidence: str
) -> Suspicion | None:
    """A file merged of two formats: what is wrong in one is right in the other.

    A right box that reaches out on the right or below is inverted as XYXY, and far outside as XYWH.
    """
    other = next(x for x in FORMATS if x.startswith({"XYWH": "XYXY", "XYXY": "XYWH"}[declared]))
    fitting = int((misfit & fits[other]).sum())
    if fitting < 0.95 * misfit.sum():
        return None
    return Suspicion(
        f"some of the boxes look like {other}, not {declared}: {evidence}; {fitting} of these fit "
        "as the other. Was the dataset put together from two?",
        is_error=False,
    )


def _fits(
    corners: Callable[..., list[np.ndarray]], boxes: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    x0, y0, x1, y1 = corners(*boxes.T)
    width, height = sizes.T
    # Annotations are rounded, and may count pixels from 1.
    slack_x, slack_y = 1 + 0.01 * width, 1 + 0.01 * height
    inside_x = (x0 >= -slack_x) & (x1 <= width + slack_x)
    inside_y = (y0 >= -slack_y) & (y1 <= height + slack_y)
    return (x1 > x0) & (y1 > y0) & inside_x & inside_y


def _relative(boxes: np.ndarray, sizes: np.ndarray) -> Suspicion | None:
    """Whether the numbers are shares of the image's sides, 0 to 1 or 0 to 100."""
    with_area = (boxes[:, 2:] > 0).all(axis=1)
    boxes, sizes = boxes[with_area], sizes[with_area]
    if not len(boxes):
        return None
    largest, count = boxes.max(), len(boxes)
    if count >= 2 and 0 < largest <= 1.01 and boxes.min() >= -0.01 and sizes.min() > 4:
        text = f"all numbers of all {count} boxes are between 0 and 1: they look relative to the "
        return Suspicion(text + "sides of the images; expected pixels", is_error=True)
    # Percent: they end at 100, in images of many sizes or large ones.
    ends = np.maximum(boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3])
    if count >= 50 and sizes.min() > 250 and 98 <= ends.max() <= 100.5:
        text = f"no box of {count} ends beyond 100, in images of more than 250 pixels: they look "
        return Suspicion(text + "like percent of the sides; expected pixels", is_error=False)
    return None
