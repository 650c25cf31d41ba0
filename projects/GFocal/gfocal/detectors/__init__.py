"""Architectures, one a file. None imports another."""

from .augmented import AugmentedDetector
from .centernet import CenterNet
from .gfl import GFL
from .retinanet import QFLRetinaNet

__all__ = ["GFL", "AugmentedDetector", "CenterNet", "QFLRetinaNet"]
