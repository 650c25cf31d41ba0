"""Hooks that make a resume exact, beside the state of the training itself: metrics, their writing,
and evaluations."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from detectron2.engine import HookBase, TrainerBase
from detectron2.engine.hooks import EvalHook, PeriodicWriter
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from .._moved import moved_names
from .best import BestMetric
from .records import MetricsWriter

__all__ = ["EvaluationHook", "MetricsHook", "StopTraining", "WriterHook", "at_last_iteration"]

__getattr__ = moved_names(__name__)


class StopTraining(BaseException):
    """Ends a training early. It does not derive from Exception, because it is not a failure:
    Detectron2 logs a traceback for each Exception.

    Args:
        iteration: the last step that was done, from 0 on.
        reason: for the log.
        at_resume: whether that step was done before the resume. This run then does no step.
    """

    def __init__(self, iteration: int, reason: str, *, at_resume: bool):
        super().__init__(reason)
        self.iteration = iteration
        self.reason = reason
        self.at_resume = at_resume


class EvaluationHook(EvalHook):
    """Detectron2's EvalHook, exact over a resume, with a count of evaluations for the best one.

    A checkpoint is written before the evaluation of its iteration. So a resume first runs that
    evaluation. If the training had reached its early stop, the resume ends it again. After a
    failure there is no evaluation.

    Attributes:
        last: the last evaluated iteration; -1 for none.

    Args:
        period: iterations between evaluations; 0 for one at the end only.
        function: evaluates; returns {task: {metric: value}}.
        best: gets each result once, on the main process, and then decides whether to stop.

    Raises:
        StopTraining: after an evaluation, or before the first step of a resumed training.
    """

    def __init__(
        self,
        period: int,
        function: Callable[[], dict[str, Any]],
        best: BestMetric | None = None,
    ):
        super().__init__(period, self._counted)
        self._function = function
        self._best = best
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
                self._stop_if_exhausted(at_resume=True)
            elif self._best is not None and self._best.should_stop():
                self.last = start - 1  # evaluated before: now for the results only
                self._do_eval()
                self._stop(self._best, at_resume=True)

    def after_step(self) -> None:
        now = self.trainer.iter
        if self._is_due(now) and now + 1 != self.trainer.max_iter:
            self._evaluate()
            self._stop_if_exhausted(at_resume=False)

    def after_train(self) -> None:
        if self.trainer.iter == self.trainer.max_iter:  # else it failed
            self._do_eval()
        del self._func, self._function  # refer to the hook and to the trainer

    def _is_due(self, iteration: int) -> bool:
        return self._period > 0 and (iteration + 1) % self._period == 0

    def _evaluate(self) -> None:
        self._do_eval()
        self.last = self.trainer.iter

    def _counted(self) -> dict[str, Any]:
        results = self._function()
        now = self.trainer.iter
        if self._best is not None and comm.is_main_process() and self.last != now:
            self._best.update(results, now)
        return results

    def _stop_if_exhausted(self, *, at_resume: bool) -> None:
        if self._best is not None and self._best.should_stop():
            self._stop(self._best, at_resume=at_resume)

    def _stop(self, best: BestMetric, *, at_resume: bool) -> NoReturn:
        raise StopTraining(self.trainer.iter, best.reason, at_resume=at_resume)


class MetricsHook(HookBase):
    """Carries the last values of each metric over a resume. The written medians are then those of
    an uninterrupted training."""

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
            # Without smoothing only this iteration's value counts; earlier ones are written.
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
    """Detectron2's PeriodicWriter, which also writes after each evaluation. After a resume it
    writes the line that was due after the checkpoint.

    Args:
        writers: to the terminal, to metrics.json, to TensorBoard.
        period: iterations between lines.
        evaluation: its iterations are written too.
    """

    def __init__(self, writers: list[EventWriter], period: int, evaluation: EvaluationHook):
        super().__init__(writers, period)
        self._evaluation = evaluation
        self._begun = False

    def before_train(self) -> None:
        start = self.trainer.start_iter
        if start == 0:
            self._begin(0)
            return
        with at_last_iteration(self.trainer):
            self._begin(start - 1 if self._is_due() else start)
            self.after_step()

    def after_step(self) -> None:
        if self._is_due():
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        if not self._begun:  # a resume ended before its first step
            self._begin(max(self.trainer.start_iter - 1, 0))
        super().after_train()

    def _is_due(self) -> bool:
        now = self.trainer.iter
        last = now + 1 == self.trainer.max_iter
        return last or (now + 1) % self._period == 0 or self._evaluation.last == now

    def _begin(self, iteration: int) -> None:
        self._begun = True
        for writer in self._writers:
            if isinstance(writer, MetricsWriter):
                writer.begin(iteration)


@contextlib.contextmanager
def at_last_iteration(trainer: TrainerBase) -> Iterator[None]:
    """Inside it, the trainer is at the iteration of the resumed checkpoint."""
    start = trainer.start_iter
    trainer.iter = trainer.storage.iter = start - 1
    try:
        yield
    finally:
        trainer.iter = trainer.storage.iter = start
