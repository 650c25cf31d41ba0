"""The common base of the LazyConfig trainer and the yacs trainer."""

import dataclasses
import functools
import itertools
import logging
import os
import weakref
from collections.abc import Callable
from typing import Any

from detectron2.engine import DefaultTrainer, TrainerBase, default_writers, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from .._moved import moved_names
from ..config import Config, TrainOptions, augmented, config_settings, train_options
from ..weights.checkpointers import GFLCheckpointer, check_weights
from ..weights.description import Description, describe, metrics_of
from .best import BestMetric
from .classes import classes_of
from .ema import EMAHook
from .evaluation import (
    augmented_results,
    evaluate,
    evaluation_leaves_no_trace,
    verify_expected_results,
)
from .hooks import EvaluationHook, MetricsHook, StopTraining, WriterHook
from .records import MetricsWriter
from .resume import (
    ANEW,
    RandomStates,
    has_checkpoint_everywhere,
    load_training_state,
    training_state,
)
from .saving import CheckpointHook, TrainingCheckpointer, plain
from .validation import ValidationBatches, validation_losses

__getattr__ = moved_names(__name__)


class BaseTrainer(DefaultTrainer):
    """A DefaultTrainer that resumes exactly, and whose `train` returns the results.

    A checkpoint holds the model, the optimizer, the scheduler, the gradient scaler, the averaged
    weights, the place in the training data and the random states of all processes. The place needs
    a loader of :func:`gfocal.data.build_train_loader`.
    """

    # Loads a training's initial weights; not those of a resume.
    initial_checkpointer: type[Checkpointer] = GFLCheckpointer

    iter: int  # of Detectron2's TrainerBase, as the next two
    start_iter: int
    max_iter: int
    _ema: EMAHook | None = None
    _best: BestMetric | None = None
    _resumed = False
    _last_evaluation: tuple[int, dict[str, Any]] = (-1, {})  # iteration and results

    @functools.cached_property
    def _random_states(self) -> RandomStates:
        return RandomStates()

    def state_dict(self) -> dict[str, Any]:
        state = training_state(self._trainer, self._random_states)
        return {**TrainerBase.state_dict(self), **state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Raises:
            ValueError: the checkpoint is not from this trainer.
        """
        load_training_state(self._trainer, self._random_states, state_dict)
        TrainerBase.load_state_dict(self, state_dict)
        self._resumed = True

    def resume_or_load(self, resume: bool = True) -> None:
        """Continues from the last checkpoint in the output folder, or loads the initial weights.

        Args:
            resume: True, with a checkpoint in the output folder: load all that it holds, and
                continue after it. Otherwise load only the weights that the config names, if any,
                and start at iteration 0. ``initial_checkpointer`` decides which files these may be:
                of a whole detector, or of a backbone.

        Raises:
            FileNotFoundError: the weight file does not exist.
            ValueError: the file is of another backbone; or the checkpoint is of another model or
                optimizer, holds weights only, or is beyond the last iteration; or the machines of a
                training see different checkpoints.
        """
        checkpointer = self.checkpointer
        if resume and has_checkpoint_everywhere(checkpointer):
            checkpointer.resume_or_load("", resume=True)
            if not self._resumed:
                raise ValueError(
                    f"{checkpointer.get_checkpoint_file()} has no state of gfocal's trainer: it "
                    f"holds weights alone, or the loop of another tool wrote it. {ANEW}"
                )
            self.start_iter = self.iter + 1  # the checkpoint holds the iteration that it finished
            if self.start_iter > self.max_iter:
                raise ValueError(
                    f"the checkpoint has done {self.start_iter} iterations, but the config asks "
                    f"for {self.max_iter} (train.max_iter, SOLVER.MAX_ITER)"
                )
        else:
            if resume:
                checkpointer.warn_of_checkpoints_not_resumed()
            weights = check_weights(config_settings(self.cfg).weights)
            self.initial_checkpointer(self.checkpointer.model).load(weights, checkpointables=[])

    def build_hooks(self) -> list[hooks.HookBase | None]:
        """Returns the default hooks: timing, learning rate, averaged weights, checkpoints,
        evaluation, writers. README.md beside this file explains the order."""
        options = train_options(self.cfg)
        self.checkpointer.describe = _weak(self._describe)
        self._build_ema_and_best(options)
        prepare = getattr(self.checkpointer.model, "prepare_training", None)
        if prepare is not None:  # a model that learns from a teacher
            prepare(self._ema, classes_of(self.cfg).names)
        augmented(self.cfg, self.checkpointer.model)  # refuses now what the last evaluation would
        self._checkpoint_hook = CheckpointHook(
            self.checkpointer, self._random_states, **vars(options.checkpointer)
        )
        evaluation = EvaluationHook(options.eval_period, self._evaluate, self._best)
        ret = [
            *self._first_hooks(),
            self._ema,
            # Before the evaluation: if that fails, the checkpoint is there to debug it.
            self._checkpoint_hook,
            MetricsHook(),
            self._best,
            evaluation,
        ]
        if comm.is_main_process():  # last, so that the evaluation's metrics are written too
            ret.append(WriterHook(self.build_writers(), options.log_period, evaluation))
        return ret

    def _build_ema_and_best(self, options: TrainOptions) -> None:
        model = self.checkpointer.model  # without DistributedDataParallel
        if options.ema_decay:
            self._ema = EMAHook(model, options.ema_decay)
        if options.best_metric or options.early_stop_patience:
            if self._ema is not None and options.best_metric.startswith("ema/"):
                model = self._ema.model
            self._best = BestMetric(
                options.best_metric,
                options.best_mode,
                options.early_stop_patience,
                functools.partial(_write_weights, self.checkpointer, model),
            )

    def _first_hooks(self) -> list[hooks.HookBase | None]:
        return [hooks.IterationTimer(), hooks.LRScheduler()]

    def _evaluate(self) -> dict[str, Any]:
        results = {}
        if self._ema is not None:
            with evaluation_leaves_no_trace(self._ema.model):
                results["ema"] = self.test(self.cfg, self._ema.model) or {}
        model = self.checkpointer.model  # wrapped for DDP, a process could wait for others
        with evaluation_leaves_no_trace(model):
            if self.iter + 1 >= self.max_iter:
                results |= augmented_results(self, self.cfg, model)
            results = {**(self.test(self.cfg, model) or {}), **results}
            if train_options(self.cfg).validation_loss:
                batches = itertools.chain.from_iterable(self.build_validation_batches(self.cfg))
                results["validation"] = validation_losses(model, batches)
        self._last_eval_results = results
        self._last_evaluation = (self.iter, results)
        return results

    @functools.cached_property
    def _description(self) -> Description:
        classes = classes_of(self.cfg)
        return describe(
            self.cfg,
            model=self.checkpointer.model,
            class_names=classes.names,
            category_ids=classes.category_ids,
        )

    def _describe(self, iteration: int, averaged: bool) -> dict[str, Any]:
        """What a file says of its weights. The metrics are those of the same weights, or none."""
        evaluated, results = self._last_evaluation
        results = results if evaluated == iteration else {}
        if averaged:
            results = results.get("ema", {})
        results = {name: value for name, value in results.items() if name != "ema"}
        description = dataclasses.replace(
            self._description, iteration=iteration, metrics=metrics_of(results)
        )
        return description.plain()

    @classmethod
    def build_validation_batches(cls, cfg: Config) -> list[ValidationBatches]:
        """Builds the images of each test dataset with their annotations, for the validation loss.

        Args:
            cfg: the config.
        """
        raise NotImplementedError

    def before_train(self) -> None:
        if self.start_iter == 0 and comm.is_main_process():
            self.checkpointer.forget_last_checkpoint()
        self._random_states.restore()  # for the checkpoint, if it stops before the first step
        try:
            super().before_train()
        except StopTraining as stop:
            self.iter = stop.iteration  # the hooks' after_train and the last files belong to it
            raise
        plain(self.state_dict(), "trainer")  # refuses now a state that no checkpoint can hold
        self._random_states.restore()
        self._random_states.forget()

    def after_train(self) -> None:
        # It is max_iter + 1 after the resume of a finished run.
        self.iter = min(self.iter, self.max_iter)
        super().after_train()
        if self.iter >= self.max_iter:
            last = self.max_iter - 1
            if self._last_evaluation[0] == self.max_iter:  # after the last step
                self._last_evaluation = (last, self._last_evaluation[1])
            self._save_ema(last)
            if comm.is_main_process():
                prefix = train_options(self.cfg).checkpointer.file_prefix
                self.checkpointer.describe_again(f"{prefix}_final", last)

    def _save_ema(self, iteration: int) -> None:
        if self._ema is not None and comm.is_main_process():
            extra = {"iteration": iteration}
            _write_weights(self.checkpointer, self._ema.model, "model_final_ema", extra)

    def build_writers(self) -> list[EventWriter]:
        """Returns Detectron2's default writers: the terminal, metrics.json (in which a resume
        repeats no iteration) and TensorBoard."""
        output_dir = config_settings(self.cfg).output_dir
        PathManager.mkdirs(output_dir)
        writers = default_writers(output_dir, self.max_iter)
        ret = []
        for writer in writers:
            if isinstance(writer, JSONWriter):
                writer.close()
                writer = MetricsWriter(os.path.join(output_dir, "metrics.json"))
            ret.append(writer)
        return ret

    def train(self) -> dict[str, Any] | None:
        """Trains and evaluates.

        Returns:
            the last evaluation's results, {task: {metric: value}}. Those of averaged weights are
            under "ema", the losses of `train.validation_loss` under "validation". None without an
            evaluation.

        Raises:
            SystemExit: the results are not those of TEST.EXPECTED_RESULTS.
        """
        try:
            self._run()
        except StopTraining as stop:
            self._end_early(stop)
        results = getattr(self, "_last_eval_results", None)
        verify_expected_results(self.cfg, results)
        return results

    def _end_early(self, stop: StopTraining) -> None:
        logging.getLogger(__name__).info(f"Stopped after iteration {stop.iteration}: {stop.reason}")
        # If the final checkpoint itself was resumed, it is there.
        if not (stop.at_resume and self._checkpoint_hook.final_is_last()):
            self._checkpoint_hook.save_final(stop.iteration)
        self._save_ema(stop.iteration)

    def _run(self) -> None:
        TrainerBase.train(self, self.start_iter, self.max_iter)

    @classmethod
    def evaluate(
        cls, cfg: Config, resume: bool = False, fast: bool = False, calibrated: bool = False
    ) -> dict[str, Any]:
        """Builds the model, loads its weights and evaluates it.

        The metrics are added to metrics.json in the output folder, as in a training.

        Args:
            cfg: the config; it names the weights.
            resume: evaluate the last checkpoint in the output folder instead, if there is one.
            fast: :func:`gfocal.optimize_for_inference`, in half precision where the device has it.
            calibrated: scores and standard deviations as ``gfocal calibrate`` found them for these
                weights.

        Returns:
            {task: {metric: value}}.

        Raises:
            ValueError: no weights to evaluate, weights of another model, or ``fast`` with a model
                that cannot be optimized (:class:`gfocal.export.Optimizable`); or ``calibrated``
                and weights without a calibration.
            TypeError: ``calibrated``, and a model that cannot be.
            FileNotFoundError: the weight file does not exist.
        """
        return evaluate(cls, cfg, resume=resume, fast=fast, calibrated=calibrated)


def _write_weights(
    checkpointer: TrainingCheckpointer, model: nn.Module, name: str, extra: dict[str, Any]
) -> None:
    averaged = model is not checkpointer.model
    checkpointer.write(name, {"model": model.state_dict(), **extra}, averaged=averaged)


def _weak(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that does not keep its object alive."""
    reference = weakref.WeakMethod(method)
    return lambda *args: reference()(*args)  # type: ignore[misc]  # it lives as long as the trainer
