"""The joint representation on another detector: Detectron2's RetinaNet trained with QFL.

It is also an example for a detector of your own: to get QFL, it overrides one method.
Reference: Generalized Focal Loss (https://arxiv.org/abs/2006.04388), Eq. 2 and Table 1b.

N images, R anchors over all levels (several a location), K classes, M positive anchors of the
whole batch; boxes are XYXY in pixels of the network's input.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..modeling import recipes
from ..modeling.boxes import aligned_iou
from ..modeling.ground_truth import check_channels, ground_truth_of, image_name
from ..modeling.losses import check_beta, sparse_quality_focal_loss
from ..modeling.settings import RETINANET, check_setting, check_yacs
from ..modeling.yacs_keys import added_keys
from ..process.builders import warn_of_keys_for_trainers
from ..process.sums import is_first_micro_batch, sum_over_micro_batches

__all__ = ["QFLRetinaNet"]


@META_ARCH_REGISTRY.register()
class QFLRetinaNet(RetinaNet):
    """RetinaNet whose class score is also the quality of the box (Table 1b).

    Anchors, matcher, box regression, normaliser and inference are RetinaNet's. Its focal loss
    becomes QFL: the label of a positive anchor at its class is no longer 1, but the IoU of its
    predicted box with its ground truth.

    Args:
        qfl_beta: exponent of QFL's modulating factor; 0 or at least 1.
        kwargs: RetinaNet's arguments. ``focal_loss_alpha`` and ``focal_loss_gamma`` are not read.

    Raises:
        ValueError: if ``qfl_beta`` is another number, or a setting of the inference is out of its
            range.
    """

    @configurable
    def __init__(self, *, qfl_beta: float = 2.0, **kwargs):
        for name, setting in RETINANET.items():
            if name in kwargs:
                check_setting(name, kwargs[name], setting)
        super().__init__(**kwargs)
        check_beta(qfl_beta)
        self.qfl_beta = qfl_beta

    @classmethod
    def from_config(cls, cfg) -> dict[str, Any]:
        """RetinaNet's keys, and MODEL.GFL.QFL_BETA if ``add_gfocal_config`` added it.

        Raises:
            ValueError: a number of MODEL.GFL for another part is not its default: nothing reads it.
        """
        warn_of_keys_for_trainers(cfg)
        check_yacs(cfg)
        kwargs = super().from_config(cfg)
        if "GFL" in cfg.MODEL:
            with added_keys():
                values = {key: attrgetter(key)(cfg.MODEL.GFL) for key in recipes.DEFAULTS}
            kwargs["qfl_beta"] = values["QFL_BETA"]
            for key, default in recipes.DEFAULTS.items():
                value = values[key]
                if key != "QFL_BETA" and value != default:
                    raise ValueError(
                        f"MODEL.GFL.{key} is {value!r}, but {cls.__name__} does not read it; "
                        f"expected {default!r}. Of MODEL.GFL it reads QFL_BETA"
                    )
        return kwargs

    def forward(self, batched_inputs: list[dict[str, Any]]):
        """As RetinaNet's.

        Raises:
            ValueError: there is no image; one has other channels than ``pixel_mean``, or a border
                of :class:`gfocal.data.transforms.CenterPad`. In training, also if it has no
                "instances", or its boxes or classes are not usable; the message names the image.
        """
        check_channels(batched_inputs, len(self.pixel_mean))
        for index, inputs in enumerate(batched_inputs):
            if "border" in inputs:
                raise ValueError(
                    f"{image_name(index, inputs)} lies inside of a border (CenterPad, "
                    "INPUT.AUGMENTATIONS), which RetinaNet's boxes would keep; expected none"
                )
        if self.training:
            sizes = [x["image"].shape[-2:] for x in batched_inputs]
            ground_truth_of(batched_inputs, sizes, num_classes=self.num_classes)
        return super().forward(batched_inputs)

    def losses(
        self,
        anchors: Sequence[Boxes],
        pred_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """
        Args:
            anchors: one ``Boxes`` a level, R anchors in all.
            pred_logits: one (N, R_level, K) a level.
            gt_labels: one (R,) an image: 0..K-1 a class, K background, -1 ignored.
            pred_anchor_deltas: one (N, R_level, 4) a level, as ``box2box_transform`` reads them.
            gt_boxes: one (R, 4) an image; read at positive anchors only.

        Returns:
            ``loss_cls`` and ``loss_box_reg``: scalars, sums over the batch divided by RetinaNet's
            running mean of the number of positive anchors.
        """
        labels = torch.stack(list(gt_labels))  # (N, R)
        foreground = (labels >= 0) & (labels != self.num_classes)
        image_idxs, anchor_idxs = foreground.nonzero(as_tuple=True)  # (M,) each
        num_foreground = len(image_idxs)
        get_event_storage().put_scalar("num_pos_anchors", num_foreground / len(labels))
        total, count = sum_over_micro_batches(torch.tensor(num_foreground))
        if is_first_micro_batch():
            # Detectron2 0.5 and main keep it in the same attribute, and start at the same number.
            # But only 0.5 has it from the beginning, and only main has a method for it.
            old = getattr(self, "loss_normalizer", 100)
            self.loss_normalizer = 0.9 * old + 0.1 * max(int(total), 1)
        normalizer = self.loss_normalizer / count

        with torch.no_grad():  # QFL's labels (Eq. 2): IoU of predicted and true boxes
            boxes = self.box2box_transform.apply_deltas(
                torch.cat(list(pred_anchor_deltas), dim=1)[image_idxs, anchor_idxs],
                Boxes.cat(list(anchors)).tensor[anchor_idxs],
            )
            ious = aligned_iou(boxes, torch.stack(list(gt_boxes))[image_idxs, anchor_idxs])
        loss_cls = sparse_quality_focal_loss(
            torch.cat(list(pred_logits), dim=1).flatten(0, 1),  # (N*R, K)
            None,
            (image_idxs * labels.shape[1] + anchor_idxs, labels[image_idxs, anchor_idxs]),
            ious,
            valid=(labels >= 0).flatten(),
            beta=self.qfl_beta,
            scale=1 / normalizer,
        )
        loss_box_reg = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            foreground,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        return {"loss_cls": loss_cls, "loss_box_reg": loss_box_reg / normalizer}
