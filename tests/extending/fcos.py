"""QFL and DFL in the FCOS of Detectron2's main, by overriding what differs.

Matching, anchors, decoding, thresholds and NMS stay FCOS's. Its centerness goes: the class score is
the quality (QFL). A side is a distribution (DFL). The losses and their normalisers are GFL's, which
take the place of the running mean of positives.

N images, R locations of all levels, K classes, C channels a side.
"""

import torch
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from torch import nn

from gfocal import (
    DenseAnchors,
    DensePredictions,
    DistributionFocalLoss,
    GeneralDistribution,
    GFLCriterion,
    GIoULoss,
    QualityFocalLoss,
)
from gfocal.modeling.structures import DenseTargets


class GFLFCOSHead(RetinaNetHead):
    """FCOSHead without centerness, whose sides have ``reg_max`` + 1 channels each."""

    def __init__(self, *, reg_max: int = 16, **kwargs):
        super().__init__(num_anchors=1, **kwargs)
        self.box_representation = GeneralDistribution(reg_max)
        channels = 4 * self.box_representation.num_channels
        self.bbox_pred = nn.Conv2d(self.bbox_pred.in_channels, channels, 3, padding=1)
        nn.init.normal_(self.bbox_pred.weight, std=0.01)
        nn.init.zeros_(self.bbox_pred.bias)


class GFLFCOS(FCOS):
    """FCOS whose class score is the quality of the box (Eq. 2), with distributions (Eq. 6)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.criterion = GFLCriterion(
            cls_loss=QualityFocalLoss(), box_loss=GIoULoss(), dist_loss=DistributionFocalLoss()
        )

    def per_level(self, predictions):
        """What the head says -> logits (N, H*W, K) and sides (N, H*W, 4, C) of each level."""
        channels = self.head.box_representation.num_channels
        sizes = [self.num_classes, 4 * channels]
        logits, sides = self._transpose_dense_predictions(predictions, sizes)
        return logits, [x.unflatten(-1, (4, channels)) for x in sides]

    def forward_training(self, images, features, predictions, gt_instances):
        logits, sides = self.per_level(predictions)
        anchors = self.anchor_generator(features)
        labels, boxes = self.label_anchors(anchors, gt_instances)  # FCOS's
        shapes = [x.shape[-2:] for x in features]
        return self.criterion(
            DenseAnchors.from_levels(anchors, shapes, self.anchor_generator.strides),
            DensePredictions(
                torch.cat(logits, dim=1),
                torch.cat(sides, dim=1),
                box_representation=self.head.box_representation,
            ),
            DenseTargets(torch.stack(labels), torch.stack(boxes)),
        )

    def forward_inference(self, images, features, predictions):
        logits, sides = self.per_level(predictions)
        anchors = self.anchor_generator(features)
        return [
            self.inference_single_image(  # FCOS's
                anchors,
                [x[i].sigmoid() for x in logits],
                [self.head.box_representation(x[i]) for x in sides],  # strides, as FCOS's deltas
                image_size,
            )
            for i, image_size in enumerate(images.image_sizes)
        ]
