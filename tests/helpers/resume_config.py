"""A LazyConfig with everything in it that a resume could get wrong: momentum, a schedule, dropout,
batch norm, random augmentations in worker processes, upright and wide images, averaged weights, the
best checkpoint, and evaluations that draw random numbers, seldomer than checkpoints are written."""

import os

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from detectron2.structures import BoxMode
from fvcore.common.param_scheduler import MultiStepParamScheduler
from PIL import Image
from torch import nn

from gfocal.data import build_train_loader
from gfocal.solver import SGD
from tests.helpers.detectors import DETECTORS
from tests.helpers.tiny import TinyBackbone, make_gfl
from tests.helpers.tiny_distilled import make_distilled


class NoisyBackbone(TinyBackbone):
    """With batch norm, whose statistics are a state, and dropout, which draws random numbers."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x):
        return super().forward(self.dropout(self.norm(x)))


def noisy_gfl(num_classes):
    return make_gfl(num_classes, backbone=NoisyBackbone(), test_score_thresh=0.0)


def noisy_student(num_classes, teacher):
    backbone = NoisyBackbone()
    return make_distilled(num_classes, backbone=backbone, teacher=teacher, test_score_thresh=0.0)


def detector(name, num_classes):
    """A tiny one of each; what its own weights and random numbers leave in a checkpoint."""
    return DETECTORS[name](num_classes, test_score_thresh=0.0)


def images(folder: str, count: int, empty_every: int = 0) -> list[dict]:
    """Images with one box each, or none every so many, written to a folder on first use."""
    os.makedirs(folder, exist_ok=True)
    dicts = []
    for index in range(count):
        generator = np.random.default_rng(index)
        height, width = generator.permutation([96, 128]).tolist()
        x0, y0 = generator.integers(0, 36, 2).tolist()
        path = os.path.join(folder, f"{count}_{index}.png")
        if not os.path.exists(path):
            image = generator.integers(0, 90, (height, width, 3), dtype=np.uint8)
            image[y0 : y0 + 64, x0 : x0 + 56, index % 3] = 230
            Image.fromarray(image).save(path)
        is_empty = empty_every and index % empty_every == 0
        box = {"bbox": [x0, y0, x0 + 56, y0 + 64], "bbox_mode": BoxMode.XYXY_ABS}
        dicts.append(
            {
                "file_name": path,
                "image_id": index,
                "height": height,
                "width": width,
                "annotations": []
                if is_empty
                else [{**box, "category_id": index % 3, "iscrowd": 0}],
            }
        )
    return dicts


class MeanScore(DatasetEvaluator):
    """A number that depends on all weights; disturbs the generators, as an evaluation may."""

    def reset(self):
        self.scores = []

    def process(self, inputs, outputs):
        np.random.seed(len(self.scores))
        torch.rand(3)
        self.scores += [float(x["instances"].scores.mean()) for x in outputs]

    def evaluate(self):
        count = len(self.scores)  # none in a process that has no image
        return {"bbox": {"score": 100 * sum(self.scores) / count}} if count else {}


data = dict(folder="")
model = L(noisy_gfl)(num_classes=3)
optimizer = L(SGD)(
    params=L(get_default_optimizer_params)(),
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    max_grad_norm=5.0,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[40, 60]),
    warmup_factor=0.01,
    warmup_length=0.5,
)
dataloader = dict(
    train=L(build_train_loader)(
        dataset=L(images)(folder="${data.folder}", count=11),
        mapper=L(DatasetMapper)(
            is_train=True,
            augmentations=[
                L(T.ResizeShortestEdge)(short_edge_length=[80, 96, 112], sample_style="choice"),
                L(T.RandomFlip)(),
                L(T.RandomBrightness)(intensity_min=0.5, intensity_max=1.5),
            ],
            image_format="BGR",
        ),
        total_batch_size=2,
        num_workers=2,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(images)(folder="${data.folder}", count=3),
        mapper=L(DatasetMapper)(is_train=False, augmentations=[], image_format="BGR"),
        num_workers=0,
    ),
    evaluator=L(MeanScore)(),
)
train = dict(
    output_dir="",
    init_checkpoint="",
    max_iter=60,
    device="cpu",
    seed=3,
    deterministic=True,
    amp=dict(enabled=False),
    checkpointer=dict(period=7, max_to_keep=2),
    eval_period=14,
    log_period=1,
    ema_decay=0.9,
    validation_loss=True,
    best_metric="ema/bbox/score",
    best_mode="max",
    early_stop_patience=0,
)
