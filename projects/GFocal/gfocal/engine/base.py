"""What the LazyConfig and the yacs trainer share."""

import contextlib
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, TrainerBase, default_writers, hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter
from detectron2.utils.file_io import PathManager
from omegaconf import OmegaConf

from ..checkpoint import GFLCheckpointer
from ..export import fast_dtype, optimize_for_inference
from ..meta_arch import GFL
from ..rng import rng_state, set_rng_state
from .best import BestMetric
from .checkpointing import CheckpointHook, StrictCheckpointer, check_weights, plain
from .config_io import Config, config_settings
from .ema import EMAHook
from .evaluation import evaluation_leaves_no_trace
from .hooks import EvaluationHook, MetricsHook, StopTraining, WriterHook
from .validation import ValidationBatches, validation_losses


class TrainOptions(NamedTuple):
    """What both kinds of config say about a training, named as in a LazyConfig's `train`."""

    seed: int
    deterministic: bool
    checkpointer: dict[str, Any]
    eval_period: int
    log_period: int
    ema_decay: float
    validation_loss: bool
    best_metric: str
    best_mode: str
    early_stop_patience: int


def train_options(cfg: Config) -> TrainOptions:
    """Returns the options of a training that a config names, or their defaults."""
    if isinstance(cfg, CfgNode):
        return TrainOptions(
            seed=cfg.SEED,
            deterministic=cfg.DETERMINISTIC,
            checkpointer={"period": cfg.SOLVER.CHECKPOINT_PERIOD},
            eval_period=cfg.TEST.EVAL_PERIOD,
            log_period=20,
            ema_decay=cfg.SOLVER.EMA_DECAY,
            validation_loss=cfg.TEST.VALIDATION_LOSS,
            best_metric=cfg.TEST.BEST_METRIC,
            best_mode=cfg.TEST.BEST_MODE,
            early_stop_patience=cfg.TEST.EARLY_STOP_PATIENCE,
        )
    defaults = TrainOptions(-1, False, {"period": 5000}, 0, 20, 0.0, False, "", "max", 0)
    given = {key: OmegaConf.select(cfg, f"train.{key}") for key in TrainOptions._fields}
    return defaults._replace(**{key: value for key, value in given.items() if value is not None})


_ANEW = (
    "To start from its weights, name it in train.init_checkpoint (MODEL.WEIGHTS), with another "
    "output folder"
)


