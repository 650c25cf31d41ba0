"""Architectures, one a file. None imports another."""

from .gfl import GFL
from .retinanet import QFLRetinaNet

__all__ = ["GFL", "QFLRetinaNet"]
