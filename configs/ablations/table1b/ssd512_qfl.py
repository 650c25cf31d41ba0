"""SSD512 with Quality Focal Loss (GFL v1, https://arxiv.org/abs/2006.04388, Table 1b). How the two
go together is our reading: docs/paper_vs_code.md."""

from detectron2.config import LazyCall as L

from gfocal.modeling.prior_losses import SigmoidQualityFocalLoss

from ...common.data_ssd import dataloader
from ...common.models.ssd import model
from ...common.optim import optimizer_ssd as optimizer
from ...common.schedule import lr_multiplier_ssd as lr_multiplier
from ...common.schedule import max_iter_ssd
from ...common.train import train

model.cls_loss = L(SigmoidQualityFocalLoss)(beta=2.0, prior_prob=0.01)

train.max_iter = max_iter_ssd
train.init_checkpoint = (
    "https://download.openmmlab.com/pretrain/third_party/vgg16_caffe-292e1171.pth"
)
paper = dict(AP=30.2, AP50=50.3, AP75=31.7, APs=13.3)
