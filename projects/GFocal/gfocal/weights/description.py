"""What weights say of themselves: the config of the model, its classes, how good it is.

It lies in the file under the key "gfocal", as plain data, which is read without running code.
:func:`describe` makes it, :func:`read_description` reads it, and :func:`find_config` builds a
config from it.
"""

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from .._version import __version__
from ..config import Config, apply_overrides, model_zoo, set_weights, without_pretraining
from ..config.files import load_config
from ..config.inference import read_names_of_thresholds
from ..config.settings import config_settings
from .checkpointers import check_weights
from .config_data import config_of, tree_of
from .reading import load_weights_only

__all__ = [
    "KEY",
    "Description",
    "calibration_of",
    "describe",
    "described_config",
    "description_of",
    "disagreement",
    "find_config",
    "metrics_of",
    "num_classes_of",
    "read_description",
]

KEY = "gfocal"  # of a checkpoint
FORMAT = 1


@dataclass(frozen=True)
class Description:
    """What weights say of themselves.

    Attributes:
        kind: "lazy" or "yacs"; "" without a config.
        config: the config, resolved: of a LazyConfig a tree of dicts, lists, strings and numbers,
            with dotted names of classes and functions; of yacs its text.
        class_names: of the K classes, in their order; () if nobody knew them.
        category_ids: of the dataset, for each class; () likewise.
        pixel_mean, pixel_std: per channel, in the order of ``input_format``.
        input_format: order of the channels, e.g. "BGR".
        metrics: {name: value} of the evaluation of these weights; {} if there was none.
        iteration: the last that was done; -1 if it is not known.
        versions: of gfocal, detectron2 and torch, where the file was written.
        calibration: what ``gfocal calibrate`` found, see
            :class:`gfocal.modeling.uncertainty.Calibration`; {} without.
        format: of this description.
    """

    kind: str = ""
    config: Any = None
    class_names: Sequence[str] = ()
    category_ids: Sequence[int] = ()
    pixel_mean: Sequence[float] = ()
    pixel_std: Sequence[float] = ()
    input_format: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    iteration: int = -1
    versions: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def plain(self) -> dict[str, Any]:
        """Dicts, lists, strings and numbers alone, for a checkpoint."""
        data = asdict(self)
        return {key: list(x) if isinstance(x, tuple) else x for key, x in data.items()}


def describe(
    cfg: Config,
    *,
    model: nn.Module | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    category_ids: Sequence[int] = (),
) -> Description:
    """Describes the model of a config.

    A config that cannot be written as data is left out, with a warning that names the key.

    Args:
        cfg: a LazyConfig or yacs config.
        model: built from it. It knows what the config leaves to defaults and to other files.
        num_classes: K, without a model.
        class_names, category_ids: of the dataset.
    """
    kind, config = "yacs", None
    of_model = num_classes_of(model)
    num_classes = num_classes if of_model is None else of_model
    if isinstance(cfg, CfgNode):
        config = cfg.dump()
        mean, std, order = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, cfg.INPUT.FORMAT
    else:
        kind = "lazy"
        try:
            config = tree_of(cfg, num_classes)
        except (ValueError, OmegaConfBaseException) as error:
            kind = ""
            logging.getLogger(__name__).warning(
                f"The weights are saved without their config: {' '.join(str(error).split())}"
            )
        values = (OmegaConf.select(cfg, f"model.{x}") for x in ("pixel_mean", "pixel_std"))
        mean, std = (x or () for x in values)
        order = OmegaConf.select(cfg, "model.input_format") or ""
    mean, std = (_numbers(model, name, x) for name, x in (("pixel_mean", mean), ("pixel_std", std)))
    versions = {"gfocal": __version__, "detectron2": detectron2.__version__}
    return Description(
        kind=kind,
        config=config,
        class_names=[str(name) for name in class_names],
        category_ids=list(category_ids),
        pixel_mean=mean,
        pixel_std=std,
        input_format=str(getattr(model, "input_format", order)),
        versions={**versions, "torch": str(torch.__version__)},
    )


def _numbers(model: nn.Module | None, name: str, default: Sequence[float]) -> list[float]:
    buffer = getattr(model, name, None)
    return [float(x) for x in (buffer.flatten() if isinstance(buffer, Tensor) else default)]


def read_description(path: str) -> Description | None:
    """Reads the description of a weight file.

    Args:
        path: a file or URL.

    Returns:
        None if it has none.

    Raises:
        FileNotFoundError, ValueError: the file cannot be read.
    """
    if not path.partition("?")[0].endswith(".pth"):  # Python's own formats: they could run code
        return None
    with_local_path = PathManager.get_local_path(path.partition("?")[0])
    return description_of(load_weights_only(with_local_path), path)


