"""What was published about the models of the zoo: the authors' AP, and their weights.

The APs are those of COCO val2017. None was measured here.
"""

from typing import NamedTuple

__all__ = ["PUBLISHED", "PublishedModel"]


class PublishedModel(NamedTuple):
    """A published model.

    Attributes:
        ap: on COCO val2017, as reported.
        parameters: in millions, of all networks.
        weights: address of the official file, which `gfocal convert` turns into one of ours.
        whose: whose AP and weights these are.
        tested: how, if not on the image alone.
    """

    ap: float
    parameters: float
    weights: str
    whose: str = "mmdetection"
    tested: str = ""


_V1 = "https://download.openmmlab.com/mmdetection/v2.0/gfl/"
_AUTHORS = "the authors"
_V2 = "https://drive.google.com/file/d/"
_FOVEA = "https://download.openmmlab.com/mmdetection/v2.0/foveabox/"
_SSD = "https://download.openmmlab.com/mmdetection/v2.0/ssd/"
_CENTERNET = "https://download.openmmlab.com/mmdetection/v2.0/centernet/"
_CORNERNET = "https://download.openmmlab.com/mmdetection/v2.0/cornernet/"
# By the name of the config in configs/COCO-Detection. Sources of the AP: configs/gfl of mmdetection
# (v1), the README of GFocalV2 (v2); configs/foveabox, ssd, centernet and cornernet of mmdetection.
PUBLISHED = {
    "gfl_R_50_FPN_1x": PublishedModel(
        ap=40.2,
        parameters=32.44,
        weights=f"{_V1}gfl_r50_fpn_1x_coco/gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth",
    ),
    "gfl_R_50_FPN_ms_2x": PublishedModel(
        ap=42.9,
        parameters=32.44,
        weights=f"{_V1}gfl_r50_fpn_mstrain_2x_coco/"
        "gfl_r50_fpn_mstrain_2x_coco_20200629_213802-37bb1edc.pth",
    ),
    "gfl_R_101_FPN_ms_2x": PublishedModel(
        ap=44.7,
        parameters=51.43,
        weights=f"{_V1}gfl_r101_fpn_mstrain_2x_coco/"
        "gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth",
    ),
    "gfl_R_101_dcn_FPN_ms_2x": PublishedModel(
        ap=47.1,
        parameters=52.72,
        weights=f"{_V1}gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco/"
        "gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco_20200630_102002-134b07df.pth",
    ),
    "gfl_X_101_32x4d_FPN_ms_2x": PublishedModel(
        ap=45.9,
        parameters=51.06,
        weights=f"{_V1}gfl_x101_32x4d_fpn_mstrain_2x_coco/"
        "gfl_x101_32x4d_fpn_mstrain_2x_coco_20200630_102002-50c1ffdb.pth",
    ),
    "gfl_X_101_32x4d_dcn_FPN_ms_2x": PublishedModel(
        ap=48.1,
        parameters=53.47,
        weights=f"{_V1}gfl_x101_32x4d_fpn_dconv_c4-c5_mstrain_2x_coco/"
        "gfl_x101_32x4d_fpn_dconv_c4-c5_mstrain_2x_coco_20200630_102002-14a2bf25.pth",
    ),
    "gflv2_R_50_FPN_1x": PublishedModel(
        ap=41.0,
        parameters=32.44,
        weights=f"{_V2}1wSE9-c7tcQwIDPC6Vm_yfOokdPfmYmy7/view",
        whose=_AUTHORS,
    ),
    "gflv2_R_50_FPN_ms_2x": PublishedModel(
        ap=43.9,
        parameters=32.44,
        weights=f"{_V2}17-1cKRdR5J3SfZ9NBCwe6QE554uTS30F/view",
        whose=_AUTHORS,
    ),
    "gflv2_R_101_FPN_ms_2x": PublishedModel(
        ap=45.8,
        parameters=51.43,
        weights=f"{_V2}1qomgA7mzKW0bwybtG4Avqahv67FUxmNx/view",
        whose=_AUTHORS,
    ),
    "gflv2_R_101_dcn_FPN_ms_2x": PublishedModel(
        ap=48.0,
        parameters=52.72,
        weights=f"{_V2}1xsBjxmqsJoYZYPMr0k06X5K9nnPrexcx/view",
        whose=_AUTHORS,
    ),
    "gflv2_X_101_32x4d_dcn_FPN_ms_2x": PublishedModel(
        ap=48.8,
        parameters=53.47,
        weights=f"{_V2}1AHDVQoclYPSP0Ync2a5FCsr_rhq2QdMH/view",
        whose=_AUTHORS,
    ),
    "gflv2_R2_101_dcn_FPN_ms_2x": PublishedModel(
        ap=49.9,
        parameters=53.58,
        weights=f"{_V2}1sAXfYLXIxZgMrC44LBqDgfYImThZ_kud/view",
        whose=_AUTHORS,
    ),
    "fovea_R_50_FPN_1x": PublishedModel(
        ap=36.5,
        parameters=36.42,
        weights=f"{_FOVEA}fovea_r50_fpn_4x4_1x_coco/"
        "fovea_r50_fpn_4x4_1x_coco_20200219-ee4d5303.pth",
    ),
    "fovea_align_R_50_FPN_gn_2x": PublishedModel(
        ap=37.9,
        parameters=38.62,
        weights=f"{_FOVEA}fovea_align_r50_fpn_gn-head_4x4_2x_coco/"
        "fovea_align_r50_fpn_gn-head_4x4_2x_coco_20200203-8987880d.pth",
    ),
    "fovea_align_R_50_FPN_gn_ms_2x": PublishedModel(
        ap=40.4,
        parameters=38.62,
        weights=f"{_FOVEA}fovea_align_r50_fpn_gn-head_mstrain_640-800_4x4_2x_coco/"
        "fovea_align_r50_fpn_gn-head_mstrain_640-800_4x4_2x_coco_20200205-85ce26cb.pth",
    ),
    "ssd300_VGG_16": PublishedModel(
        ap=25.5,
        parameters=34.31,
        weights=f"{_SSD}ssd300_coco/ssd300_coco_20210803_015428-d231a06e.pth",
    ),
    "ssd512_VGG_16": PublishedModel(
        ap=29.5,
        parameters=36.04,
        weights=f"{_SSD}ssd512_coco/ssd512_coco_20210803_022849-0a47a1ca.pth",
    ),
    "centernet_R_18": PublishedModel(
        ap=25.9,
        parameters=14.22,
        weights=f"{_CENTERNET}centernet_resnet18_140e_coco/"
        "centernet_resnet18_140e_coco_20210705_093630-bb5b3bf7.pth",
    ),
    "centernet_R_18_dcn": PublishedModel(
        ap=29.5,
        parameters=14.44,
        weights=f"{_CENTERNET}centernet_resnet18_dcnv2_140e_coco/"
        "centernet_resnet18_dcnv2_140e_coco_20210702_155131-c8cd631f.pth",
    ),
    "cornernet_HG_104": PublishedModel(
        ap=41.2,
        parameters=201.04,
        weights=f"{_CORNERNET}cornernet_hourglass104_mstest_10x5_210e_coco/"
        "cornernet_hourglass104_mstest_10x5_210e_coco_20200824_185720-5fefbf1c.pth",
        tested="with the mirrored image",
    ),
}
