"""A batch of images of several sizes, padded as the backbone asks."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor
from torch.nn import functional as F

from .._padding import Padding
from .ground_truth import image_name

__all__ = ["padded_batch"]


def padded_batch(
    images: Sequence[Tensor], batched_inputs: Sequence[Mapping[str, Any]], padding: Padding
) -> ImageList:
    """Detectron2's ``ImageList.from_tensors``, with squares in every version of it.

    Args:
        images: (C, H_i, W_i) each.
        batched_inputs: the images' dicts, which have their names.
        padding: of the backbone.

    Raises:
        ValueError: an image is larger than the square.
    """
    sizes = [(int(x.shape[-2]), int(x.shape[-1])) for x in images]
    padded = [
        padding.size(size, image_name(i, x))
        for i, (size, x) in enumerate(zip(sizes, batched_inputs))
    ]
    if not padding.square:
        return ImageList.from_tensors(list(images), padding.divisibility)
    height, width = padded[0]
    square = [F.pad(x, (0, width - w, 0, height - h)) for x, (h, w) in zip(images, sizes)]
    return ImageList(torch.stack(square), sizes)
