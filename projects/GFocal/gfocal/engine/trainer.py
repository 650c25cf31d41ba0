"""The trainer for yacs configs."""

import contextlib
import inspect
import os
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, MetadataCatalog, build_detection_test_loader
from detectron2.data.build import _train_loader_from_config
from detectron2.engine import hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from ..config import Config, check_config, resolve_device, train_options
from ..config.options import check_best_metric
from ..data.coco import check_dataset_files, detection_dataset_dicts
from ..data.coco_evaluation import dataset_evaluator
from ..data.loader import build_train_loader
from ..data.mapper import DetectionMapper
from ..data.probes import probe_train_loader
from ..process.builders import built_here
from .base import BaseTrainer
from .best import check_dataset_of_metric, check_metric_is_given
from .lazy_trainer import LazyTrainer
from .reliability import observed, with_reliability
from .saving import TrainingCheckpointer
from .seed import set_seed
from .steps import is_cpu, step_class
from .validation import ValidationBatches


class Trainer(BaseTrainer):
    """DefaultTrainer with the COCO evaluator, and with SOLVER.AMP.ENABLED on a CPU too."""

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: Detectron2's yacs config with :func:`gfocal.config.add_gfocal_config`'s keys.

        Raises:
            TypeError: cfg is not a yacs config.
            ValueError: the device is missing, or :func:`check_config` finds a mistake.
        """
        if not isinstance(cfg, CfgNode):
            raise TypeError(
                f"Trainer takes a yacs config (CfgNode), got {type(cfg).__name__}; for a "
                "LazyConfig there is gfocal.engine.LazyTrainer"
            )
        if comm.get_world_size() > 1 and torch.device(cfg.MODEL.DEVICE).type == "cpu":
            raise ValueError(
                "Detectron2's DefaultTrainer cannot train with several processes on CPUs; a "
                "LazyConfig can"
            )
        check_config(cfg)
        check_best_metric(train_options(cfg))
        set_seed(cfg.SEED, cfg.DETERMINISTIC)
        super().__init__(cfg)
        probe_train_loader(self.data_loader, self.checkpointer.model)
        # Another `test` may need none of these.
        if inspect.getattr_static(self, "test") is inspect.getattr_static(Trainer, "test"):
            check_dataset_of_metric(cfg.TEST.BEST_METRIC, cfg.DATASETS.TEST)
            for name in cfg.DATASETS.TEST:  # now, as the evaluation may be hours away
                self.build_test_loader(cfg, name)
                count = len(cfg.DATASETS.TEST)
                evaluator = with_reliability(cfg, self.build_evaluator(cfg, name), name, count)
                check_metric_is_given(cfg.TEST.BEST_METRIC, evaluator, name, count)
                for task, metric, *_ in cfg.TEST.EXPECTED_RESULTS:
                    if not task.endswith("_TTA"):
                        key = "TEST.EXPECTED_RESULTS"
                        check_metric_is_given(f"{task}/{metric}", evaluator, name, count, key)
        accumulate = train_options(cfg).accumulate
        # Detectron2 has made a step of its own, and its AMPTrainer needs CUDA.
        if accumulate > 1 or (cfg.SOLVER.AMP.ENABLED and is_cpu(self.model)):
            step = step_class(self.model, amp=cfg.SOLVER.AMP.ENABLED, accumulate=accumulate)
            self._trainer = step(self.model, self.data_loader, self.optimizer)

    def _first_hooks(self) -> list[hooks.HookBase | None]:
        ret = super()._first_hooks()
        test = self.cfg.TEST
        if test.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            cfg = self.cfg.clone()
            cfg.defrost()
            cfg.DATALOADER.NUM_WORKERS = 0
            loader = self.build_train_loader(cfg)
            iterations = test.PRECISE_BN.NUM_ITER
            ret.append(hooks.PreciseBN(test.EVAL_PERIOD, self.model, loader, iterations))
        return ret

    def build_hooks(self) -> list[hooks.HookBase | None]:
        self.checkpointer = TrainingCheckpointer(
            self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        return super().build_hooks()

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Builds Detectron2's model, after a check that the device is there. With
        MODEL.CHANNELS_LAST its convolutions have that memory format."""
        resolve_device(cfg.MODEL.DEVICE)
        with built_here():
            model = super().build_model(cfg)
        if cfg.MODEL.get("CHANNELS_LAST", False):
            model = model.to(memory_format=torch.channels_last)
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable:
        """Builds :func:`gfocal.data.build_train_loader` from the arguments of Detectron2's loader,
        after a check of the dataset's files and classes."""
        if not cfg.DATASETS.TRAIN:
            raise ValueError("DATASETS.TRAIN is (); expected at least one dataset")
        _check_datasets(cfg, cfg.DATASETS.TRAIN)
        mapper, dataset = _mapper(cfg, is_train=True), None
        if isinstance(mapper, DetectionMapper):  # another may need proposals
            dataset = _dicts(
                cfg,
                cfg.DATASETS.TRAIN,
                cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
                mapper.crowds,
                mapper.use_instance_mask,
            )
        arguments = _train_loader_from_config(cfg, mapper=mapper, dataset=dataset)
        names = inspect.signature(build_train_loader).parameters
        return build_train_loader(**{k: v for k, v in arguments.items() if k in names})

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable:
        """Builds Detectron2's loader, after a check of the dataset's files and classes."""
        _check_datasets(cfg, [dataset_name])
        mapper = _mapper(cfg, is_train=False)
        if not isinstance(mapper, DetectionMapper):
            return build_detection_test_loader(cfg, dataset_name, mapper=mapper)
        return build_detection_test_loader(
            _dicts(cfg, dataset_name), mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS
        )

    @classmethod
    def build_validation_batches(cls, cfg: CfgNode) -> list[ValidationBatches]:
        return [
            ValidationBatches(
                _dicts(cfg, name, masks=cfg.MODEL.MASK_ON),
                _mapper(cfg, is_train=False),
                cfg.DATALOADER.NUM_WORKERS,
            )
            for name in cfg.DATASETS.TEST
        ]

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """Returns the evaluator of the dataset's type. It writes to OUTPUT_DIR/inference, and with
        several test datasets to a folder of the dataset's name there."""
        folder = os.path.join(cfg.OUTPUT_DIR, "inference")
        if len(cfg.DATASETS.TEST) > 1:
            folder = os.path.join(folder, dataset_name)
        with_masks = cfg.MODEL.MASK_ON and cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
        kind = MetadataCatalog.get(dataset_name).get("evaluator_type", "coco")
        return dataset_evaluator(
            dataset_name,
            output_dir=folder,
            max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
            tasks=["bbox", "segm"] if with_masks and kind == "coco" else None,
        )

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """DefaultTrainer's, with what TEST.RELIABILITY adds to the evaluators.

        Args:
            cfg: the config.
            model: the model.
            evaluators: one for each dataset of DATASETS.TEST; by default :meth:`build_evaluator`
                builds them.

        Returns:
            {task: {metric: value}}; for several datasets such a dict under each name.
        """
        with contextlib.ExitStack() as stack:
            if evaluators is None and train_options(cfg).reliability:
                names = cfg.DATASETS.TEST
                evaluators = [
                    with_reliability(cfg, cls.build_evaluator(cfg, x), x, len(names)) for x in names
                ]
            for evaluator in evaluators if isinstance(evaluators, Sequence) else [evaluators]:
                stack.enter_context(observed(evaluator, model))
            return super().test(cfg, model, evaluators)


