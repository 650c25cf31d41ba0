"""CornerNet with Hourglass-104, as in MMDetection."""

from detectron2.config import LazyCall as L

from gfocal.backbones import Hourglass
from gfocal.detectors.cornernet import CornerNet
from gfocal.modeling.corner_head import CornerHead
from gfocal.modeling.corner_losses import CornerCriterion
from gfocal.modeling.suppression import GaussianSoftNMS

from .gfl import model as _gfl

model = L(CornerNet)(
    num_classes=80,
    backbone=L(Hourglass)(
        channels=[256, 256, 384, 384, 384, 512],  # at stride 4, 8, ...
        blocks=[2, 2, 2, 2, 2, 4],
        num_stacks=2,
        out_channels=256,
        norm="BN",
    ),
    head=L(CornerHead)(
        num_classes="${..num_classes}",
        in_channels="${..backbone.out_channels}",
        num_stacks="${..backbone.num_stacks}",
        pool_channels=128,
        conv_dim=256,
        norm="BN",
        prior_prob=0.1,
    ),
    criterion=L(CornerCriterion)(offset_weight=1.0, pull_weight=0.1, push_weight=0.1),
    num_corners=100,
    max_distance=0.5,
    test_flip=False,  # the published AP is with it
    test_score_thresh=0.0,
    test_topk_candidates=1000,
    suppression=L(GaussianSoftNMS)(sigma=0.5, min_score=1e-3, class_shift=True),
    max_detections_per_image=100,
    pixel_mean=_gfl.pixel_mean,
    pixel_std=_gfl.pixel_std,
    input_format=_gfl.input_format,
)
