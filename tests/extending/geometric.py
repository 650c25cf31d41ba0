"""Bins that grow geometrically, fine near the location, as the head's ``box_representation``."""

import torch

from gfocal.representations import GeneralDistribution


class GeometricDistribution(GeneralDistribution):
    """Bins at 0 and at ``reg_max`` points from ``first`` to ``last`` strides, in equal ratios."""

    def __init__(self, reg_max: int = 16, first: float = 0.25, last: float = 64.0):
        super().__init__(reg_max)
        points = first * (last / first) ** torch.linspace(0, 1, reg_max)
        self.register_buffer("bins", torch.cat([torch.zeros(1), points]), persistent=False)
