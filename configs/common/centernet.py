"""CenterNet trained as in mmdetection: 140 epochs of 128 windows of 512 x 512 pixels, with batch
norm that is trained."""

from torchvision.models import ResNet18_Weights

from .data_centernet import dataloader
from .models.centernet import model
from .optim import optimizer_centernet as optimizer
from .schedule import lr_multiplier_centernet as lr_multiplier
from .schedule import max_iter_centernet
from .train import train

train.max_iter = max_iter_centernet
train.init_checkpoint = ResNet18_Weights.IMAGENET1K_V1.url
