"""Architectures, one a file. None imports another."""

from .augmented import AugmentedDetector
from .gfl import GFL
from .retinanet import QFLRetinaNet

__all__ = ["GFL", "AugmentedDetector", "QFLRetinaNet"]
