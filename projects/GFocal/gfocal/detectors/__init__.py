"""Architectures, one a file. None imports another."""

from .augmented import AugmentedDetector
from .gfl import GFL
from .retinanet import QFLRetinaNet
from .ssd import SSD

__all__ = ["GFL", "SSD", "AugmentedDetector", "QFLRetinaNet"]
