"""GFLV2 with ResNet-50-FPN. For GFLV1, replace the quality predictor by ``L(NoQuality)()``."""

from detectron2.config import LazyCall as L
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import FPN
from detectron2.modeling.backbone.resnet import BasicStem, ResNet

from gfocal.backbones import LinearP6P7, make_resnet_stages
from gfocal.criterion import GFLCriterion
from gfocal.head import GFLHead
from gfocal.matchers import ATSSMatcher
from gfocal.meta_arch import GFL
from gfocal.quality import DistributionGuidedQualityPredictor
from gfocal.representations import GeneralDistribution
from gfocal.terms import DistributionFocalLoss, GIoULoss, QualityFocalLoss

model = L(GFL)(
    num_classes=80,
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(make_resnet_stages)(depth=50, norm="FrozenBN"),
            out_features=["res3", "res4", "res5"],
            freeze_at=2,  # the stem and res2 stay as they were pre-trained
        ),
        in_features=["res3", "res4", "res5"],
        out_channels=256,
        top_block=L(LinearP6P7)(in_channels="${..out_channels}", out_channels="${..out_channels}"),
    ),
    head=L(GFLHead)(
        num_classes="${..num_classes}",
        in_channels="${..backbone.out_channels}",
        num_levels=5,
        conv_dims=[256, 256, 256, 256],
        norm="GN",
        prior_prob=0.01,
        box_representation=L(GeneralDistribution)(reg_max=16, bin_width=1.0),
        quality_predictor=L(DistributionGuidedQualityPredictor)(
            topk=4, add_mean=True, hidden_dim=64
        ),
    ),
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=[[64], [128], [256], [512], [1024]],  # 8 * stride
        aspect_ratios=[1.0],
        strides=[8, 16, 32, 64, 128],
        offset=0.0,  # anchors centred at (x * stride, y * stride), as the released models have them
    ),
    matcher=L(ATSSMatcher)(topk=9),
    criterion=L(GFLCriterion)(
        cls_loss=L(QualityFocalLoss)(beta=2.0, weight=1.0),
        box_loss=L(GIoULoss)(weight=2.0),
        dist_loss=L(DistributionFocalLoss)(weight=0.25),
    ),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
)
