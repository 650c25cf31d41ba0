"""MODEL.SSD and MODEL.VGG: the keys of SSD and of its backbone."""

from detectron2.config import CfgNode as CN

from ..modeling.yacs_ssd import DEFAULTS

__all__ = ["ssd_node", "vgg_node"]


def ssd_node() -> CN:
    """The keys with the values of SSD512 on COCO. What a config needs beside them has
    configs/COCO-Detection/ssd512_VGG_16.yaml."""
    node = CN()
    node.NUM_CLASSES = 80
    # 512 or 300: the levels of the backbone and the sizes of the priors are those of this input.
    # The images are resized by the mapper.
    node.INPUT_SIZE = 512

    # The loss of the classes, a name in gfocal/modeling/yacs_ssd.py, and its numbers.
    for key, default in DEFAULTS.items():
        node[key] = default

    node.SCORE_THRESH_TEST = 0.02
    node.TOPK_CANDIDATES_TEST = 1000
    node.NMS_THRESH_TEST = 0.45

    # Iterations between looks at the targets; 0 for none.
    node.STATISTICS_PERIOD = 20
    return node


def vgg_node() -> CN:
    """The keys of build_ssd_backbone: channels of the first block, and the norm after each
    convolution, which VGG-16 does not have."""
    node = CN()
    node.WIDTH = 64
    node.NORM = ""
    return node
