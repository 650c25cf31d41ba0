"""Drawn sequences with a known truth: a shape moves across the image, behind a band.

Units: pixels; pixel (x, y) covers [x, x + 1) x [y, y + 1). Boxes are XYXY.
"""

from typing import NamedTuple

import numpy as np

from gfocal.data import shapes

SIZE = 192  # of a frame, both sides
FRAMES = 60


class Sequence(NamedTuple):
    """T frames with one target.

    Attributes:
        images: (T, SIZE, SIZE, 3) uint8, RGB.
        label: of the target, an index into shapes.CLASSES.
        boxes: (T, 4) around the whole target, hidden parts included.
        visible: (T,) share of the target that the band does not hide.
    """

    images: np.ndarray
    label: int
    boxes: np.ndarray
    visible: np.ndarray


def draw_sequence(*seed: int, frames: int = FRAMES) -> Sequence:
    """Draws the sequence of a seed: size, edge, texture, speed, band and noise depend on it only."""
    rng = np.random.default_rng(seed)
    label, angle = int(rng.integers(len(shapes.CLASSES))), rng.uniform(0.0, 2 * np.pi)
    centers, diameters = _motion(rng, frames)
    softness = rng.uniform(0.06, 0.24) * diameters.mean() if rng.random() < 0.35 else 1.0
    scene = shapes.background(rng, SIZE)
    reach = int(np.ceil((diameters.max() + softness) / 2)) + 1
    surface = shapes.paint(rng, (2 * reach + 1, 2 * reach + 1), scene.mean(axis=(0, 1)))
    band = slice(*np.round(SIZE / 2 + np.array([-0.5, 0.5]) * rng.uniform(1.0, 1.3) * max(diameters)).astype(int))
    front = shapes.paint(rng, (SIZE, band.stop - band.start), surface.mean(axis=(0, 1)))
    noise = rng.uniform(2.0, 7.0)  # the camera's
    images, boxes, visible = [], [], []
    for center, diameter in zip(centers, diameters):
        left, top = np.floor(center).astype(int) - reach
        alpha = shapes.opacity(label, diameter, softness, angle, center - (left, top), 2 * reach + 1)
        opacity = np.zeros((SIZE, SIZE, 1))
        opacity[top : top + len(alpha), left : left + len(alpha), 0] = alpha
        canvas = scene.copy()
        canvas[top : top + len(alpha), left : left + len(alpha)] += alpha[:, :, None] * (surface - scene[top : top + len(alpha), left : left + len(alpha)])
        canvas[:, band] = front
        canvas += noise * rng.standard_normal(canvas.shape)
        corners = center + shapes.corners(label, diameter, angle)
        mask = opacity >= 0.5
        images.append(canvas.clip(0, 255).round().astype(np.uint8))
        boxes.append(np.concatenate([corners.min(axis=0), corners.max(axis=0)]))
        visible.append(1 - mask[:, band].sum() / mask.sum())
    return Sequence(np.stack(images), label, np.stack(boxes), np.array(visible))


def _motion(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """(T, 2) centres from the left to the right, with small accelerations; (T,) diameters."""
    time = np.arange(frames)
    diameters = rng.uniform(28.0, 42.0) * np.exp(0.12 * np.sin(2 * np.pi * (time / rng.uniform(40, 80) + rng.random())))
    margin = diameters.max() / 2 + 8
    while True:
        velocity = np.array([(SIZE - 2 * margin) / frames, rng.uniform(-0.8, 0.8)])
        velocities = velocity + np.cumsum(rng.normal(0.0, 0.06, (frames, 2)), axis=0)
        centers = np.array([margin, rng.uniform(margin, SIZE - margin)]) + np.cumsum(velocities, axis=0)
        if (centers > margin - 2).all() and (centers < SIZE - margin + 2).all():
            return centers if rng.random() < 0.5 else centers * [-1, 1] + [SIZE, 0], diameters
