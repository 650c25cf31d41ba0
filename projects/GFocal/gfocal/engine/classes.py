"""What the engine asks of a config and a model: names of datasets and classes, whether these are
those of the weights, the post-processing."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from detectron2.config import CfgNode, instantiate
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from omegaconf import OmegaConf

from ..config import Config
from ..weights.description import Description, disagreement

__all__ = [
    "Classes",
    "classes_of",
    "classes_of_dataset",
    "post_processing",
    "test_metadata",
    "test_names",
    "warn_if_others",
]


class Classes(NamedTuple):
    """The classes of a dataset, in the order of the model's.

    Attributes:
        names: of the K classes; () if they are not known.
        category_ids: of the dataset's json; () if it has none.
    """

    names: Sequence[str] = ()
    category_ids: Sequence[int] = ()


def classes_of(cfg: Config) -> Classes:
    """The classes of the first of a config's datasets that has names, its test datasets first."""
    for name in _dataset_names(cfg):
        if (classes := classes_of_dataset(name)).names:
            return classes
    return Classes()


def classes_of_dataset(name: str) -> Classes:
    """The classes of a dataset that is registered."""
    if name not in MetadataCatalog.list():
        return Classes()
    metadata = MetadataCatalog.get(name)
    names = metadata.get("thing_classes", None) or ()
    ids = metadata.get("thing_dataset_id_to_contiguous_id", None) or {}
    return Classes(list(names), sorted(ids, key=ids.__getitem__))


def test_names(cfg: Config) -> list[str]:
    """The names of a config's test datasets, which are registered now.

    Raises:
        OSError, ValueError: of the LazyCall that registers them.
    """
    if isinstance(cfg, CfgNode):
        return list(cfg.DATASETS.TEST)
    names = instantiate(OmegaConf.select(cfg, "dataloader.test.dataset.names", default=None)) or []
    return [names] if isinstance(names, str) else list(names)


def test_metadata(cfg: Config, description: Description | None) -> Metadata | None:
    """The metadata of a config's first test dataset; without one, those of weights that know their
    classes; None without either."""
    known = description is not None and len(description.class_names) > 0
    names = _names_in(cfg, "test", warn=not known)
    if names and names[0] in MetadataCatalog.list():
        return MetadataCatalog.get(names[0])
    if description is None or not known:
        return None
    ids = {key: index for index, key in enumerate(description.category_ids)}
    extra = {"thing_dataset_id_to_contiguous_id": ids} if ids else {}
    return Metadata(name="weights").set(thing_classes=list(description.class_names), **extra)


def warn_if_others(
    description: Description | None,
    weights: str,
    what: str,
    num_classes: int | None,
    class_names: Sequence[str],
) -> None:
    """Warns if a config or dataset has other classes than the weights."""
    if description is None:
        return
    if difference := disagreement(description, num_classes, class_names):
        logging.getLogger(__name__).warning(f"{weights}: {what} has {difference}")


def post_processing(model: Any, setting: str) -> Any:
    """The post-processing of a detector, which has a setting.

    Raises:
        TypeError: it has none of that name.
    """
    part = getattr(model, "postprocess", None)
    if not hasattr(part, setting):
        raise TypeError(
            f"a {type(model).__name__} has no {setting}; detectors with an NMSPostProcess have"
        )
    return part


def _dataset_names(cfg: Config) -> Iterator[str]:
    yield from _names_in(cfg, "test")
    yield from _names_in(cfg, "train")


def _names_in(cfg: Config, split: str, *, warn: bool = True) -> Sequence[str]:
    """Names of the datasets for "train" or "test", after the LazyCalls that register them."""
    if isinstance(cfg, CfgNode):
        return cfg.DATASETS.TEST if split == "test" else cfg.DATASETS.TRAIN
    key = f"dataloader.{split}.dataset.names"
    try:
        names = instantiate(OmegaConf.select(cfg, key, default=None)) or []
    except (OSError, ValueError) as error:
        # Prediction needs no dataset. Only the class names are lost.
        if warn:
            logging.getLogger(__name__).warning(f"The class names of {key} are unknown: {error}")
        return []
    return [names] if isinstance(names, str) else list(names)
