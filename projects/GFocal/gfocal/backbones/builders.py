"""The backbones of yacs configs: MODEL.BACKBONE.NAME."""

from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import FPN
from detectron2.modeling.backbone.resnet import BasicStem, ResNet

from .deconvolution import DeconvolutionNeck
from .hourglass import Hourglass
from .necks import LinearP6P7
from .res2net import DeepStem, make_res2net_stages
from .resnet import make_resnet_stages

__all__ = [
    "build_gfl_res2net_fpn_backbone",
    "build_gfl_resnet_fpn_backbone",
    "build_hourglass_backbone",
    "build_resnet_deconvolution_backbone",
]


@BACKBONE_REGISTRY.register()
def build_gfl_resnet_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """ResNet(XT) + FPN + P6/P7 as the released GFL models have it: MODEL.RESNETS, MODEL.FPN (yacs).

    Raises:
        ValueError: for a depth, width or dilation in MODEL.RESNETS that does not exist.
    """
    return _fpn(cfg, BasicStem, _resnet_stages(cfg), input_shape)


@BACKBONE_REGISTRY.register()
def build_resnet_deconvolution_backbone(cfg, input_shape: ShapeSpec) -> DeconvolutionNeck:
    """ResNet(XT) + transposed convolutions: MODEL.RESNETS, MODEL.CENTERNET.NECK (yacs).

    Raises:
        ValueError: for a depth, width or dilation in MODEL.RESNETS that does not exist, or for
            values in MODEL.CENTERNET.NECK that do not fit it.
    """
    neck = cfg.MODEL.CENTERNET.NECK
    return DeconvolutionNeck(
        bottom_up=_resnet(cfg, BasicStem, _resnet_stages(cfg), input_shape),
        in_feature=neck.IN_FEATURE,
        channels=neck.CHANNELS,
        deformable=neck.DEFORMABLE,
        norm=neck.NORM,
    )


def _resnet_stages(cfg) -> list[list[CNNBlockBase]]:
    resnets = cfg.MODEL.RESNETS
    return make_resnet_stages(
        depth=resnets.DEPTH,
        norm=resnets.NORM,
        num_groups=resnets.NUM_GROUPS,
        width_per_group=resnets.WIDTH_PER_GROUP,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        deform_on_per_stage=resnets.DEFORM_ON_PER_STAGE,
        deform_modulated=resnets.DEFORM_MODULATED,
        deform_num_groups=resnets.DEFORM_NUM_GROUPS,
    )


@BACKBONE_REGISTRY.register()
def build_gfl_res2net_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """Res2Net v1d + FPN + P6/P7: MODEL.RESNETS, MODEL.RES2NET, MODEL.FPN (yacs).

    Raises:
        ValueError: for a depth or dilation in MODEL.RESNETS that does not exist.
    """
    resnets = cfg.MODEL.RESNETS
    stages = make_res2net_stages(
        depth=resnets.DEPTH,
        norm=resnets.NORM,
        scales=cfg.MODEL.RES2NET.SCALES,
        base_width=cfg.MODEL.RES2NET.BASE_WIDTH,
        deform_on_per_stage=resnets.DEFORM_ON_PER_STAGE,
        deform_modulated=resnets.DEFORM_MODULATED,
        deform_num_groups=resnets.DEFORM_NUM_GROUPS,
    )
    return _fpn(cfg, DeepStem, stages, input_shape)


@BACKBONE_REGISTRY.register()
def build_hourglass_backbone(cfg, input_shape: ShapeSpec) -> Hourglass:
    """Hourglasses one after the other: MODEL.CORNERNET.HOURGLASS (yacs).

    Raises:
        ValueError: see :class:`Hourglass`.
    """
    hourglass = cfg.MODEL.CORNERNET.HOURGLASS
    return Hourglass(
        in_channels=input_shape.channels,
        channels=hourglass.CHANNELS,
        blocks=hourglass.BLOCKS,
        num_stacks=hourglass.NUM_STACKS,
        out_channels=hourglass.OUT_CHANNELS,
        norm=hourglass.NORM,
    )


def _resnet(cfg, stem: type[CNNBlockBase], stages, input_shape: ShapeSpec) -> ResNet:
    resnets = cfg.MODEL.RESNETS
    if resnets.RES5_DILATION != 1:
        raise ValueError(f"MODEL.RESNETS.RES5_DILATION is {resnets.RES5_DILATION}; expected 1")
    widths = {"STEM_OUT_CHANNELS": 64, "RES2_OUT_CHANNELS": stages[0][-1].out_channels}
    for key, expected in widths.items():
        if resnets[key] != expected:
            raise ValueError(
                f"MODEL.RESNETS.{key} is {resnets[key]}; expected {expected} for depth "
                f"{resnets.DEPTH}"
            )
    return ResNet(
        stem(in_channels=input_shape.channels, norm=resnets.NORM),
        stages,
        out_features=resnets.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )


def _fpn(cfg, stem: type[CNNBlockBase], stages, input_shape: ShapeSpec) -> FPN:
    resnets, fpn = cfg.MODEL.RESNETS, cfg.MODEL.FPN
    bottom_up = _resnet(cfg, stem, stages, input_shape)
    if missing := [name for name in fpn.IN_FEATURES if name not in resnets.OUT_FEATURES]:
        raise ValueError(
            f"MODEL.FPN.IN_FEATURES has {missing}; expected some of MODEL.RESNETS.OUT_FEATURES, "
            f"{resnets.OUT_FEATURES}"
        )
    all_stages = ["res2", "res3", "res4", "res5"]  # P6 is made of P5
    if not fpn.IN_FEATURES or fpn.IN_FEATURES != all_stages[-len(fpn.IN_FEATURES) :]:
        raise ValueError(
            f"MODEL.FPN.IN_FEATURES is {fpn.IN_FEATURES}; expected stages one after the other, up "
            "to res5"
        )
    top = fpn.get("TOP_IN_FEATURE", "p5")  # of add_gfocal_config
    if top not in ("p5", "res5"):
        raise ValueError(f"MODEL.FPN.TOP_IN_FEATURE is {top!r}; expected 'p5' or 'res5'")
    return FPN(
        bottom_up=bottom_up,
        in_features=fpn.IN_FEATURES,
        out_channels=fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        top_block=LinearP6P7(
            stages[-1][-1].out_channels if top == "res5" else fpn.OUT_CHANNELS,
            fpn.OUT_CHANNELS,
            in_feature=top,
        ),
        fuse_type=fpn.FUSE_TYPE,
    )
