"""A detector whose scores differ from each other, as those of a trained one do.

In an untrained detector they are almost equal, and which of two equal boxes NMS keeps depends on
the last bit.
"""

import torch

from tests.helpers.tiny import make_gfl


def make_spread_gfl(**kwargs):
    model = make_gfl(**kwargs).eval()
    with torch.no_grad():
        for part in (model.head.cls_tower, model.head.box_tower):
            for parameter in part.parameters():
                parameter.mul_(10)
        model.head.cls_logits.weight.mul_(20)
        model.head.box_logits.weight.mul_(20)
        model.head.cls_logits.bias.fill_(-1.0)
    return model
