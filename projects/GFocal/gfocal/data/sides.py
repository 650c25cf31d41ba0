"""The distributions of a box's four sides as a few bytes, for lines of json and for pages.

C bins a side. Sides are left, top, right, bottom; places are pixels of the image, an x for left and
right, a y for top and bottom.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Sides", "pack_sides", "relative_bins", "unpack_sides"]


class Sides(NamedTuple):
    """The four distributions of a box.

    Attributes:
        probabilities: (4, C), each side's largest is 1 after :func:`unpack_sides`.
        bin_edges: (4, C) place of the side if it lies at that bin, pixels.
    """

    probabilities: np.ndarray
    bin_edges: np.ndarray


def relative_bins(bin_edges: np.ndarray) -> list[float]:
    """Where the bins are between the first (0) and the last (1): the same for all sides and boxes
    of a detector.

    Args:
        bin_edges: (..., 4, C) of at least one box.
    """
    side = np.reshape(bin_edges, (-1, np.shape(bin_edges)[-1]))[0].astype(float)
    return [round(float(x), 6) for x in (side - side[0]) / (side[-1] - side[0])]


def pack_sides(probabilities: np.ndarray, bin_edges: np.ndarray) -> list[dict[str, Any]]:
    """The distributions of M boxes as plain data.

    Args:
        probabilities: (M, 4, C).
        bin_edges: (M, 4, C) pixels.

    Returns:
        for each box "p": base64 of a byte for each of 4 * C probabilities, 255 for the largest of
        a side; "ends": for each side the places of the first and the last bin, pixels.
    """
    scaled = probabilities / np.max(probabilities, axis=-1, keepdims=True)
    data = np.rint(255 * scaled).astype(np.uint8)
    ends = np.asarray(bin_edges, float)[:, :, [0, -1]].round(2).tolist()
    return [
        {"p": base64.b64encode(x.tobytes()).decode(), "ends": of_box}
        for x, of_box in zip(data, ends)
    ]


def unpack_sides(sides: Mapping[str, Any], bins: Sequence[float]) -> Sides:
    """The inverse of :func:`pack_sides` for one box, to 1/255 of a side's largest probability and
    0.01 pixels.

    Args:
        sides: what that gave for the box.
        bins: (C,) of :func:`relative_bins`.

    Raises:
        ValueError: the bytes are not those of 4 * C probabilities.
    """
    data = np.frombuffer(base64.b64decode(sides["p"]), np.uint8)
    if len(data) != 4 * len(bins):
        raise ValueError(f"sides of {len(data)} bytes; expected 4 times {len(bins)} bins")
    ends = np.asarray(sides["ends"], float)
    places = ends[:, :1] + np.asarray(bins) * (ends[:, 1:] - ends[:, :1])
    return Sides(data.reshape(4, -1) / 255, places)
