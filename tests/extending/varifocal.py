"""Varifocal loss (https://arxiv.org/abs/2008.13367, Eq. 2) as the criterion's ``cls_loss``."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from gfocal.quality import localization_iou
from gfocal.structures import LossInputs


class VarifocalLoss(nn.Module):
    """A positive weighs as much as its IoU, a negative alpha * score^gamma."""

    def __init__(self, alpha: float = 0.75, gamma: float = 2.0):
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, inputs: LossInputs) -> Tensor:
        logits = inputs.predictions.joint_logits()
        targets = torch.zeros_like(logits)
        targets[(*inputs.fg_idxs, inputs.fg_labels)] = localization_iou(inputs)
        negative = self.alpha * logits.sigmoid().pow(self.gamma)
        loss = binary_cross_entropy_with_logits(logits, targets, reduction="none")
        loss = (loss * torch.where(targets > 0, targets, negative)).sum(dim=-1)
        return (loss * (inputs.targets.labels >= 0)).sum() / inputs.num_foreground
