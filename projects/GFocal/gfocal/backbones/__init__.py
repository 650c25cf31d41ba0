"""Backbones and necks that the released models need and Detectron2 does not have."""

from .resnet import (
    DeepStem,
    DeformBottleneckBlock,
    DeformConv2d,
    DeformRes2NetBlock,
    LinearP6P7,
    Res2NetBlock,
    build_gfl_res2net_fpn_backbone,
    build_gfl_resnet_fpn_backbone,
    make_res2net_stages,
    make_resnet_stages,
)

__all__ = [
    "DeepStem",
    "DeformBottleneckBlock",
    "DeformConv2d",
    "DeformRes2NetBlock",
    "LinearP6P7",
    "Res2NetBlock",
    "build_gfl_res2net_fpn_backbone",
    "build_gfl_resnet_fpn_backbone",
    "make_res2net_stages",
    "make_resnet_stages",
]
