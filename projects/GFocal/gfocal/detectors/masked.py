"""Instance segmentation by GFL: Detectron2's mask branch on its final detections."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import Instances
from torch import Tensor

from ..modeling.dense import refuse_to_be_traced
from .gfl import GFL

__all__ = ["MaskGFL"]


class MaskGFL(GFL):
    """GFL with a second stage for masks alone: each final detection gets one, and its box, score
    and class stay as they are.

    The mask branch is that of Mask R-CNN (https://arxiv.org/abs/1703.06870). It is trained on the
    detections that overlap with an object, and on the objects' own boxes. Names of GFL's parameters
    are those of :class:`GFL`, so its weights fit.

    Args:
        roi_heads: Detectron2's, of which the mask branch is used; its parts for boxes can be None.
            It samples the boxes for the training, so ``batch_size_per_image`` and
            ``proposal_matcher`` count.
        train_detector: False: backbone and head stay as they are loaded, so boxes are to the bit
            those of the weights, and only masks are learnt.
        **arguments: those of :class:`GFL`.

    Raises:
        ValueError: ``roi_heads`` has no mask branch, other classes, or reads a map that the
            backbone has not; or see :class:`GFL`.
    """

    def __init__(
        self, *, roi_heads: StandardROIHeads, train_detector: bool = True, **arguments: Any
    ):
        super().__init__(**arguments)
        if not getattr(roi_heads, "mask_on", False):
            raise ValueError("roi_heads has no mask branch; expected mask_head and mask_pooler")
        if roi_heads.num_classes != self.num_classes:
            raise ValueError(
                f"roi_heads has {roi_heads.num_classes} classes; expected those of the detector, "
                f"{self.num_classes}"
            )
        known = self.backbone.output_shape()
        if missing := [x for x in roi_heads.mask_in_features if x not in known]:
            raise ValueError(f"mask_in_features {missing} are not among {sorted(known)}")
        self.roi_heads, self.train_detector = roi_heads, train_detector
        if not train_detector:
            for network in self.networks():
                network.requires_grad_(False)

    def train(self, mode: bool = True) -> "MaskGFL":
        super().train(mode)
        if not self.train_detector:
            for network in self.networks():
                network.eval()  # batch norms and such stay too
        return self

    def forward(self, batched_inputs: list[dict[str, Any]]):
        """
        Args:
            batched_inputs: see :meth:`GFL.forward`; in training the instances need gt_masks.

        Returns:
            In training the losses of :class:`GFL` and loss_mask, or with ``train_detector=False``
            loss_mask alone. In inference :class:`GFL`'s detections, with `pred_masks` (M, height,
            width) bool.

        Raises:
            ValueError: in training, an image has no masks; an image lies in the middle of a padded
                one; or see :meth:`GFL.forward`.
        """
        if not self.training:
            refuse_to_be_traced()
        if any("border" in x for x in batched_inputs):
            raise ValueError("a MaskGFL takes no CenterPad; expected augmentations without it")
        images = self.preprocess_image(batched_inputs)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.train_detector):
            maps = self.backbone(images.tensor.to(next(self.backbone.parameters()).dtype))
            features = [maps[name] for name in self.head_in_features]
            anchors, predictions = self.anchors(features), self.predictions(features)
        sizes = images.image_sizes
        with torch.autocast(images.tensor.device.type, enabled=False):
            found = self.inference(anchors, predictions.detach(), sizes)
            losses = {}
            if self.training and self.train_detector:
                truth = self.ground_truth(batched_inputs, sizes)
                losses = self.losses(anchors, predictions, truth, batched_inputs)
        if self.training:
            return {**losses, **self._mask_losses(maps, found, batched_inputs)}
        maps = {name: maps[name].float() for name in self.roi_heads.mask_in_features}
        results = self.roi_heads.forward_with_given_boxes(maps, found)
        return [
            {"instances": self.in_output(result, inputs, size)}
            for result, inputs, size in zip(results, batched_inputs, sizes)
        ]

    def check_decode(self) -> None:
        raise TypeError("gfocal export writes no masks; export the GFL of these weights")

    def _mask_losses(
        self,
        maps: Mapping[str, Tensor],
        found: Sequence[Instances],
        batched_inputs: Sequence[Mapping[str, Any]],
    ) -> dict[str, Tensor]:
        targets = [x["instances"].to(self.device) for x in batched_inputs]
        for target, inputs in zip(targets, batched_inputs):
            if not target.has("gt_masks"):
                name = inputs.get("file_name", f"image {inputs.get('image_id', 'without a name')}")
                raise ValueError(
                    f"{name} has no gt_masks; expected a mapper with use_instance_mask=True"
                )
        proposals = [
            Instances(
                x.image_size,
                proposal_boxes=x.pred_boxes,
                objectness_logits=x.scores.logit(),
            )
            for x in found
        ]
        proposals = self.roi_heads.label_and_sample_proposals(proposals, targets)
        return self.roi_heads._forward_mask(maps, proposals)
