"""CenterNet, objects as points, with ResNet-18 and a neck of plain convolutions."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BasicStem, ResNet

from gfocal.backbones import DeconvolutionNeck, make_resnet_stages
from gfocal.detectors.centernet import CenterNet
from gfocal.modeling.centers import CenterFocalLoss, CenterNetHead, CenterSize

model = L(CenterNet)(
    num_classes=80,
    backbone=L(DeconvolutionNeck)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="BN"),
            stages=L(make_resnet_stages)(depth=18, norm="BN"),
            out_features=["res5"],
            freeze_at=0,
        ),
        in_feature="res5",
        channels=[256, 128, 64],
        deformable=False,
        norm="BN",
        size_divisibility=32,
    ),
    in_feature="p2",
    head=L(CenterNetHead)(
        num_classes="${..num_classes}",
        in_channels=64,
        box="${..box}",  # for the number of its channels
        conv_dim=64,
        prior_prob=0.1,
    ),
    box=L(CenterSize)(size_weight=0.1, offset_weight=1.0),
    heat_loss=L(CenterFocalLoss)(alpha=2.0, beta=4.0),
    test_flip=False,
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
)
