"""Which images share a batch of an inference: those that have the same size in the network.

An image beside a larger one would get padding, and padding changes its detections: convolutions and
group normalisation see it. Equal sizes share a batch, so that a batch gives what its images give
one by one.

Sizes are (height, width), pixels.
"""

from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np
from fvcore.transforms.transform import NoOpTransform

__all__ = ["padded", "plan_batches", "size_after"]

Size = tuple[int, int]


def size_after(augmentations: T.AugmentationList, size: Size) -> Size | None:
    """The size of an image after augmentations, without any pixels; None if it can't be told."""
    for augmentation in augmentations.augs:
        transform = augmentation.get_transform(np.broadcast_to(np.uint8(0), (*size, 3)))
        if isinstance(transform, T.ResizeTransform):
            size = (int(transform.new_h), int(transform.new_w))
        elif not isinstance(transform, NoOpTransform):
            return None
    return size


def padded(size: Size, divisibility: int) -> Size:
    """A size rounded up to multiples of the backbone's divisibility."""
    step = max(divisibility, 1)
    height, width = (-(-x // step) * step for x in size)
    return height, width


def plan_batches(sizes: Sequence[Size | None], batch_size: int) -> list[list[int]]:
    """Batches of images of equal size, in the order of their first images.

    Args:
        sizes: of each image in the network, with padding; None: it gets a batch of its own.
        batch_size: at most so many images a batch.

    Returns:
        the indices of each batch's images.
    """
    batches: list[list[int]] = []
    filling: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        batch = filling.get(size) if size is not None else None
        if batch is None or len(batch) == batch_size:
            batch = []
            batches.append(batch)
            if size is not None:
                filling[size] = batch
        batch.append(index)
    return batches
