"""The tables' rows: a config of configs/ablations each, and the paper's result for it."""

from pathlib import Path

from omegaconf import DictConfig

from ...config import model_zoo

__all__ = ["METRICS", "ON_SHAPES", "TABLES", "label", "make_config", "paper_of", "rows"]

TABLES = {
    "1a": "separate, implicit and joint representation of quality",
    "1b": "QFL on other detectors",
    "1c": "beta of QFL",
    "2a": "representation of a box",
    "2b": "n, the number of bins",
    "2c": "delta, the width of a bin",
    "3": "QFL and DFL",
}
METRICS = ("AP", "AP50", "AP75")
# Not in table 1b, whose rows are another detector.
ON_SHAPES = [table for table in TABLES if table != "1b"]


def rows(table: str) -> list[str]:
    """Names of the table's configs, as model_zoo takes them."""
    folder = Path(model_zoo.get_config_file("ablations/atss.py")).parent
    return sorted(f"ablations/table{table}/{p.name}" for p in folder.glob(f"table{table}/*.py"))


def paper_of(row: str) -> dict:
    """The paper's result for a row: the config's ``paper``, or dashes if it has none."""
    return {name: "-" for name in METRICS} | dict(model_zoo.get_config(row).get("paper", {}))


def label(row: str) -> str:
    """The row's name in a table."""
    return Path(row).stem


def make_config(
    row: str, dataset: str, max_iter: int | None, seed: int, folder: Path
) -> DictConfig:
    """The row's config on a dataset.

    Args:
        row: see :func:`rows`.
        dataset: "coco" trains the row as it stands. "shapes" puts its quality predictor, box
            representation, matcher, anchors' offset and criterion into the small detector of
            configs/quick_start/shapes_gflv2.py.
        max_iter: iterations; None: as many as the config has.
        seed: of the training.
        folder: for the run.
    """
    cfg = model_zoo.get_config(row)
    cfg.pop("paper", None)
    if dataset == "shapes":
        parts, cfg = cfg.model, model_zoo.get_config("quick_start/shapes_gflv2.py")
        cfg.model.head.quality_predictor = parts.head.quality_predictor
        cfg.model.head.box_representation = parts.head.box_representation
        cfg.model.anchor_generator.offset = parts.anchor_generator.offset
        cfg.model.matcher, cfg.model.criterion = parts.matcher, parts.criterion
    cfg.train.max_iter = max_iter or cfg.train.max_iter
    cfg.train.seed = seed
    cfg.train.eval_period = cfg.train.max_iter
    cfg.train.checkpointer.period = max(1, cfg.train.max_iter // 4)
    cfg.train.checkpointer.max_to_keep = 1
    cfg.train.output_dir = str(folder)
    return cfg
