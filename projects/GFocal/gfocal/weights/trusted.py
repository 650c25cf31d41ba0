"""Names of classes and functions in a file that nobody vouches for.

A checkpoint carries its config as data. To build the model, the names in it become callables. This
is the one place where that happens. A name is accepted if calling it does no more than build or
read a part of a detector.
"""

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["TRUSTED", "dotted_name", "trusted_callable"]

# Modules and single names. Of the packages, these parts alone: `torch.load` or
# `detectron2.data.build.load_proposals_into_dataset` would run the code of a pickle.
TRUSTED = (
    "gfocal.backbones",
    "gfocal.data",
    "gfocal.detectors",
    "gfocal.inspect.draw_training_image",
    "gfocal.inspect.pictures.draw_training_image",
    "gfocal.modeling",
    "gfocal.solver",
    "detectron2.data.build.build_detection_test_loader",
    "detectron2.data.dataset_mapper.DatasetMapper",
    "detectron2.data.transforms",
    "detectron2.evaluation",
    "detectron2.layers",
    "detectron2.modeling",
    "detectron2.solver",
    "fvcore.common.param_scheduler",
    "fvcore.nn",
    "torch.nn",
    "torchvision.models",
    "torchvision.ops",
)
_REFUSED = ("detectron2.modeling.mmdet_wrapper",)  # mmdetection unpickles the weights it is told


def dotted_name(value: Callable[..., Any]) -> str:
    """The name by which :func:`trusted_callable` finds a class or function again.

    Raises:
        ValueError: it has no such name: a lambda, an object, a function inside another.
    """
    name = f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', '')}"
    try:
        found = _walk(name)
    except (ImportError, AttributeError, ValueError):
        found = None
    # Each access to a class method makes another object, which equals the first.
    if found is None or found != value:
        raise ValueError(f"{value!r} cannot be found by a dotted name")
    return name


def trusted_callable(name: Any, where: str, more: Sequence[str] = ()) -> Callable[..., Any]:
    """The class or function of a dotted name, if it is trusted. Else nothing is imported.

    Args:
        name: as :func:`dotted_name` gives it.
        where: file and key, for the error.
        more: packages or modules that the caller trusts, beside ``TRUSTED``.

    Raises:
        ValueError: the name is not trusted, or is not that of a class or function. Private names
            (``_api``) and methods that need an object are refused, unless ``more`` has them:
            torchvision's ``WeightsEnum.get_state_dict`` unpickles what its object names.
    """
    if not isinstance(name, str) or not _is_trusted(name, more):
        raise ValueError(_refusal(name, where))
    try:
        found = _walk(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{where} names {name!r}, which is not there ({error})") from error
    # Modules have the modules and functions that they import as attributes.
    home = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', '')}"
    owner = getattr(found, "__self__", None)
    is_code = inspect.isroutine(found) or inspect.isclass(found)
    if (
        not is_code
        or not (owner is None or inspect.isclass(owner))
        or not _is_trusted(home, more)
        or _needs_object(found, name)
    ):
        raise ValueError(_refusal(name, where))
    return found


def _is_trusted(name: str, more: Sequence[str]) -> bool:
    if _below(name, more):
        return True
    private = any(part.startswith("_") for part in name.split("."))
    return not private and _below(name, TRUSTED) and not _below(name, _REFUSED)


def _needs_object(found: Callable[..., Any], name: str) -> bool:
    """Whether it is a method whose first argument, ``self``, a file would choose."""
    if not inspect.isfunction(found):
        return inspect.ismethoddescriptor(found)
    owner = _walk(name.rpartition(".")[0])
    static = inspect.isclass(owner) and inspect.getattr_static(owner, name.rpartition(".")[2])
    return bool(static) and not isinstance(static, staticmethod)


def _below(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _walk(name: str) -> Any:
    """The object of a dotted name. The longest part of it that is a module is imported."""
    parts = name.split(".")
    if not all(part.isidentifier() and not part.startswith("__") for part in parts):
        raise ValueError("expected a dotted name of a class or function")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise ValueError(f"no module {parts[0]}")


def _refusal(name: Any, where: str) -> str:
    package = str(name).partition(".")[0]
    return (
        f"{where} names {name!r}, which is not among the parts that a file of weights may name "
        "(layers, models, data and evaluation of gfocal, detectron2, fvcore, torch and "
        f"torchvision). If you trust the file: trusted_packages=({package!r},), or --trust "
        f"{package} in a command. A config given beside the weights needs no trust"
    )
