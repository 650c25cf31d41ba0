"""A head of its own for each level, as the detector's ``head``."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gfocal.head import GFLHead
from gfocal.structures import DensePredictions


class DecoupledHead(nn.Module):
    """One GFLHead a level; takes its arguments."""

    def __init__(self, *, num_levels: int, quality_predictor: nn.Module, **kwargs: Any):
        super().__init__()
        self.num_levels, self.num_classes = num_levels, kwargs["num_classes"]
        self.box_representation = kwargs["box_representation"]
        quality = [copy.deepcopy(quality_predictor) for _ in range(num_levels)]
        self.levels = nn.ModuleList(
            GFLHead(num_levels=1, quality_predictor=x, **kwargs) for x in quality
        )

    def forward(self, features: Sequence[Tensor]) -> DensePredictions:
        answers = [head([feature]) for head, feature in zip(self.levels, features)]
        tensors = [torch.cat(levels, dim=1) for levels in zip(*(x.tensors for x in answers))]
        return answers[0].with_tensors(tensors)
