"""GFL as the first stage of Detectron2's R-CNNs: boxes that may hold an object, with scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from .._padding import Padding
from ..backbones import DeformConv2d
from ..modeling.contracts import Head, Matcher
from ..modeling.dense import DenseCore
from ..modeling.ground_truth import ground_truth_of
from ..modeling.postprocess import NMSPostProcess
from ..modeling.statistics import TargetStatistics
from ..modeling.structures import DenseAnchors, DensePredictions, GroundTruth
from ..modeling.suppression import HardNMS
from ..modeling.yacs_keys import added_keys, dense_arguments

__all__ = ["GFLProposals"]


@PROPOSAL_GENERATOR_REGISTRY.register()
class GFLProposals(DenseCore):
    """A proposal generator for GeneralizedRCNN and its kin, trained together with their heads.

    A location's objectness is the best of its joint scores, so a proposal is of no class. No
    gradient flows through proposals.

    Args:
        in_features: names of the backbone's maps, finest first.
        head, anchor_generator, matcher, criterion: as in :class:`gfocal.detectors.GFL`.
        num_classes: K of the head. With 1 all objects are of one class; else the classes of the
            dataset are trained here too.
        pre_nms_topk: in training and in inference, at most so many candidates a level.
        post_nms_topk: in training and in inference, at most so many proposals an image.
        nms_thresh: IoU above which the lower-scored box is dropped, whatever its class.
        size_divisibility: of the backbone: an image is filled up to a multiple of it, pixels; this
            filling is background, and what is beyond it, on the padding of the batch, is ignored.
        loss_name: the losses are "loss_NAME_cls" and so on, so that they are not those of the ROI
            heads.
        statistics_period: see :class:`gfocal.modeling.statistics.TargetStatistics`; 0 for none.

    Raises:
        TypeError, ValueError: the parts do not fit together, or a number is out of its range.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: Head,
        anchor_generator: nn.Module,
        matcher: Matcher,
        criterion: nn.Module,
        num_classes: int = 1,
        pre_nms_topk: tuple[int, int] = (2000, 1000),
        post_nms_topk: tuple[int, int] = (1000, 1000),
        nms_thresh: float = 0.7,
        size_divisibility: int = 32,
        loss_name: str = "gfl",
        statistics_period: int = 20,
        ignore_padding: bool = True,
    ):
        in_training, in_inference = (
            NMSPostProcess(
                score_thresh=0.0,
                topk_candidates=pre,
                max_detections=post,
                suppression=HardNMS(iou_thresh=nms_thresh),
                stds=False,
            )
            for pre, post in zip(pre_nms_topk, post_nms_topk, strict=True)
        )
        super().__init__(
            anchor_generator=anchor_generator,
            matcher=matcher,
            criterion=criterion,
            postprocess=in_inference,
            num_classes=num_classes,
            observers=[TargetStatistics(statistics_period, in_features)],
            ignore_padding=ignore_padding,
        )
        self.postprocess_in_training = in_training
        self.head, self.in_features = head, list(in_features)
        self.padding, self.loss_name = Padding(size_divisibility), loss_name
        self.check_head(head)
        if head.num_levels != len(self.in_features) or len(self.strides) != head.num_levels:
            raise ValueError(
                f"the head has {head.num_levels} levels and the anchor generator the strides "
                f"{self.strides}; expected those of in_features {self.in_features}"
            )

    @classmethod
    def from_config(cls, cfg, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """The keys of MODEL.GFL; the numbers of proposals are MODEL.RPN's.

        Raises:
            ValueError: the keys do not fit together.
        """
        with added_keys():
            arguments = dense_arguments(cfg, input_shape, DeformConv2d)
            period = cfg.MODEL.GFL.STATISTICS_PERIOD
        rpn = cfg.MODEL.RPN
        return {
            **arguments,
            "in_features": cfg.MODEL.GFL.IN_FEATURES,
            "num_classes": cfg.MODEL.GFL.NUM_CLASSES,
            "pre_nms_topk": (rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST),
            "post_nms_topk": (rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST),
            "nms_thresh": rpn.NMS_THRESH,
            "statistics_period": period,
        }

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        gt_instances: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """
        Args:
            images: the padded batch, for the sizes of its images.
            features: {name: (N, F, H, W)}.
            gt_instances: in training, each with gt_boxes and gt_classes.

        Returns:
            An ``Instances`` an image with proposal_boxes (XYXY pixels, clipped to the image) and
            objectness_logits, best first; and the losses, {} in inference.

        Raises:
            ValueError: in training, if the ground truth is not usable; the message has the place of
                the image in the batch.
        """
        maps = [features[name] for name in self.in_features]
        anchors, predictions = self.anchors(maps), self.head(maps)
        if predictions.box_representation is None:
            predictions = predictions._replace(box_representation=self.head.box_representation)
        sizes = [(int(height), int(width)) for height, width in images.image_sizes]
        losses = {}
        if self.training:
            truth = self._truth(gt_instances, sizes)
            for name, loss in self.losses(anchors, predictions, truth).items():
                losses[f"loss_{self.loss_name}_{name.removeprefix('loss_')}"] = loss
        with torch.autocast(anchors.boxes.device.type, enabled=False):
            return self.proposals(anchors, predictions.detach(), sizes), losses

    @torch.no_grad()
    def proposals(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """The proposals of each image, see :meth:`forward`. As RPN's in inference, none is infinite
        or NaN; in training the losses tell of such numbers."""
        best = predictions.joint_logits().amax(dim=-1, keepdim=True)
        of_one_class = predictions._replace(cls_logits=best, quality_logits=None)
        postprocess: Any = self.postprocess_in_training if self.training else self.postprocess
        proposals = []
        for found, logits in zip(
            postprocess(anchors, of_one_class, image_sizes), best.squeeze(dim=-1)
        ):
            boxes, logits = found.pred_boxes.tensor, logits[found.anchor_idxs]
            usable = boxes.isfinite().all(dim=1) & logits.isfinite()
            proposals.append(
                Instances(
                    found.image_size,
                    proposal_boxes=Boxes(boxes[usable]),
                    objectness_logits=logits[usable],
                )
            )
        return proposals

    def _truth(
        self, gt_instances: Sequence[Instances] | None, sizes: Sequence[tuple[int, int]]
    ) -> GroundTruth:
        if gt_instances is None:
            raise ValueError('in training the images need "instances", and there are none')
        if self.num_classes == 1:
            gt_instances = [_of_one_class(x) for x in gt_instances]
        return ground_truth_of(
            [{"instances": x} for x in gt_instances],
            sizes,
            num_classes=self.num_classes,
            padding=self.padding,
            device=gt_instances[0].gt_classes.device,
        )


def _of_one_class(instances: Instances) -> Instances:
    """The boxes of some instances, all of class 0."""
    return Instances(
        instances.image_size,
        gt_boxes=instances.gt_boxes,
        gt_classes=torch.zeros_like(instances.gt_classes),
    )
