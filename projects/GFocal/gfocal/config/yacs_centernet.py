"""MODEL.CENTERNET: the keys of CenterNet and of its backbone's neck."""

from detectron2.config import CfgNode as CN

from ..modeling.yacs_centernet import DEFAULTS

__all__ = ["centernet_node"]


def centernet_node() -> CN:
    """The keys with the values of CenterNet with ResNet-18. What a config needs beside them has
    configs/COCO-Detection/centernet_R_18.yaml."""
    node = CN()
    node.NUM_CLASSES = 80
    # The map of the backbone that the head sees.
    node.IN_FEATURE = "p2"
    # Head: channels between the two convolutions of a branch; score of every cell at first.
    node.CONV_DIM = 64
    node.PRIOR_PROB = 0.1

    # Which parts: names in gfocal/modeling/yacs_centernet.py. And their numbers.
    for key, default in DEFAULTS.items():
        node[key] = default

    # Inference: the best peaks, whatever they score, without NMS (an IoU is never above 1). With
    # FLIP_TEST the mirrored image is predicted too.
    node.SCORE_THRESH_TEST = 0.0
    node.TOPK_CANDIDATES_TEST = 100
    node.NMS_THRESH_TEST = 1.0
    node.FLIP_TEST = False

    # Iterations between looks at the targets; 0 for none.
    node.STATISTICS_PERIOD = 20

    # Neck of build_resnet_deconvolution_backbone: the map that is enlarged, the channels of each
    # block that doubles it, whether its 3x3 convolutions are deformable and modulated (DCNv2).
    node.NECK = CN()
    node.NECK.IN_FEATURE = "res5"
    node.NECK.CHANNELS = [256, 128, 64]
    node.NECK.DEFORMABLE = False
    node.NECK.NORM = "BN"
    return node
