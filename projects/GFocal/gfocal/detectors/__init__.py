"""Architectures, one a file. None imports another."""

from .augmented import AugmentedDetector
from .centernet import CenterNet
from .cornernet import CornerNet
from .gfl import GFL
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
    "QFLRetinaNet",
]
