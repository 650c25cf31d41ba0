"""What the images of :mod:`gfocal.data.shapes` are made of: six shapes, surfaces, backgrounds.

Units: pixels; pixel (x, y) covers [x, x + 1) x [y, y + 1). Colours are in 0..255.
"""

import numpy as np

__all__ = ["CLASSES", "background", "corners", "opacity", "paint"]

CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")


def opacity(
    label: int, diameter: float, softness: float, angle: float, center: np.ndarray, size: int
) -> np.ndarray:
    """(size, size) opacity. It falls from 1 to 0 over ``softness`` pixels across the edge; one
    pixel is anti-aliasing."""
    x, y = np.arange(size) + 0.5 - center[0], (np.arange(size) + 0.5 - center[1])[:, None]
    radius = diameter / 2
    if CLASSES[label] == "circle":
        distance = np.hypot(x, y) - radius
    elif CLASSES[label] == "ring":
        distance = np.abs(np.hypot(x, y) - 0.74 * radius) - 0.26 * radius
    else:
        distance = _polygon_distance(x, y, corners(label, diameter, angle))
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def corners(label: int, diameter: float, angle: float) -> np.ndarray:
    """(n, 2) corners that span a shape's box; x and y, from its centre."""
    if CLASSES[label] not in _POLYGONS:
        return diameter / 2 * np.array([[-1.0, -1.0], [1.0, 1.0]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return diameter / 2 * _POLYGONS[CLASSES[label]] @ turn.T


def _regular(corners: int, inner: float | None = None) -> np.ndarray:
    """(n, 2) a polygon in the unit circle; with ``inner``, a star with that inner radius."""
    count = corners if inner is None else 2 * corners
    radius = np.ones(count)
    if inner is not None:
        radius[1::2] = inner
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def _cross(arm: float) -> np.ndarray:
    """(12, 2) a cross whose arms are ``arm`` wide, half, in the unit circle."""
    reach = np.sqrt(1 - arm**2)
    quarter = np.array([[arm, -reach], [arm, -arm], [reach, -arm]])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])  # by 90 degrees
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, i).T for i in range(4)])


_POLYGONS = {
    "square": _regular(4),
    "triangle": _regular(3),
    "star": _regular(5, inner=0.45),
    "cross": _cross(0.3),
}


def _polygon_distance(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Distance of points to a polygon's boundary, negative inside (even-odd rule)."""
    nearest = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf)
    inside = np.zeros(nearest.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0)):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        nearest = np.minimum(nearest, (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2)
        crosses = (y0 <= y) != (y1 <= y)
        if dy:
            inside ^= crosses & (x < x0 + (y - y0) * dx / dy)
    return np.where(inside, -1.0, 1.0) * np.sqrt(nearest)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) float32, a colour with smooth noise at several scales."""
    scales = ((3, 35.0), (8, 22.0), (24, 16.0), (64, 12.0))  # cells across the image, strength
    noise = np.stack([_smooth_noise(rng, size, cells) for cells, _ in scales], axis=2)
    strength = np.array([x for _, x in scales])[:, None] * rng.uniform(0.3, 1.0, (len(scales), 1))
    tints = strength * rng.uniform(0.5, 1.0, (len(scales), 3))
    colour = rng.uniform(60.0, 195.0, 3)
    return noise @ tints.astype(np.float32) + colour.astype(np.float32)


def paint(rng: np.random.Generator, shape: tuple[int, ...], behind: np.ndarray) -> np.ndarray:
    """(h, w, 3) a shape's surface: a colour that differs from the one behind it, with a texture."""
    while True:
        colour = rng.uniform(20.0, 235.0, 3)
        if np.abs(colour - behind).mean() > 40.0:
            break
    height, width = shape
    if rng.random() < 0.4:  # stripes
        angle, period = rng.uniform(0.0, np.pi), rng.uniform(5.0, 14.0)
        phase = np.arange(width) * np.cos(angle) + np.arange(height)[:, None] * np.sin(angle)
        texture = np.sin(2 * np.pi * phase / period)
    else:
        texture = _smooth_noise(rng, max(shape), 6)[:height, :width]
    return colour + rng.uniform(0.0, 22.0) * texture[:, :, None]


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """(size, size) float32 in -1..1: random values on a grid of cells, linear in between."""
    position = np.arange(size) * (cells / size)
    cell, part = np.floor(position).astype(int), (position % 1.0).astype(np.float32)
    grid = rng.uniform(-1.0, 1.0, (cells + 1, cells + 1)).astype(np.float32)
    rows = grid[cell] * (1 - part)[:, None] + grid[cell + 1] * part[:, None]
    return rows[:, cell] * (1 - part) + rows[:, cell + 1] * part
