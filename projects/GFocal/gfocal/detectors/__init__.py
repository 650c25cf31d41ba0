"""Architectures, one a file. None imports another, but MaskGFL, which is GFL with masks."""

from .augmented import AugmentedDetector
from .centernet import CenterNet
from .cornernet import CornerNet
from .gfl import GFL
from .masked import MaskGFL
from .proposals import GFLProposals
from .retinanet import QFLRetinaNet
from .ssd import SSD

__all__ = [
    "GFL",
    "SSD",
    "AugmentedDetector",
    "CenterNet",
    "CornerNet",
    "GFLProposals",
    "MaskGFL",
    "QFLRetinaNet",
]
