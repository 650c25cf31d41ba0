"""The best checkpoint, and the early stop of a training that no longer gets better."""

import difflib
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from ..data.coco_evaluation import known_metrics

__all__ = ["BestMetric", "check_dataset_of_metric", "check_metric_is_given"]


def check_metric_is_given(
    metric: str,
    evaluator: Any,
    dataset_name: str | None,
    num_datasets: int,
    key: str = "best_metric",
) -> None:
    """Checks, before a training, that an evaluation will give the metric, as far as it is known.

    Args:
        metric: ``best_metric``; "" for none.
        evaluator: of a dataset; None: there is none.
        dataset_name: of it.
        num_datasets: with several, their names stand before the metrics.
        key: that asks for it.

    Raises:
        ValueError: no evaluation will give it.
    """
    known = known_metrics(evaluator) if evaluator is not None else set()
    wanted = metric.removeprefix("ema/")
    if not metric or known is None or wanted.startswith("validation/"):
        return
    if num_datasets > 1:
        if not wanted.startswith(f"{dataset_name}/"):
            return  # of another dataset, see check_dataset_of_metric
        wanted = wanted.removeprefix(f"{dataset_name}/")
    if wanted not in known:
        nearest = difflib.get_close_matches(wanted, known, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        gives = ", ".join(sorted(known)) or "none: without an evaluator, or without annotations"
        raise ValueError(
            f"{key} is {metric!r}, which no evaluation will give{hint} (It gives {gives}.)"
        )


def check_dataset_of_metric(metric: str, dataset_names: Sequence[str]) -> None:
    """Checks that a metric names one of several test datasets.

    Raises:
        ValueError: it does not.
    """
    wanted = metric.removeprefix("ema/")
    if len(dataset_names) < 2 or not metric or wanted.startswith("validation/"):
        return
    if not any(wanted.startswith(f"{name}/") for name in dataset_names):
        raise ValueError(
            f"best_metric is {metric!r}, and there are several test datasets: "
            f"{', '.join(dataset_names)}; expected the name of one before the metric, e.g. "
            f"{dataset_names[0]}/{wanted}"
        )


class BestMetric(HookBase):
    """Remembers the best value of a metric, saves its weights, and tells when the metric has not
    improved for long.

    Args:
        metric: name in the flattened results, e.g. "bbox/AP"; "ema/bbox/AP" for the averaged
            weights; "validation/total_loss".
        mode: "max" or "min": which values are better.
        patience: the training stops after this number of evaluations without a better value; 0 for
            never. Evaluations before the first finite value do not count: the AP of a model without
            detections is nan.
        save: called with ("model_best", metric's value) at each better value.

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
        if not math.isfinite(value):
            logging.getLogger(__name__).warning(
                f"{self.metric} is {value}, of which nothing is better or worse: this evaluation "
                "does not count for model_best (COCO's AP is nan without a single detection)"
            )
        sign = 1 if self.mode == "max" else -1
        if math.isfinite(value) and not sign * value <= sign * self.best:
            self.best, self.count_since = value, 0
            self._save("model_best", {"iteration": iteration, self.metric: value})
        elif math.isfinite(self.best):
            self.count_since += 1

    def should_stop(self) -> bool:
        """Whether the training should end. The main process decides; all processes must call it."""
        return comm.all_gather(0 < self.patience <= self.count_since)[0]

    @property
    def reason(self) -> str:
        """Why the training should end, for the log."""
        return (
            f"{self.metric} has not become better than {self.best:g} in {self.count_since} "
            "evaluations"
        )

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
