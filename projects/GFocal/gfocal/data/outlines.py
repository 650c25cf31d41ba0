"""The outlines of masks, as COCO writes them: polygons.

Coordinates are pixels; pixel (x, y) covers [x, x + 1) x [y, y + 1), so an outline runs between
pixels.
"""

import numpy as np

__all__ = ["outlines"]


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons whose union is a mask, to the pixel. A part with a hole, which a polygon of COCO
    cannot have, is cut in two there.

    Args:
        mask: (H, W) bool.

    Returns:
        (n, 2) integers each, x and y of the corners, clockwise as one sees them; none for an empty
        mask.
    """
    loops = _loops(mask)
    hole = next((x for x in loops if _turns_left(x)), None)
    if hole is None:
        return loops
    middle = int(hole[:, 0].min() + hole[:, 0].max()) // 2
    left = mask & (np.arange(mask.shape[1]) < middle)
    return outlines(left) + outlines(mask & ~left)


def _loops(mask: np.ndarray) -> list[np.ndarray]:
    """The borders of a mask, which is on their right hand. Those of holes turn to the left."""
    after = _edges(mask)
    loops = []
    while after:
        start = place = next(iter(after))
        step, corners = (0, 0), []
        while True:
            ends = after[place]
            # Where two pixels touch at a corner, the way that keeps to its own pixel.
            right = (place[0] - step[1], place[1] + step[0])
            end = right if right in ends else ends[0]
            ends.remove(end)
            if not ends:
                del after[place]
            new = (end[0] - place[0], end[1] - place[1])
            if new != step:
                corners.append(place)
            place, step = end, new
            if place == start:
                break
        loops.append(_without_first_of_a_line(corners, step))
    return loops


def _without_first_of_a_line(corners: list[tuple[int, int]], step: tuple[int, int]) -> np.ndarray:
    """The corners, but for a start in the middle of a straight line."""
    (x0, y0), (x1, y1) = corners[:2]
    is_straight = step[0] * (y1 - y0) == step[1] * (x1 - x0)
    return np.array(corners[1:] if is_straight else corners)


def _edges(mask: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Where the edges of pixels on the border lead to: {(x, y): [(x, y), ...]}."""
    padded = np.pad(mask, 1)
    inner = padded[1:, 1:]
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}
    borders = (
        (inner & ~padded[:-1, 1:], (0, 0), (1, 0)),  # above a pixel, to the right
        (~inner & padded[:-1, 1:], (1, 0), (0, 0)),
        (inner & ~padded[1:, :-1], (0, 1), (0, 0)),  # left of a pixel, upwards
        (~inner & padded[1:, :-1], (0, 0), (0, 1)),
    )
    for border, (x0, y0), (x1, y1) in borders:
        for y, x in np.argwhere(border).tolist():
            after.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    return after


def _turns_left(corners: np.ndarray) -> bool:
    x, y = corners.T
    return bool((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() < 0)
