"""Architectures, one a file. None imports another, but MaskGFL and DistilledGFL, which are
GFL with masks and GFL with a teacher."""

from .augmented import AugmentedDetector
from .centernet import CenterNet
from .cornernet import CornerNet
from .distilled import DistilledGFL
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
    "DistilledGFL",
    "GFLProposals",
    "MaskGFL",
    "QFLRetinaNet",
]
