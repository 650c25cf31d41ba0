"""Complete-IoU loss (https://arxiv.org/abs/1911.08287, Eq. 10) as the criterion's ``box_loss``."""

from torch import Tensor, nn
from torchvision.ops import complete_box_iou_loss

from gfocal.modeling.structures import LossInputs


class CompleteIoULoss(nn.Module):
    """1 - IoU, and how far the centres and the aspect ratios are apart."""

    def __init__(self, weight: float = 2.0):
        super().__init__()
        self.weight = weight

    def forward(self, inputs: LossInputs) -> Tensor:
        losses = complete_box_iou_loss(inputs.fg_boxes, inputs.fg_target_boxes)
        return self.weight * inputs.weighted_mean(losses)
