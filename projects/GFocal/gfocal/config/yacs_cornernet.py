"""MODEL.CORNERNET: the keys of CornerNet and of its backbone."""

from detectron2.config import CfgNode as CN

__all__ = ["cornernet_node"]


def cornernet_node() -> CN:
    """The keys with the values of CornerNet with Hourglass-104. What a config needs beside them has
    configs/COCO-Detection/cornernet_HG_104.yaml."""
    node = CN()
    node.NUM_CLASSES = 80
    # Maps of the backbone, a stack each; the detections are made of the last.
    node.IN_FEATURES = ["stack1", "stack2"]

    # Head: channels inside of the corner pooling, and of the convolution before each output; score
    # of every cell at first.
    node.POOL_CHANNELS = 128
    node.CONV_DIM = 256
    node.NORM = "BN"
    node.PRIOR_PROB = 0.1

    node.LOSS_OFFSET_WEIGHT = 1.0
    node.LOSS_PULL_WEIGHT = 0.1
    node.LOSS_PUSH_WEIGHT = 0.1

    # Inference: corners of each kind that are paired; the distance of embeddings of a pair; pairs
    # that go into the Gaussian soft-NMS. With FLIP_TEST the mirrored image is predicted too.
    node.NUM_CORNERS_TEST = 100
    node.MAX_DISTANCE_TEST = 0.5
    node.SCORE_THRESH_TEST = 0.0
    node.TOPK_CANDIDATES_TEST = 1000
    node.NMS_SIGMA = 0.5
    node.FLIP_TEST = False

    # Iterations between looks at the targets; 0 for none.
    node.STATISTICS_PERIOD = 20

    # build_hourglass_backbone: channels and residual blocks at stride 4 and after each halving.
    node.HOURGLASS = CN()
    node.HOURGLASS.CHANNELS = [256, 256, 384, 384, 384, 512]
    node.HOURGLASS.BLOCKS = [2, 2, 2, 2, 2, 4]
    node.HOURGLASS.NUM_STACKS = 2
    node.HOURGLASS.OUT_CHANNELS = 256
    node.HOURGLASS.NORM = "BN"
    return node
