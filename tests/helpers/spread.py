"""A detector whose scores differ from each other, as those of a trained one do.

In an untrained detector they are almost equal, and which of two equal boxes NMS keeps depends on
the last bit.
"""

import torch
from detectron2.evaluation import DatasetEvaluator

from tests.helpers.tiny import make_gfl


def make_spread_gfl(**kwargs):
    return spread(make_gfl(**kwargs))


def spread(model):
    """A GFL detector whose head's weights grow, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        for part in (model.head.cls_tower, model.head.box_tower):
            for parameter in part.parameters():
                parameter.mul_(10)
        model.head.cls_logits.weight.mul_(20)
        model.head.box_logits.weight.mul_(20)
        model.head.cls_logits.bias.fill_(-1.0)
    return model


class SumEvaluator(DatasetEvaluator):
    """The number of detections, and the sums of their scores and corners."""

    def reset(self):
        self.sums = {"count": 0.0, "scores": 0.0, "corners": 0.0}

    def process(self, inputs, outputs):
        for output in outputs:
            found = output["instances"]
            self.sums["count"] += len(found)
            self.sums["scores"] += float(found.scores.sum())
            self.sums["corners"] += float(found.pred_boxes.tensor.sum())

    def evaluate(self):
        return {"bbox": dict(self.sums)}
