"""Networks of Detectron2's main branch, for LazyConfigs. Its releases, up to 0.6, lack them."""

import functools
import os
from collections.abc import Callable
from typing import Any

import detectron2
from detectron2 import modeling
from torch import nn

from .._installed import MissingPackageError

__all__ = ["from_detectron2_main", "layer_norm"]


def from_detectron2_main(*names: str) -> list[Any]:
    """Classes of ``detectron2.modeling``.

    Args:
        names: e.g. "ViT", "SimpleFeaturePyramid", "SwinTransformer", "MViT".

    Raises:
        MissingPackageError: the Detectron2 that is installed lacks one of them.
    """
    if missing := [name for name in names if not hasattr(modeling, name)]:
        raise MissingPackageError(
            f"{' and '.join(missing)} came into Detectron2 after its release 0.6, and the one that "
            f"is installed ({detectron2.__version__}, in {os.path.dirname(detectron2.__file__)}) "
            "lacks them. Expected Detectron2's main branch: pip install --no-build-isolation "
            "git+https://github.com/facebookresearch/detectron2.git"
        )
    return [getattr(modeling, name) for name in names]


def layer_norm(*, eps: float) -> Callable[[int], nn.LayerNorm]:
    """``norm_layer`` of Detectron2's transformers: a layer norm with another eps than PyTorch's
    1e-5. In a LazyConfig ``functools.partial`` could not be saved with the weights."""
    return functools.partial(nn.LayerNorm, eps=eps)
