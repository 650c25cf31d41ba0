"""A DefaultTrainer whose cfg is a LazyConfig.

It is used as DefaultTrainer is: subclass it, override one builder, add hooks. The config has the
keys that Detectron2's tools/lazyconfig_train_net.py reads: `model`, `optimizer`, `lr_multiplier`,
`dataloader.{train,test,evaluator}` and `train`.
"""

import copy
import inspect
import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import TrainerBase
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from ..config import TrainOptions, check_train, config_settings, resolve_device, train_options
from ..config.levels import check_channels, check_levels
from ..config.options import check_best_metric
from ..data.coco_evaluation import follow_limit
from ..data.probes import check_packages, probe_train_loader
from .base import BaseTrainer
from .best import check_dataset_of_metric, check_metric_is_given
from .reliability import observed, with_reliability
from .saving import TrainingCheckpointer
from .seed import set_seed
from .steps import is_cpu, step_class
from .validation import ValidationBatches

_TEST_NAMES = "dataloader.test.dataset.names"
_NO_TEST = f"the config names no test dataset ({_TEST_NAMES}; in custom_coco.py data.val_json)"


class LazyTrainer(BaseTrainer):
    """Trains and evaluates the model of a LazyConfig.

    The options below `train` are those of :class:`gfocal.config.TrainOptions`.

    Examples:
        ```python
        cfg = load_config("configs/quick_start/shapes_gflv2.py", ["train.max_iter=100"])
        trainer = LazyTrainer(cfg)
        trainer.resume_or_load(resume=False)
        results = trainer.train()
        ```
    """

    def __init__(self, cfg: DictConfig):
        """
        Args:
            cfg: a LazyConfig. Interpolations such as ``"${data.val_json}"`` see the whole of it.

        Raises:
            TypeError: cfg is not a LazyConfig.
            ValueError: a key is missing or misspelt, levels or channels of the model do not fit
                together, the device is not there, or a package that an augmentation needs.
        """
        TrainerBase.__init__(self)  # DefaultTrainer's own needs a yacs config
        if not isinstance(cfg, DictConfig):
            raise TypeError(
                f"LazyTrainer takes a LazyConfig (omegaconf DictConfig), got {type(cfg).__name__}; "
                "for a yacs config there is gfocal.engine.Trainer"
            )
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        check_train(cfg)
        check_levels(cfg)
        check_channels(cfg)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        max_iter = _get(cfg, "train.max_iter")
        options = train_options(cfg)
        check_best_metric(options)
        _check_without_test(cfg, options)
        set_seed(options.seed, options.deterministic)

        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        probe_train_loader(data_loader, model)
        # Another `test` may need none of these.
        if inspect.getattr_static(self, "test") is inspect.getattr_static(LazyTrainer, "test"):
            names = _test_names(cfg)
            check_dataset_of_metric(options.best_metric, [str(name) for name in names])
            for name in names:  # now, as the evaluation may be hours away
                evaluator = self.build_evaluator(cfg, name)
                if evaluator is not None:
                    check_packages(self.build_test_loader(cfg, name))
                    evaluator = with_reliability(cfg, evaluator, name, len(names))
                check_metric_is_given(options.best_metric, evaluator, name, len(names))
        step = step_class(model, amp=options.amp.enabled, accumulate=options.accumulate)
        ddp = {"broadcast_buffers": False, **({"device_ids": None} if is_cpu(model) else {})}
        ddp.update(options.ddp)
        model = create_ddp_model(model, **ddp)
        self._trainer = step(model, data_loader, optimizer)

        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = TrainingCheckpointer(
            model, config_settings(cfg).output_dir, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = max_iter
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_model(cls, cfg: DictConfig) -> nn.Module:
        """Builds `model` on `train.device`, its convolutions in `train.channels_last` if that is
        set."""
        device = resolve_device(config_settings(cfg).device)
        model = instantiate(_get(cfg, "model")).to(device)
        if OmegaConf.select(cfg, "train.channels_last", default=TrainOptions.channels_last):
            model = model.to(memory_format=torch.channels_last)
        logging.getLogger(__name__).info(f"Model:\n{model}")
        return model

    @classmethod
    def build_optimizer(cls, cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
        """Builds `optimizer` with `optimizer.params.model` set to the model."""
        params = _get(cfg, "optimizer.params")
        params.model = model
        try:
            return instantiate(cfg.optimizer)
        finally:
            del params["model"]  # the config stays a description, small enough to copy and save

    @classmethod
    def build_lr_scheduler(cls, cfg: DictConfig, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        """Builds `lr_multiplier`, a fvcore ParamScheduler, over `train.max_iter` iterations."""
        multiplier = instantiate(_get(cfg, "lr_multiplier"))
        return LRMultiplier(optimizer, multiplier, _get(cfg, "train.max_iter"))

    @classmethod
    def build_train_loader(cls, cfg: DictConfig) -> Iterable:
        """Builds `dataloader.train`."""
        return instantiate(_get(cfg, "dataloader.train"))

    @classmethod
    def build_test_loader(cls, cfg: DictConfig, dataset_name: str | None = None) -> Iterable:
        """Builds `dataloader.test`.

        Args:
            cfg: the config.
            dataset_name: one of `dataloader.test.dataset.names`, if that is a list.
        """
        return instantiate(_get(_with_test_dataset(cfg, dataset_name), "dataloader.test"))

    @classmethod
    def build_evaluator(
        cls, cfg: DictConfig, dataset_name: str | None = None
    ) -> DatasetEvaluator | None:
        """Builds `dataloader.evaluator`.

        Args:
            cfg: the config.
            dataset_name: as in :meth:`build_test_loader`. An evaluator reads it by
                ``dataset_name="${..test.dataset.names}"``.

        Returns:
            the evaluator; None (no evaluation) if the config has none. For one of several datasets
            it writes to a folder of that name in its output folder.
        """
        several = dataset_name is not None and len(_test_names(cfg)) > 1
        cfg = _with_test_dataset(cfg, dataset_name)
        key = "dataloader.evaluator.output_dir"
        if several and OmegaConf.select(cfg, key, default=None):
            OmegaConf.update(cfg, key, os.path.join(OmegaConf.select(cfg, key), str(dataset_name)))
        return instantiate(OmegaConf.select(cfg, "dataloader.evaluator", default=None))

    @classmethod
    def build_validation_batches(cls, cfg: DictConfig) -> list[ValidationBatches]:
        ret = []
        for name in _test_names(cfg):
            test = _get(_with_test_dataset(cfg, name), "dataloader.test")
            ret.append(
                ValidationBatches(
                    instantiate(test.dataset), instantiate(test.mapper), test.get("num_workers", 0)
                )
            )
        return ret

    @classmethod
    def test(
        cls,
        cfg: DictConfig,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluates a model, with its weights loaded, on each dataset of `dataloader.test`.

        Args:
            cfg: the config.
            model: the model.
            evaluators: one for each dataset; by default :meth:`build_evaluator` builds them, and
                `train.reliability` adds to them.

        Returns:
            {task: {metric: value}}; for several datasets such a dict under each name.
        """
        logger = logging.getLogger(__name__)
        names = _test_names(cfg)
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if evaluators is not None and len(evaluators) != len(names):
            raise ValueError(f"got {len(evaluators)} evaluators for {len(names)} test datasets")

        if not names:
            return {}
        results: OrderedDict[Any, dict[str, Any]] = OrderedDict()  # by name, which may be None
        for index, name in enumerate(names):
            evaluator = evaluators[index] if evaluators else cls.build_evaluator(cfg, name)
            if evaluator is None:
                logger.warning("No evaluation: the config has no dataloader.evaluator")
                results[name] = {}
                continue
            if not evaluators:
                evaluator = with_reliability(cfg, evaluator, name, len(names))
            follow_limit(evaluator, model)
            loader = cls.build_test_loader(cfg, name)
            with observed(evaluator, model):
                results[name] = inference_on_dataset(model, loader, evaluator)
            if comm.is_main_process():
                logger.info(f"Evaluation results for {name} in csv format:")
                print_csv_format(results[name])
        return results if len(names) > 1 else results[names[0]]

    @classmethod
    def evaluate(
        cls, cfg: DictConfig, resume: bool = False, fast: bool = False, calibrated: bool = False
    ) -> dict[str, Any]:
        if not _test_names(cfg):
            raise ValueError(f"nothing to evaluate: {_NO_TEST}")
        return super().evaluate(cfg, resume, fast, calibrated)

    @staticmethod
    def auto_scale_workers(cfg: DictConfig, num_workers: int) -> DictConfig:
        """Adapts a config to another number of GPUs, as DefaultTrainer's does.

        `train.reference_world_size` is the number of GPUs that the config was written for. If it is
        set and differs from `num_workers`, batch size and learning rate change in proportion, and
        the number of iterations and the periods in inverse proportion. The steps and the warm-up of
        a fvcore scheduler are fractions of the whole, so they follow by themselves.

        Returns:
            cfg itself, or a changed copy of it.

        Raises:
            ValueError: a key that has to be scaled is missing, or the batch size is not a multiple
                of the reference world size.
        """
        reference = OmegaConf.select(cfg, "train.reference_world_size", default=0)
        if not reference or reference == num_workers:
            return cfg
        batch_size = _get(cfg, "dataloader.train.total_batch_size")
        if batch_size % reference:
            raise ValueError(
                f"dataloader.train.total_batch_size={batch_size} is no multiple of "
                f"train.reference_world_size={reference}"
            )
        cfg = copy.deepcopy(cfg)
        scale = num_workers / reference
        cfg.train.reference_world_size = num_workers
        cfg.dataloader.train.total_batch_size = batch_size // reference * num_workers
        cfg.optimizer.lr = _get(cfg, "optimizer.lr") * scale
        keys = ("train.max_iter", "train.eval_period", "train.checkpointer.period")
        # Read all before the first is written: a period may be "${train.max_iter}".
        for key, value in [(key, OmegaConf.select(cfg, key, default=0)) for key in keys]:
            if value:
                OmegaConf.update(cfg, key, max(1, round(value / scale)))
        logging.getLogger(__name__).info(
            f"Scaled the config from {reference} to {num_workers} workers: "
            f"batch size {cfg.dataloader.train.total_batch_size}, learning rate "
            f"{cfg.optimizer.lr}, {cfg.train.max_iter} iterations"
        )
        return cfg


def _get(cfg: DictConfig, key: str) -> Any:
    """Returns a key's value, still attached to its config, so that interpolations work."""
    value = OmegaConf.select(cfg, key, default=None)
    if value is None:
        raise ValueError(f"the config has no {key!r}; LazyTrainer needs it (or override its use)")
    return value


def _test_names(cfg: DictConfig) -> list[str | None]:
    """Names of the test datasets; [None] if the config does not name any."""
    # The node may be a LazyCall that registers a dataset and returns its name.
    names = instantiate(OmegaConf.select(cfg, _TEST_NAMES, default=None))
    return list(names) if isinstance(names, (list, tuple, ListConfig)) else [names]


def _check_without_test(cfg: DictConfig, options: TrainOptions) -> None:
    """Warns of a training without an evaluation; refuses options that need one."""
    if _test_names(cfg):
        return
    for key in ("best_metric", "validation_loss", "early_stop_patience"):
        if value := getattr(options, key):
            raise ValueError(f"train.{key} is {value!r}, which needs an evaluation, but {_NO_TEST}")
    logging.getLogger(__name__).warning(f"No evaluation: {_NO_TEST}")


def _with_test_dataset(cfg: DictConfig, dataset_name: str | None) -> DictConfig:
    """Returns a config with the named test dataset only: cfg itself, if it has no other."""
    if dataset_name is None or _test_names(cfg) == [dataset_name]:
        return cfg
    cfg = copy.deepcopy(cfg)
    OmegaConf.update(cfg, _TEST_NAMES, dataset_name, merge=False)
    return cfg
