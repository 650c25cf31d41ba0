"""Architectures, one a file. None imports another."""

from .augmented import AugmentedDetector
from .centernet import CenterNet
from .cornernet import CornerNet
from .gfl import GFL
from .retinanet import QFLRetinaNet

__all__ = ["GFL", "AugmentedDetector", "CenterNet", "CornerNet", "QFLRetinaNet"]
