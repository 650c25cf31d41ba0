"""SSD512 with VGG-16 (https://arxiv.org/abs/1512.02325), trained as in mmdetection."""

from ..common.data_ssd import dataloader
from ..common.models.ssd import model
from ..common.optim import optimizer_ssd as optimizer
from ..common.schedule import lr_multiplier_ssd as lr_multiplier
from ..common.schedule import max_iter_ssd
from ..common.train import train

train.max_iter = max_iter_ssd

# A VGG-16 of Caffe, with its mean and without standard deviations. Those of torchvision's
# VGG16_Weights.IMAGENET1K_V1.url are model.pixel_std=[58.395,57.12,57.375].
train.init_checkpoint = (
    "https://download.openmmlab.com/pretrain/third_party/vgg16_caffe-292e1171.pth"
)
