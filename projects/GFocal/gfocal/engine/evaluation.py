"""Evaluations: of the weights that a config names, and of a model in training."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.evaluation.testing import flatten_results_dict, verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, JSONWriter
from detectron2.utils.file_io import PathManager
from torch import nn

from ..config import Config, augmented, config_settings, without_pretraining
from ..export.optimize import Optimizable, fast_dtype, optimize_for_inference
from ..process.rng import preserved_rng
from ..weights.checkpointers import StrictCheckpointer, check_weights
from ..weights.description import calibration_of, description_of, num_classes_of
from .classes import classes_of, post_processing, warn_if_others
from .resume import has_checkpoint_everywhere

__all__ = [
    "augmented_results",
    "evaluate",
    "evaluation_leaves_no_trace",
    "record_results",
    "verify_expected_results",
]


def evaluate(
    trainer: type[DefaultTrainer], cfg: Config, *, resume: bool, fast: bool, calibrated: bool
) -> dict[str, Any]:
    """Evaluates what a config names, see :meth:`gfocal.engine.base.BaseTrainer.evaluate`.

    Args:
        trainer: its ``build_model`` and ``test`` are called.
        cfg: the config.
        resume: evaluate the last checkpoint in the output folder instead, if there is one.
        fast: optimize the model for inference.
        calibrated: scores and standard deviations as ``gfocal calibrate`` found them.
    """
    output_dir, weights, _ = config_settings(cfg)
    model = trainer.build_model(without_pretraining(cfg))
    checkpointer = StrictCheckpointer(model, output_dir)
    resume = resume and has_checkpoint_everywhere(checkpointer)
    if not resume and not check_weights(weights):
        raise ValueError(
            "no weights to evaluate: set train.init_checkpoint (LazyConfig) or MODEL.WEIGHTS "
            f"(yacs), or resume where {output_dir!r} has a checkpoint"
        )
    if fast and not isinstance(model, Optimizable):
        raise ValueError(
            f"fast is for the detectors of gfocal; the config's model is a {type(model).__name__}"
        )
    state = checkpointer.resume_or_load(weights, resume=resume)
    weights = checkpointer.get_checkpoint_file() if resume else weights
    classes = classes_of(cfg)
    description = description_of(state, weights)
    if calibrated:
        part = post_processing(model, "calibration")
        part.calibrate(calibration_of(description, weights), weights)
    warn_if_others(
        description,
        weights,
        "the test dataset",
        num_classes_of(model),
        classes.names,
    )
    if fast:
        optimize_for_inference(model, dtype=fast_dtype(next(model.parameters()).device))
    results = augmented_results(trainer, cfg, model)
    results = {**(trainer.test(cfg, model) or {}), **results}
    record_results(output_dir, results, iteration=int(state.get("iteration", 0)))
    verify_expected_results(cfg, results)
    return results


def verify_expected_results(cfg: Config, results: dict[str, Any] | None) -> None:
    """Compares the results of the main process with TEST.EXPECTED_RESULTS, as Detectron2 does.

    Args:
        cfg: the config; a LazyConfig has no such key.
        results: {task: {metric: value}}. A task below others, as with several test datasets, is
            "NAME/bbox" in the config.

    Raises:
        SystemExit: they differ; the exit code is 1.
        ValueError: the results do not have such a task.
    """
    if not isinstance(cfg, CfgNode) or not cfg.TEST.EXPECTED_RESULTS or not comm.is_main_process():
        return
    tasks: dict[str, dict[str, Any]] = {}
    for name, value in flatten_results_dict(results or {}).items():
        task, _, metric = name.rpartition("/")
        tasks.setdefault(task, {})[metric] = value
    for task, *_ in cfg.TEST.EXPECTED_RESULTS:
        if task not in tasks:
            raise ValueError(
                f"TEST.EXPECTED_RESULTS has the task {task!r}, and the evaluation gives "
                + (", ".join(tasks) or "none")
            )
    verify_results(cfg, tasks)


def augmented_results(
    trainer: type[DefaultTrainer] | DefaultTrainer, cfg: Config, model: nn.Module
) -> dict[str, Any]:
    """Evaluates a model with the test-time augmentation that a config asks for.

    Call it before the evaluation without augmentation, whose files are to stay.

    Returns:
        the results, each under its name and "_TTA"; {} if the config asks for none.
    """
    detector = augmented(cfg, model)
    if detector is None:
        return {}
    logging.getLogger(__name__).info("Evaluation with test-time augmentation (bbox_TTA):")
    results = trainer.test(cfg, detector) or {}
    return {f"{name}_TTA": result for name, result in results.items()}


def record_results(output_dir: str, results: dict[str, Any], iteration: int = 0) -> None:
    """Adds results to metrics.json, on the main process."""
    if not (results and comm.is_main_process()):
        return
    PathManager.mkdirs(output_dir)
    with EventStorage(iteration) as storage:
        storage.put_scalars(**flatten_results_dict(results), smoothing_hint=False)
        writer = JSONWriter(os.path.join(output_dir, "metrics.json"))
        writer.write()
        writer.close()


@contextlib.contextmanager
def evaluation_leaves_no_trace(model: nn.Module) -> Iterator[None]:
    """Code inside it changes neither the random states nor a module's mode. Inside it, all
    processes have the buffers of the main process, which saves them. (Otherwise each process has
    its own statistics of batch norm.)"""
    modes = [(module, module.training) for module in model.modules()]
    own = []
    if comm.get_world_size() > 1:
        own = [(buffer, buffer.clone()) for buffer in model.buffers()]
        for buffer, _ in own:
            torch.distributed.broadcast(buffer, 0)
    with preserved_rng():
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for buffer, value in own:
                buffer.copy_(value)
