"""Masks as COCO's results have them. Neither PyTorch nor Detectron2 is imported here."""

from typing import Any

import numpy as np

__all__ = ["pack_mask"]


def pack_mask(mask: Any) -> dict[str, Any]:
    """The run lengths of a mask, as pycocotools reads them from a json.

    Args:
        mask: (H, W) bool, an array or a tensor anywhere.

    Returns:
        {"size": [H, W], "counts": text}.
    """
    from pycocotools import mask as coco  # a runtime without masks does not have it

    pixels = mask if isinstance(mask, np.ndarray) else mask.cpu().numpy()
    packed = coco.encode(np.asfortranarray(pixels, dtype=np.uint8))
    return {"size": [int(x) for x in packed["size"]], "counts": packed["counts"].decode("ascii")}