def _mapper(cfg: CfgNode, *, is_train: bool) -> DatasetMapper:
    is_special = cfg.MODEL.KEYPOINT_ON or cfg.MODEL.LOAD_PROPOSALS
    return (DatasetMapper if is_special else DetectionMapper)(cfg, is_train)


def _dicts(
    cfg: CfgNode,
    names: str | Sequence[str],
    filter_empty: bool = False,
    crowds: str = "drop",
    masks: bool = False,
) -> list[dict[str, Any]]:
    check = cfg.DATASETS.get("CHECK", True)
    return detection_dataset_dicts(names, filter_empty, crowds, check, masks)


def _check_datasets(cfg: CfgNode, names: Sequence[str]) -> None:
    check_dataset_files(names)
    architecture = cfg.MODEL.META_ARCHITECTURE
    # Detectron2's architectures have their keys in nodes of other names, and may have more classes.
    num_classes = cfg.MODEL.get(architecture, {}).get("NUM_CLASSES")
    if num_classes is None:
        return
    for name in names:
        classes = MetadataCatalog.get(name).get("thing_classes", None)
        if classes is not None and len(classes) != num_classes:
            raise ValueError(
                f"MODEL.{architecture}.NUM_CLASSES is {num_classes}, but dataset {name!r} has "
                f"{len(classes)} classes"
            )


def trainer_class(cfg: Config) -> type[BaseTrainer]:
    """Returns the trainer for that kind of config: Trainer for yacs, LazyTrainer otherwise."""
    return Trainer if isinstance(cfg, CfgNode) else LazyTrainer