def description_of(checkpoint: Mapping[str, Any], path: str) -> Description | None:
    """The description in a checkpoint that was read; None if it has none."""
    data = checkpoint.get(KEY)
    if data is None:
        return None
    if not (isinstance(data, Mapping) and isinstance(data.get("format"), int)):
        raise ValueError(  # noqa: TRY004 (of a file, not of an argument)
            f"{path}: its {KEY!r} is no description of weights"
        )
    if data["format"] > FORMAT:
        logging.getLogger(__name__).warning(
            f"{path} was written by gfocal {data.get('versions', {}).get('gfocal')}, in a format "
            f"({data['format']}) that this version ({__version__}) does not know: its config and "
            "class names are not read"
        )
        return None
    known = {key: data[key] for key in Description.__dataclass_fields__ if key in data}
    wrong = [
        key
        for key, value in known.items()
        if key != "config" and not isinstance(value, _KINDS[type(getattr(Description(), key))])
    ]
    if wrong:
        raise ValueError(f"{path}: {', '.join(wrong)} of its description cannot be read")
    return Description(**known)


def calibration_of(description: Description | None, path: str) -> Mapping[str, Any]:
    """The calibration in a description of the file ``path``, as plain data.

    Raises:
        ValueError: there is none.
    """
    if description is None or not description.calibration:
        raise ValueError(
            f"{path} carries no calibration: gfocal calibrate --weights {path} --output FILE finds "
            "one on a validation set"
        )
    return description.calibration


_KINDS: dict[type, Any] = {str: str, tuple: (list, tuple), dict: Mapping, int: int}


def num_classes_of(model: Any) -> int | None:
    """K of a detector, or of the second stage of an R-CNN; None if it is not known."""
    for part in (model, getattr(model, "roi_heads", None)):
        count = getattr(part, "num_classes", None)
        if isinstance(count, int):
            return count
    return None


def find_config(
    cfg: Config | str | os.PathLike | None,
    weights: str | os.PathLike | None = None,
    overrides: Sequence[str] = (),
    trusted_packages: Sequence[str] = (),
) -> tuple[Config, Description | None]:
    """The config of a model, from what a user has: a config, its file, or weights that carry it.

    Args:
        cfg: a config; the path of one (.py, .yaml) or its name in the zoo; the path of weights.
            None: the weights carry it.
        weights: the weight file; by default the config's.
        overrides: ``key=value``.
        trusted_packages: packages, or modules of them, whose callables the config in a weight file
            may name.

    Returns:
        A config that names the weights, and the description of these (None without one). A config
        that was given wins over that of the weights. A timm backbone loads none of its own.

    Raises:
        FileNotFoundError: a file is not there.
        TypeError: ``cfg`` is neither.
        ValueError: no weights; or no config is given, and the weights carry none that can be read.
    """
    if isinstance(cfg, (str, os.PathLike)):
        path = os.fspath(cfg)
        if os.path.splitext(path)[1] in (".py", ".yaml", ".yml"):
            cfg = load_config(model_zoo.find_config(path))
        elif weights is None:
            cfg, weights = None, path
        else:
            raise ValueError(f"got {path!r} as a config; expected a .py or .yaml")
    if not isinstance(cfg, (DictConfig, CfgNode, type(None))):
        raise TypeError(f"got {type(cfg).__name__} as a config; expected a config, or a path")
    if cfg is None and not weights:
        raise ValueError("got neither a config nor weights that carry theirs")
    if weights is None:
        weights = config_settings(cfg).weights
    weights = check_weights(os.fspath(weights))
    description = read_description(weights) if weights else None
    if cfg is None:
        cfg = described_config(description, weights, trusted_packages)
    else:
        cfg = cfg.clone() if isinstance(cfg, CfgNode) else copy.deepcopy(cfg)
    if isinstance(cfg, CfgNode):
        cfg.defrost()
    cfg = apply_overrides(cfg, overrides)
    set_weights(cfg, weights)
    if weights:
        cfg = without_pretraining(cfg)
    if description is not None and description.class_names:
        read_names_of_thresholds(cfg, list(description.class_names))
    return cfg, description


def described_config(
    description: Description | None, path: str, trusted_packages: Sequence[str] = ()
) -> Config:
    """The config in a description of the file ``path``; see :func:`find_config`.

    Raises:
        ValueError: there is none, or it names code of other packages.
    """
    if description is None or not description.kind:
        raise ValueError(
            f"{path} carries no config (a training of this version writes it into its "
            "weights): give its config too, with --config-file or Predictor(config, weights)"
        )
    return config_of(description.kind, description.config, path, trusted_packages)


def metrics_of(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """{task: {metric: value}} of an evaluation as {"task/metric": value}."""
    flat: dict[str, float] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat |= metrics_of(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = float(value)
    return flat


def disagreement(
    description: Description, num_classes: int | None, class_names: Sequence[str]
) -> str:
    """How a config differs from the weights in its classes; "" if it does not, as far as known."""
    theirs = list(description.class_names)
    if not theirs:
        return ""
    if num_classes is not None and num_classes != len(theirs):
        return f"{num_classes} classes, and the weights {len(theirs)}: {_first(theirs)}"
    if class_names and list(class_names) != theirs:
        differ = [f"{a!r} ({b!r})" for a, b in zip(class_names, theirs) if a != b]
        return f"other class names than the weights (in brackets): {_first(differ)}"
    return ""


def _first(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
