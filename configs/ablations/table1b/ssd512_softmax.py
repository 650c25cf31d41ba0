"""SSD512 as it is: the baseline of ssd512_qfl.py."""

from ...common.data_ssd import dataloader
from ...common.models.ssd import model
from ...common.optim import optimizer_ssd as optimizer
from ...common.schedule import lr_multiplier_ssd as lr_multiplier
from ...common.schedule import max_iter_ssd
from ...common.train import train

train.max_iter = max_iter_ssd
train.init_checkpoint = (
    "https://download.openmmlab.com/pretrain/third_party/vgg16_caffe-292e1171.pth"
)
paper = dict(AP=29.4, APs=11.4)
