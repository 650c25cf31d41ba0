"""What a config can add to a training: an average of the weights, the best checkpoint, an early
stop, a validation loss; and evaluations that leave no trace in the training."""

import contextlib
import copy
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from detectron2.data import MapDataset
from detectron2.engine import HookBase, TrainerBase
from detectron2.engine.hooks import EvalHook, PeriodicWriter
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.optim.swa_utils import AveragedModel

from ..data.loader import unchanged
from ..process.rng import preserved_rng
from ..process.sums import each_on_its_own

__all__ = [
    "BestMetric",
    "EMAHook",
    "EvaluationHook",
    "MetricsHook",
    "StopTraining",
    "ValidationBatches",
    "WriterHook",
    "evaluation_leaves_no_trace",
    "validation_losses",
]


class StopTraining(BaseException):
    """Ends a training that has nothing more to gain. No Exception, as it is no failure: Detectron2
    logs a traceback for those."""


class EMAHook(HookBase):
    """An exponential moving average of the weights and of the statistics of batch norm.

    It starts as the weights after its first step. After n steps it keeps
    ``min(decay, (1 + n) / (10 + n))`` of itself at each, so that its start is soon forgotten.

    Args:
        model: whose weights; without DistributedDataParallel.
        decay: in (0, 1).

    Attributes:
        model: with the averaged weights.

    Raises:
        ValueError: ``decay`` is not in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay is {decay}; expected a number between 0 and 1, or 0")
        self._source = model

        def average(old: Tensor, new: Tensor, count: Tensor) -> Tensor:
            if not old.is_floating_point():
                return new
            weight = 1 - ((1 + count) / (10 + count)).clamp(max=decay)
            return old.lerp(new, weight.to(old.dtype))

        self._average = AveragedModel(model, avg_fn=average, use_buffers=True)

    @property
    def model(self) -> nn.Module:
        return self._average.module

    def before_train(self) -> None:
        # The weights have been loaded since; a checkpoint without an average brings none either.
        if self._average.n_averaged == 0:
            self.model.load_state_dict(self._source.state_dict())

    def after_step(self) -> None:
        self._average.update_parameters(self._source)

    def state_dict(self) -> dict[str, Any]:
        return self._average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._average.load_state_dict(state_dict)


class BestMetric(HookBase):
    """Remembers the best value of a metric, saves the weights that gave it, and tells when it has
    not improved for long.

    Args:
        metric: name in the flattened results, e.g. "bbox/AP"; "ema/bbox/AP" for the averaged
            weights; "validation/total_loss".
        mode: "max" or "min", what is better.
        patience: evaluations without a better value after which to stop; 0 for never. Those
            before the first finite value do not count: the AP of a model without detections is nan.
        save: called with ("model_best", metric's value) when there is a better one.

    Raises:
        ValueError: another mode, a negative patience, or a patience without a metric.
    """

    def __init__(
        self, metric: str, mode: str, patience: int, save: Callable[[str, dict[str, Any]], None]
    ):
        if mode not in ("max", "min"):
            raise ValueError(f'best_mode is {mode!r}; expected "max" or "min"')
        if patience < 0:
            raise ValueError(f"early_stop_patience is {patience}; expected 0 or more evaluations")
        if not metric:
            raise ValueError('early_stop_patience needs best_metric, e.g. "bbox/AP"')
        self.metric, self.mode, self.patience, self._save = metric, mode, patience, save
        self.best = math.nan
        self.count_since = 0

    def update(self, results: dict[str, Any], iteration: int) -> None:
        """Compares the results of an evaluation, {task: {metric: value}}, on the main process.

        Raises:
            ValueError: the metric is not in the results.
        """
        results = flatten_results_dict(results)
        if self.metric not in results:
            raise ValueError(
                f"best_metric is {self.metric!r}, but an evaluation gives {', '.join(results)}"
            )
        value = float(results[self.metric])
        sign = 1 if self.mode == "max" else -1
        if math.isfinite(value) and not sign * value <= sign * self.best:
            self.best, self.count_since = value, 0
            self._save("model_best", {"iteration": iteration, self.metric: value})
        elif math.isfinite(self.best):
            self.count_since += 1

    def should_stop(self) -> bool:
        """Whether the training should end. The main process decides; all must ask together."""
        return comm.all_gather(0 < self.patience <= self.count_since)[0]

    def state_dict(self) -> dict[str, Any]:
        names = ("metric", "mode", "best", "count_since")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before = state_dict["metric"], state_dict["mode"]
        if before != (self.metric, self.mode):
            logging.getLogger(__name__).warning(
                f"The checkpoint's best value is of {before}, the config asks for "
                f"{(self.metric, self.mode)}: the search for the best starts anew, and model_best "
                "will be replaced"
            )
            return
        self.best, self.count_since = state_dict["best"], state_dict["count_since"]


class EvaluationHook(EvalHook):
    """Detectron2's EvalHook, which after a resume makes up for the evaluation that the checkpoint
    does not know of, as a checkpoint is written before the evaluation of its iteration, and ends a
    training again that had come to its early stop; and which evaluates nothing after a failure.

    Attributes:
        last: the iteration last evaluated; -1 for none.

    Args:
        period: iterations between evaluations; 0 for one at the end only.
        function: evaluates, {task: {metric: value}}.
        should_stop: asked after each evaluation.
    """

    def __init__(
        self,
        period: int,
        function: Callable[[], dict[str, Any]],
        should_stop: Callable[[], bool] | None = None,
    ):
        super().__init__(period, function)
        self._should_stop = should_stop
        self.last = -1
        self._to_make_up = -1

    def state_dict(self) -> dict[str, Any]:
        now, end = self.trainer.iter, self.trainer.max_iter
        to_come = self.last != now and (self._is_due(now) or now + 1 == end)
        return {"last": self.last, "to_make_up": now if to_come else -1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last, self._to_make_up = state_dict["last"], state_dict["to_make_up"]

    def before_train(self) -> None:
        start = self.trainer.start_iter
        if not 0 < start < self.trainer.max_iter:
            return
        with at_last_iteration(self.trainer):
            if self._to_make_up == start - 1:
                self._evaluate()
            elif self._should_stop is not None and self._should_stop():
                self.last = start - 1  # for the results only
                self._do_eval()
                raise StopTraining

    def after_step(self) -> None:
        now = self.trainer.iter
        if self._is_due(now) and now + 1 != self.trainer.max_iter:
            self._evaluate()

    def after_train(self) -> None:
        if self.trainer.iter == self.trainer.max_iter:  # else it failed
            self._do_eval()
        del self._func  # refers to the trainer

    def _is_due(self, iteration: int) -> bool:
        return self._period > 0 and (iteration + 1) % self._period == 0

    def _evaluate(self) -> None:
        self._do_eval()
        self.last = self.trainer.iter
        if self._should_stop is not None and self._should_stop():
            raise StopTraining


class MetricsHook(HookBase):
    """Carries the last values of each metric over a resume, so that what is written is what an
    uninterrupted training writes: medians."""

    WINDOW = 20  # of Detectron2's writers

    def __init__(self):
        self._restored: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        storage = getattr(self.trainer, "storage", None)
        if storage is None:
            return {}
        state = {}
        for name, history in storage.histories().items():
            smoothed = storage.smoothing_hints()[name]
            values = history.values()[-self.WINDOW if smoothed else -1 :]
            # Of what is not smoothed, the value of this iteration; one before has been written.
            if smoothed or values[0][1] == storage.iter:
                values = [(float(x), int(iteration)) for x, iteration in values]
                state[name] = {"values": values, "smoothed": smoothed}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def before_train(self) -> None:
        storage = self.trainer.storage
        now = storage.iter
        for name, metric in self._restored.items():
            for value, iteration in metric["values"]:
                storage.iter = iteration
                storage.put_scalar(name, value, smoothing_hint=metric["smoothed"])
        storage.iter = now
        self._restored = {}


class WriterHook(PeriodicWriter):
    """Detectron2's PeriodicWriter, which also writes after each evaluation, and after a resume what
    was to be written after the checkpoint.

    Args:
        writers: to the terminal, to metrics.json, to TensorBoard.
        period: iterations between lines.
        evaluation: whose iterations are written too.
    """

    def __init__(self, writers: list[EventWriter], period: int, evaluation: EvaluationHook):
        super().__init__(writers, period)
        self._evaluation = evaluation

    def before_train(self) -> None:
        if self.trainer.start_iter > 0:
            with at_last_iteration(self.trainer):
                self.after_step()

    def after_step(self) -> None:
        now = self.trainer.iter
        last = now + 1 == self.trainer.max_iter
        if last or (now + 1) % self._period == 0 or self._evaluation.last == now:
            for writer in self._writers:
                writer.write()


@contextlib.contextmanager
def at_last_iteration(trainer: TrainerBase) -> Iterator[None]:
    """Inside, it is the iteration after which the checkpoint was written that is resumed."""
    start = trainer.start_iter
    trainer.iter = trainer.storage.iter = start - 1
    yield
    trainer.iter = trainer.storage.iter = start


@contextlib.contextmanager
def evaluation_leaves_no_trace(model: nn.Module) -> Iterator[None]:
    """What runs inside changes neither the random states nor a module's mode. Inside, all processes
    have the buffers of the main one, which are those that it saves: without synchronisation each
    has its own statistics of batch norm."""
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


@torch.no_grad()
def validation_losses(model: nn.Module, batches: Iterable[list]) -> dict[str, float]:
    """Losses of a model on images that it does not learn from: as in training, but batch norm uses
    its running statistics and dropout drops nothing.

    Args:
        model: without DistributedDataParallel. A copy of it is asked, as a training step may change
            what no state dict has (RetinaNet's running normaliser).
        batches: single images with ground truth, those of this process.

    Returns:
        the mean of each loss over the images of all processes, and "total_loss".
    """
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, (_NormBase, _DropoutNd)):
            module.eval()
    sums: Counter[str] = Counter()
    # The storage takes what the model writes down, which is not of the training.
    with each_on_its_own(), EventStorage(1):
        for batch in batches:
            sums["images"] += 1
            for name, loss in model(batch).items():
                sums[name] += loss.item()
    gathered = comm.all_gather(dict(sums))
    names = [name for name in gathered[0] if name != "images"]
    count = sum(x.get("images", 0) for x in gathered)
    means = {name: sum(x.get(name, 0.0) for x in gathered) / count for name in names}
    return {**means, "total_loss": sum(means.values())}


class ValidationBatches:
    """Single images with ground truth for :func:`validation_losses`, a share of them for each
    process.

    Args:
        dataset: dataset dicts.
        mapper: a Detectron2 mapper of the test images; a copy of it keeps the annotations.
        num_workers: processes that load images.

    Raises:
        ValueError: the mapper has no ``is_train`` to keep annotations by.
    """

    def __init__(self, dataset: Any, mapper: Any, num_workers: int):
        if not hasattr(mapper, "is_train"):
            raise ValueError(
                "validation_loss needs a test mapper with Detectron2's is_train, got a "
                f"{type(mapper).__name__}"
            )
        self.dataset = dataset
        self.mapper = copy.copy(mapper)
        self.mapper.is_train = True
        self.num_workers = num_workers

    def __iter__(self) -> Iterator[list]:
        loader = torch.utils.data.DataLoader(
            MapDataset(self.dataset, self.mapper),
            sampler=range(comm.get_rank(), len(self.dataset), comm.get_world_size()),
            batch_size=None,
            collate_fn=unchanged,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(0),
        )
        for image in loader:
            yield [image]
