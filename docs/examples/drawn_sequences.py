"""Drawn sequences with a known truth, and errors: a shape crosses the image, behind a band.

Units: pixels; pixel (x, y) covers [x, x + 1) x [y, y + 1). Boxes are XYXY.
"""

from typing import NamedTuple

import numpy as np

from gfocal.data import drawing, shapes

SIZE = 192  # width and height of a frame
FRAMES = 60


class Sequence(NamedTuple):
    """T frames with one target.

    Attributes:
        images: (T, SIZE, SIZE, 3) uint8, RGB.
        label: of the target, an index into gfocal.data.shapes.CLASSES.
        boxes: (T, 4) around the whole target, its hidden part too.
        visible: (T,) share of the target's pixels that the band doesn't hide.
    """

    images: np.ndarray
    label: int
    boxes: np.ndarray
    visible: np.ndarray


def draw_sequence(*seed: int) -> Sequence:
    """Draws a sequence of FRAMES frames. It depends on the numbers of its seed only.

    Edge, texture and the camera's noise are those of the shapes that the demo is trained on. The
    band is a little wider than the target, so that it hides all of it for some frames.
    """
    rng = np.random.default_rng(seed)
    label, angle = int(rng.integers(len(shapes.CLASSES))), rng.uniform(0.0, 2 * np.pi)
    centers, diameters = _motion(rng)
    largest = diameters.max()
    softness = rng.uniform(0.06, 0.24) * largest if rng.random() < 0.35 else 1.0
    reach = int(np.ceil((largest + softness) / 2)) + 1
    side = 2 * reach + 1  # of a patch around the target

    scene = shapes.background(rng, SIZE)
    surface = shapes.paint(rng, (side, side), scene.mean(axis=(0, 1)))
    half = round(rng.uniform(0.5, 0.65) * largest)
    band = slice(SIZE // 2 - half, SIZE // 2 + half)
    front = shapes.paint(rng, (SIZE, 2 * half), surface.mean(axis=(0, 1)))
    noise = rng.uniform(2.0, 7.0)

    images, boxes, visible = [], [], []
    for center, diameter in zip(centers, diameters):
        left, top = np.floor(center).astype(int) - reach
        patch = slice(top, top + side), slice(left, left + side)
        opacity = np.zeros((SIZE, SIZE))
        opacity[patch] = shapes.opacity(
            label, diameter, softness, angle, center - (left, top), side
        )
        canvas = scene.copy()
        canvas[patch] += opacity[patch][..., None] * (surface - canvas[patch])
        canvas[:, band] = front
        canvas += noise * rng.standard_normal(canvas.shape)
        images.append(canvas.clip(0, 255).round().astype(np.uint8))
        corners = center + drawing.corners(label, diameter, angle)
        boxes.append([*corners.min(axis=0), *corners.max(axis=0)])
        visible.append(1 - (opacity[:, band] >= 0.5).sum() / (opacity >= 0.5).sum())
    return Sequence(np.stack(images), label, np.array(boxes), np.array(visible))


def errors(boxes: np.ndarray, sequence: Sequence) -> np.ndarray:
    """(5,) RMSE of the sides in all frames, before the band, behind it partly, in at most 10
    frames after it, px; mean IoU."""
    hidden = np.flatnonzero(sequence.visible < 1)
    frames = np.arange(len(boxes))
    partly = (sequence.visible < 1) & (sequence.visible > 0)
    after = (frames > hidden[-1]) & (frames <= hidden[-1] + 10)
    squares = ((boxes - sequence.boxes) ** 2).mean(axis=1)
    parts = (frames >= 0, frames < hidden[0], partly, after)
    corner, end = np.maximum(boxes, sequence.boxes)[:, :2], np.minimum(boxes, sequence.boxes)[:, 2:]
    shared = (end - corner).clip(0).prod(axis=1)
    area = [(x[:, 2:] - x[:, :2]).prod(axis=1) for x in (boxes, sequence.boxes)]
    iou = shared / (area[0] + area[1] - shared)
    return np.array([*(np.sqrt(np.nanmean(squares[part])) for part in parts), np.nanmean(iou)])


def _motion(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres (T, 2), to the right or to the left, with small accelerations; diameters (T,)."""
    period, phase = rng.uniform(40.0, 80.0), rng.random()
    waves = np.sin(2 * np.pi * (np.arange(FRAMES) / period + phase))
    diameters = rng.uniform(28.0, 42.0) * np.exp(0.12 * waves)
    margin = diameters.max() / 2 + 8
    while True:
        start = np.array([margin, rng.uniform(margin, SIZE - margin)])
        speed = np.array([(SIZE - 2 * margin) / FRAMES, rng.uniform(-0.8, 0.8)])
        accelerations = rng.normal(0.0, 0.06, (FRAMES, 2))
        centers = start + np.cumsum(speed + np.cumsum(accelerations, axis=0), axis=0)
        distances = np.abs(centers - SIZE / 2)  # from the middle, where the band is
        inside = (distances < SIZE / 2 - margin + 2).all()
        if inside and distances[[0, -1], 0].min() > 1.2 * diameters.max():
            break
    if rng.random() < 0.5:
        centers[:, 0] = SIZE - centers[:, 0]
    return centers, diameters
