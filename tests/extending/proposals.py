"""GFL as the first stage of Detectron2's R-CNNs, in PROPOSAL_GENERATOR_REGISTRY."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from gfocal.dense import DenseCore
from gfocal.ground_truth import ground_truth_of


@PROPOSAL_GENERATOR_REGISTRY.register()
class DenseProposals(DenseCore):
    """Takes the arguments of DenseCore, of one class, beside a head and its features."""

    def __init__(self, *, head: nn.Module, in_features: Sequence[str], **core: Any):
        super().__init__(num_classes=1, **core)
        self.head, self.in_features = head, list(in_features)
        self.check_head(head)

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        levels, sizes = [features[name] for name in self.in_features], images.image_sizes
        anchors, predictions, losses = self.anchors(levels), self.head(levels), {}
        if self.training:
            objects = [
                {"instances": Instances(x.image_size, gt_boxes=x.gt_boxes)} for x in gt_instances
            ]
            for x in objects:
                x["instances"].gt_classes = torch.zeros(len(x["instances"]), dtype=torch.int64)
            truth = ground_truth_of(objects, sizes, num_classes=1, device=levels[0].device)
            losses = self.losses(anchors, predictions, truth)
        found = self.inference(anchors, predictions.detach(), sizes)
        proposals = [
            Instances(x.image_size, proposal_boxes=x.pred_boxes, objectness_logits=x.scores.logit())
            for x in found
        ]
        return proposals, {f"{name}_proposals": loss for name, loss in losses.items()}
