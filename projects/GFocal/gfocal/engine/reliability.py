"""`train.reliability`: an evaluation that also measures how reliable the detections are."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils.registry import locate

from ..config import Config, config_settings, train_options

__all__ = ["observed", "with_reliability"]

# By name: the engine imports no pictures.
EVALUATOR = "gfocal.inspect.reliability.DetectionReliabilityEvaluator"


def with_reliability(
    cfg: Config, evaluator: DatasetEvaluator, dataset_name: str | None, num_datasets: int
) -> DatasetEvaluator:
    """The evaluator of a dataset, and beside it that of reliability, if the config asks for it. It
    writes to the folder `inference` of the output folder, where COCO's evaluator writes; with
    several datasets to one of the dataset's name there.

    Args:
        cfg: the config.
        evaluator: of the dataset.
        dataset_name: of it.
        num_datasets: of the evaluation.

    Raises:
        ValueError: the dataset has no name, or none that reliability can be measured on.
    """
    if not train_options(cfg).reliability:
        return evaluator
    key = "train.reliability (TEST.RELIABILITY)"
    if dataset_name is None:
        raise ValueError(
            f"{key} is true, but the test dataset has no name (dataloader.test.dataset.names); "
            "expected a registered dataset"
        )
    folder = os.path.join(config_settings(cfg).output_dir, "inference")
    if num_datasets > 1:
        folder = os.path.join(folder, str(dataset_name))
    try:
        reliability = locate(EVALUATOR)(dataset_name, output_dir=folder)
    except ValueError as error:
        raise ValueError(f"{key} is true: {error}") from error
    return DatasetEvaluators([evaluator, reliability])


@contextlib.contextmanager
def observed(evaluator: Any, model: Any) -> Iterator[None]:
    """Inside it, the model gives what the evaluator needs beyond plain detections.

    Args:
        evaluator: of :func:`with_reliability`; also any other.
        model: what it evaluates.
    """
    with contextlib.ExitStack() as stack:
        for part in getattr(evaluator, "_evaluators", [evaluator]):
            if hasattr(part, "observing"):
                stack.enter_context(part.observing(model))
        yield
