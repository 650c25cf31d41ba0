"""SSD512 with VGG-16. SSD300 differs by its levels and priors: COCO-Detection/ssd300_VGG_16.py."""

from detectron2.config import LazyCall as L
from detectron2.modeling.box_regression import Box2BoxTransform

from gfocal.backbones.vgg import VGG16, SSDPyramid
from gfocal.detectors.ssd import SSD
from gfocal.modeling.matchers import MaxIoUMatcher
from gfocal.modeling.prior_losses import SoftmaxHardNegativeLoss
from gfocal.modeling.priors import PriorGenerator, prior_sizes

model = L(SSD)(
    num_classes=80,
    backbone=L(SSDPyramid)(
        bottom_up=L(VGG16)(width=64, norm="", freeze_at=0),
        extra_levels=[
            # channels, and kernel, stride and padding of the second convolution
            [512, 3, 2, 1],
            [256, 3, 2, 1],
            [256, 3, 2, 1],
            [256, 3, 2, 1],
            [256, 4, 1, 1],
        ],
        strides=[8, 16, 32, 64, 128, 256, 512],
    ),
    anchor_generator=L(PriorGenerator)(
        sizes=prior_sizes(512, num_levels=7, percents=(4, 10, 90)),
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
        strides="${..backbone.strides}",
    ),
    matcher=L(MaxIoUMatcher)(iou_thresh=0.5),
    box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
    cls_loss=L(SoftmaxHardNegativeLoss)(),  # three negatives a positive
    test_score_thresh=0.02,
    test_topk_candidates=1000,
    test_nms_thresh=0.45,
    max_detections_per_image=200,
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[1.0, 1.0, 1.0],
    input_format="RGB",
)
