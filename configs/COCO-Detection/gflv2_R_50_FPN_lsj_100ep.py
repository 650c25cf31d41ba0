"""GFLV2 with what strong baselines have today: 100 epochs of large-scale jitter at 1024 x 1024,
copy-paste, AdamW with a cosine, averaged weights. No weights of it were published.

It is Detectron2's recipe of 100 epochs (configs/new_baselines: jitter, batch size, length), with
pre-trained and partly frozen weights where that starts from scratch. Each piece by one override:

- jitter: ``dataloader.jitter=[0.8,1.25]`` is the usual one, ``[1,1]`` none;
- copy-paste: ``dataloader.mix=mosaic`` for a dataset without masks, or ``dataloader.mix=none``;
- repeat-factor sampling, off for COCO: ``dataloader.train.sampler.repeat_thresh=0.001``;
- SGD: ``'optimizer=${alternatives.sgd}'``;
- steps as in Detectron2's recipe: ``'lr_multiplier=${alternatives.steps}'``;
- averaged weights: ``train.ema_decay=0``;
- mixed precision, off here: ``train.amp.enabled=true``.
"""

from ..common.data_lsj_mixing import dataloader
from ..common.models.gfl import model
from ..common.optim import optimizer as _sgd
from ..common.optim import optimizer_adamw as optimizer
from ..common.schedule import lr_multiplier_100ep_cosine as lr_multiplier
from ..common.schedule import lr_multiplier_100ep_steps as _steps
from ..common.schedule import max_iter_100ep
from ..common.train import train

_sgd.lr = 0.04  # 0.01 for 16 images
alternatives = dict(sgd=_sgd, steps=_steps)

train.max_iter = max_iter_100ep
train.ema_decay = 0.9998
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
