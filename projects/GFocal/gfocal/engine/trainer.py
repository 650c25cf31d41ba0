"""The trainer for yacs configs."""

import os
from collections.abc import Iterable, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from torch import nn

from ..data.coco import check_dataset_files, coco_evaluator
from .base import AutocastTrainer, BaseTrainer, is_cpu
from .config_io import Config, resolve_device
from .lazy_trainer import LazyTrainer


class Trainer(BaseTrainer):
    """DefaultTrainer with the COCO evaluator, and with SOLVER.AMP.ENABLED on a CPU too."""

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: Detectron2's yacs config with :func:`gfocal.config.add_gfocal_config`'s keys.

        Raises:
            TypeError: cfg is not a yacs config.
            ValueError: the device is missing.
        """
        if not isinstance(cfg, CfgNode):
            raise TypeError(
                f"Trainer takes a yacs config (CfgNode), got {type(cfg).__name__}; for a "
                "LazyConfig there is gfocal.engine.LazyTrainer"
            )
        super().__init__(cfg)
        if cfg.SOLVER.AMP.ENABLED and is_cpu(self.model):  # AMPTrainer needs CUDA
            self._trainer = AutocastTrainer(self.model, self.data_loader, self.optimizer)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Builds Detectron2's model, after a look whether the device is there; with
        MODEL.CHANNELS_LAST its convolutions in that memory format."""
        resolve_device(cfg.MODEL.DEVICE)
        model = super().build_model(cfg)
        if cfg.MODEL.get("CHANNELS_LAST", False):
            model = model.to(memory_format=torch.channels_last)
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable:
        """Builds Detectron2's loader, after a check of the dataset's files and classes."""
        _check_datasets(cfg, cfg.DATASETS.TRAIN)
        return super().build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable:
        """Builds Detectron2's loader, after a check of the dataset's files and classes."""
        _check_datasets(cfg, [dataset_name])
        return super().build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """Returns a COCOEvaluator that writes to OUTPUT_DIR/inference."""
        return coco_evaluator(dataset_name, output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"))


def _check_datasets(cfg: CfgNode, names: Sequence[str]) -> None:
    check_dataset_files(names)
    if cfg.MODEL.META_ARCHITECTURE != "GFL":  # other architectures have keys of their own
        return
    num_classes = cfg.MODEL.GFL.NUM_CLASSES
    for name in names:
        classes = MetadataCatalog.get(name).get("thing_classes", None)
        if classes is not None and len(classes) != num_classes:
            raise ValueError(
                f"MODEL.GFL.NUM_CLASSES is {num_classes}, but dataset {name!r} has "
                f"{len(classes)} classes"
            )


def trainer_class(cfg: Config) -> type[BaseTrainer]:
    """Returns the trainer for that kind of config: Trainer for yacs, LazyTrainer otherwise."""
    return Trainer if isinstance(cfg, CfgNode) else LazyTrainer
