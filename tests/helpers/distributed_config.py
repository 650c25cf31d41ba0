"""resume_config.py without what differs between one process and two: statistics of the images that
one process has (batch norm) and random numbers of one process (dropout). A third of the images has
no boxes."""

from detectron2.config import LazyCall as L

from tests.helpers.tiny import make_gfl

from .resume_config import data, dataloader, lr_multiplier, optimizer, train  # noqa: F401

model = L(make_gfl)(num_classes=3, test_score_thresh=0.0, statistics_period=1)
dataloader.train.dataset.empty_every = 3
dataloader.train.aspect_ratio_grouping = False  # done in each process: other batches
train.max_iter = 8
train.eval_period = 4
