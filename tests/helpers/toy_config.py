"""A LazyConfig with the schema of Detectron2's tools/lazyconfig_train_net.py."""

import copy

import detectron2.data.transforms as T
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import MultiStepParamScheduler

from gfocal.data import build_train_loader
from tests.helpers.toy import ToyDetector, ToyEvaluator, toy_dataset

data = dict(folder="", num_classes=2)
model = L(ToyDetector)(num_classes="${data.num_classes}")
optimizer = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[4, 6]),
    warmup_factor=0.5,
    warmup_length=0.25,
    warmup_method="linear",
)
dataloader = dict(
    train=L(build_train_loader)(
        dataset=L(toy_dataset)(folder="${data.folder}", names="toy_train", num_images=1),
        mapper=L(DatasetMapper)(
            is_train=True,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=48, max_size=64)],
            image_format="RGB",
        ),
        total_batch_size=2,
        num_workers=0,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(toy_dataset)(folder="${data.folder}", names="toy_val"),
        mapper=L(DatasetMapper)(
            is_train=False,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=24, max_size=64)],
            image_format="${...train.mapper.image_format}",
        ),
        num_workers=0,
    ),
    evaluator=L(ToyEvaluator)(dataset_name="${..test.dataset.names}"),
)
train = dict(
    output_dir="",
    init_checkpoint="",
    max_iter=6,
    amp=dict(enabled=False),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=3, max_to_keep=10),
    eval_period=0,
    log_period=2,
    device="cpu",
    seed=1,
)


def parts():
    """Copies of data, dataloader and train: what a config changes of them does not stay."""
    return copy.deepcopy((data, dataloader, train))