class BaseTrainer(DefaultTrainer):
    """A DefaultTrainer that resumes exactly, and whose `train` returns the results.

    A checkpoint holds the model, the optimizer, the scheduler, the gradient scaler, the averaged
    weights, the place in the training data and the random states of all processes. The place needs
    a loader of :func:`gfocal.data.build_train_loader`.
    """

    _rng_states: list[dict[str, Any]] | None = None  # of all processes
    _resumed_rng_state: dict[str, Any] | None = None
    _ema: EMAHook | None = None
    _best: BestMetric | None = None
    _resumed = False

    def state_dict(self) -> dict[str, Any]:
        state = {**TrainerBase.state_dict(self), "_trainer": self._trainer.state_dict()}
        state["optimizer_class"] = _optimizer_class(self._trainer.optimizer)
        state["rng"] = [rng_state()] if comm.get_world_size() == 1 else self._rng_states
        loader = self._trainer.data_loader
        state["data"] = loader.state_dict() if hasattr(loader, "state_dict") else None
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Raises:
            ValueError: the checkpoint is not one of this trainer.
        """
        if not {"_trainer", "optimizer_class"} <= state_dict.keys():
            raise ValueError(
                "the checkpoint to resume from was not written by gfocal's trainer, or by that of "
                f"an earlier version, and cannot be taken up exactly. {_ANEW}"
            )
        optimizer = self._trainer.optimizer
        now, before = _optimizer_class(optimizer), state_dict["optimizer_class"]
        if now != before:
            raise ValueError(
                f"the checkpoint to resume from is of the optimizer {before}, the config's is "
                f"{now}. {_ANEW}"
            )
        settings = _settings(optimizer)
        TrainerBase.load_state_dict(self, state_dict)
        # A gradient scaler is new where the run before had none.
        self._trainer.load_state_dict({**self._trainer.state_dict(), **state_dict["_trainer"]})
        self._resumed = True
        logger = logging.getLogger(__name__)
        resumed = _settings(optimizer)
        for name in sorted(settings.keys() & resumed.keys()):
            pairs = zip(settings[name], resumed[name], strict=True)
            if changed := [(new, old) for new, old in pairs if new != old]:
                new, old = changed[0]
                logger.warning(
                    f"The optimizer's {name} is {new} in the config and {old} in the checkpoint, "
                    f"and the resumed training keeps the latter. {_ANEW}"
                )
        loader, place = self._trainer.data_loader, state_dict.get("data")
        if place is not None and hasattr(loader, "load_state_dict"):
            loader.load_state_dict(place)
        else:
            logger.warning("The place in the training data is not known; its order starts anew")
        states = state_dict.get("rng") or []
        if len(states) == comm.get_world_size():
            self._resumed_rng_state = states[comm.get_rank()]
        else:
            logger.warning(
                f"The checkpoint has random states of {len(states)} processes, this training has "
                f"{comm.get_world_size()}: it goes on, but not exactly as it would have"
            )

    @contextlib.contextmanager
    def gathered_rng_states(self) -> Iterator[None]:
        """Inside, checkpoints have the random states of all processes, which all must go in."""
        self._rng_states = comm.gather(rng_state())
        yield
        self._rng_states = None  # soon they are others

    def resume_or_load(self, resume: bool = True) -> None:
        """Continues from the last checkpoint in the output folder, or loads the initial weights.

        Args:
            resume: with True and a checkpoint in the output folder: load all that it holds and go
                on after it. Otherwise only the weights that the config names, if any, and start at
                iteration 0. They may be those of a whole detector or a backbone's, see
                :class:`gfocal.checkpoint.GFLCheckpointer`.

        Raises:
            FileNotFoundError: the weight file does not exist.
            ValueError: it is a backbone's, and of another one; or the checkpoint is of another
                model or optimizer, holds weights alone, or is beyond the last iteration.
        """
        checkpointer = self.checkpointer
        if resume and checkpointer.has_checkpoint():
            checkpointer.resume_or_load("", resume=True)
            if not self._resumed:
                raise ValueError(
                    f"{checkpointer.get_checkpoint_file()} holds weights alone, of which no "
                    f"training can be resumed. {_ANEW}"
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
            GFLCheckpointer(self.checkpointer.model).load(weights, checkpointables=[])

    def build_hooks(self) -> list[hooks.HookBase | None]:
        """Returns the default hooks: timing, learning rate, averaged weights, checkpoints,
        evaluation, writers."""
        options = train_options(self.cfg)
        model = self.checkpointer.model  # without DistributedDataParallel
        if options.ema_decay:
            self._ema = EMAHook(model, options.ema_decay)
        if options.best_metric or options.early_stop_patience:
            _check_best_metric(options)
            self._best = BestMetric(
                options.best_metric, options.best_mode, options.early_stop_patience, self._save_best
            )
        self._checkpoint_hook = CheckpointHook(self.checkpointer, **options.checkpointer)
        self._evaluation_hook = EvaluationHook(
            options.eval_period, self._evaluate, self._best and self._best.should_stop
        )
        ret = [
            *self._first_hooks(),
            self._ema,
            # Before the evaluation: if that fails, the checkpoint is there to debug it.
            self._checkpoint_hook,
            MetricsHook(),
            self._best,
            self._evaluation_hook,
        ]
        if comm.is_main_process():  # last, so that the evaluation's metrics are written too
            writers = self.build_writers()
            ret.append(WriterHook(writers, options.log_period, self._evaluation_hook))
        return ret

    def _first_hooks(self) -> list[hooks.HookBase | None]:
        return [hooks.IterationTimer(), hooks.LRScheduler()]

    def _evaluate(self) -> dict[str, Any]:
        results = {}
        if self._ema is not None:
            with evaluation_leaves_no_trace(self._ema.model):
                results["ema"] = self.test(self.cfg, self._ema.model) or {}
        model = self.checkpointer.model  # wrapped for DDP, a process could wait for others
        with evaluation_leaves_no_trace(model):
            results = {**(self.test(self.cfg, model) or {}), **results}
            if train_options(self.cfg).validation_loss:
                batches = itertools.chain.from_iterable(self.build_validation_batches(self.cfg))
                results["validation"] = validation_losses(model, batches)
        self._last_eval_results = results
        again = self._evaluation_hook.last == self.iter  # as that of a run that had ended
        if self._best is not None and comm.is_main_process() and not again:
            self._best.update(results, self.iter)
        return results

    @classmethod
    def build_validation_batches(cls, cfg: Config) -> list[ValidationBatches]:
        """Builds the images of each test dataset with their annotations, for the validation loss.

        Args:
            cfg: the config.
        """
        raise NotImplementedError

    def _save_best(self, name: str, extra: dict[str, Any]) -> None:
        averaged = self._best.metric.startswith("ema/")
        model = self._ema.model if averaged else self.checkpointer.model
        self.checkpointer.write(name, {"model": model.state_dict(), **extra})

    def before_train(self) -> None:
        if self.start_iter == 0 and comm.is_main_process():
            self.checkpointer.forget_last_checkpoint()
        resumed = self._resumed_rng_state
        if resumed is not None:  # for the checkpoint of a stop that comes before the first step
            set_rng_state(resumed)
        super().before_train()
        plain(self.state_dict(), "trainer")  # says now what no checkpoint could be resumed with
        if resumed is not None:
            set_rng_state(resumed)
            self._resumed_rng_state = None

    def after_train(self) -> None:
        # One more than that when a finished run was resumed.
        self.iter = min(self.iter, self.max_iter)
        super().after_train()
        if self._ema is not None and comm.is_main_process() and self.iter >= self.max_iter:
            self._save_ema(self.max_iter - 1)

    def _save_ema(self, iteration: int) -> None:
        state = {"model": self._ema.model.state_dict(), "iteration": iteration}
        self.checkpointer.write("model_final_ema", state)

    def build_writers(self) -> list[EventWriter]:
        """Returns Detectron2's default writers: the terminal, metrics.json and TensorBoard."""
        output_dir = config_settings(self.cfg).output_dir
        PathManager.mkdirs(output_dir)
        return default_writers(output_dir, self.max_iter)

    def train(self) -> dict[str, Any] | None:
        """Trains and evaluates.

        Returns:
            the last evaluation's results, {task: {metric: value}}, of averaged weights under "ema"
            and the losses of `train.validation_loss` under "validation"; None where there was no
            evaluation.
        """
        try:
            self._run()
        except StopTraining:
            logging.getLogger(__name__).info(
                f"Stopped after iteration {self.iter}: {self._best.metric} has not become better "
                f"than {self._best.best:g} in {self._best.count_since} evaluations"
            )
            # The final checkpoint is there where it is what was resumed.
            final = f"{self._checkpoint_hook.file_prefix}_final.pth"
            last = self.checkpointer.get_checkpoint_file()
            if self.iter >= self.start_iter or not last.endswith(final):
                self._checkpoint_hook.save_final(self.iter)
            if self._ema is not None and comm.is_main_process():
                self._save_ema(self.iter)
        return getattr(self, "_last_eval_results", None)

    def _run(self) -> None:
        super().train()

    @classmethod
    def evaluate(cls, cfg: Config, resume: bool = False, fast: bool = False) -> dict[str, Any]:
        """Builds the model, loads its weights and evaluates it.

        The metrics are added to metrics.json in the output folder, as training adds them.

        Args:
            cfg: the config; it names the weights.
            resume: evaluate the last checkpoint in the output folder instead, if there is one.
            fast: :func:`gfocal.optimize_for_inference`, in half precision where the device has it.

        Returns:
            {task: {metric: value}}.

        Raises:
            ValueError: no weights to evaluate, or weights of another model; ``fast`` and a model
                other than GFL.
            FileNotFoundError: the weight file does not exist.
        """
        output_dir, weights, _ = config_settings(cfg)
        model = cls.build_model(cfg)
        checkpointer = StrictCheckpointer(model, output_dir)
        resume = resume and checkpointer.has_checkpoint()
        if not resume and not check_weights(weights):
            raise ValueError(
                "no weights to evaluate: set train.init_checkpoint (LazyConfig) or MODEL.WEIGHTS "
                f"(yacs), or resume where {output_dir!r} has a checkpoint"
            )
        if fast and not isinstance(model, GFL):
            raise ValueError(f"fast is for GFL; the config's model is a {type(model).__name__}")
        state = checkpointer.resume_or_load(weights, resume=resume)
        if fast:
            optimize_for_inference(model, dtype=fast_dtype(next(model.parameters()).device))
        results = cls.test(cfg, model)
        if results and comm.is_main_process():
            PathManager.mkdirs(output_dir)
            with EventStorage(int(state.get("iteration", 0))) as storage:
                storage.put_scalars(**flatten_results_dict(results), smoothing_hint=False)
                writer = JSONWriter(os.path.join(output_dir, "metrics.json"))
                writer.write()
                writer.close()
        return results


def _optimizer_class(optimizer: torch.optim.Optimizer) -> str:
    """The name of PyTorch's class: Detectron2 derives others from it, which clip gradients."""
    classes = type(optimizer).__mro__
    return next(x.__name__ for x in classes if x.__module__.startswith("torch.optim"))


def _settings(optimizer: torch.optim.Optimizer) -> dict[str, list]:
    """What a config says of an optimizer, for each group of parameters; the learning rate before
    the schedule."""
    ret: dict[str, list] = {}
    for group in optimizer.param_groups:
        for name, value in {**group, "lr": group.get("initial_lr", group["lr"])}.items():
            value = list(value) if isinstance(value, Sequence) else value
            ret.setdefault(name, []).append(value)
    return {name: values for name, values in ret.items() if name not in ("params", "initial_lr")}


def _check_best_metric(options: TrainOptions) -> None:
    needed = {
        "ema/": ("ema_decay (SOLVER.EMA_DECAY)", options.ema_decay),
        "validation/": ("validation_loss (TEST.VALIDATION_LOSS)", options.validation_loss),
    }
    for prefix, (key, value) in needed.items():
        if options.best_metric.startswith(prefix) and not value:
            raise ValueError(f"best_metric is {options.best_metric!r}, but {key} is {value}")
