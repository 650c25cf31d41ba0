"""Backbones and necks that the released models need and Detectron2 does not have."""

from .builders import (
    build_gfl_res2net_fpn_backbone,
    build_gfl_resnet_fpn_backbone,
    build_hourglass_backbone,
    build_resnet_deconvolution_backbone,
)
from .deconvolution import DeconvolutionNeck
from .deformable import DeformBottleneckBlock, DeformConv2d
from .detectron2_main import from_detectron2_main, layer_norm
from .hourglass import Hourglass
from .necks import LinearP6P7, PathAggregation
from .res2net import DeepStem, DeformRes2NetBlock, Res2NetBlock, make_res2net_stages
from .resnet import make_resnet_stages, res5_channels
from .timm_backbone import TimmBackbone
from .vgg import VGG16, SSDPyramid, build_ssd_backbone

__all__ = [
    "VGG16",
    "DeconvolutionNeck",
    "DeepStem",
    "DeformBottleneckBlock",
    "DeformConv2d",
    "DeformRes2NetBlock",
    "Hourglass",
    "LinearP6P7",
    "PathAggregation",
    "Res2NetBlock",
    "SSDPyramid",
    "TimmBackbone",
    "build_gfl_res2net_fpn_backbone",
    "build_gfl_resnet_fpn_backbone",
    "build_hourglass_backbone",
    "build_resnet_deconvolution_backbone",
    "build_ssd_backbone",
    "from_detectron2_main",
    "layer_norm",
    "make_res2net_stages",
    "make_resnet_stages",
    "res5_channels",
]
