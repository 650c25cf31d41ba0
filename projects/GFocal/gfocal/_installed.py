"""What is installed. Without PyTorch and Detectron2 a part of the package works all the same.

An installation that is broken counts as one: its own error is shown.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

__all__ = [
    "MissingPackageError",
    "absent",
    "explain_absent",
    "is_installed",
    "names_of_absent",
    "needs",
    "require",
]

_NAMES = {"torch": "PyTorch", "detectron2": "Detectron2"}
_HOW = {
    "torch": "PyTorch",
    "detectron2": "Detectron2 (its official build, or tools/install_detectron2.py for a "
    "pure-Python one)",
}
# What the rest of the package needs too. Nothing is said of PyTorch if one of these is missing.
_ALWAYS = ("gfocal", "numpy", "PIL")


class MissingPackageError(ImportError):
    """A package is not installed. The message says which, and how to get it."""


def is_installed(name: str) -> bool:
    """Whether a package can be found; it is not imported. A folder without code, such as the one
    around a clone, is no package."""
    if sys.modules.get(name) is not None:
        return True
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


@functools.cache
def absent() -> tuple[str, ...]:
    """Which of torch and detectron2 are not installed."""
    return tuple(name for name in _NAMES if not is_installed(name))


def names_of_absent() -> str:
    """What is absent, in words: "PyTorch and Detectron2"."""
    return " and ".join(_NAMES[name] for name in absent())


def needs(what: str) -> str:
    """The sentence that something needs what is absent, and how to get it."""
    is_not = "which are not" if len(absent()) > 1 else "which is not"
    how = ", then ".join(_HOW[name] for name in absent())
    return f"{what} needs {names_of_absent()}, {is_not} installed: install {how}"


def require(what: str) -> None:
    """Raises MissingPackageError if PyTorch or Detectron2 is absent.

    Args:
        what: needs them, for the message.
    """
    if absent():
        raise MissingPackageError(needs(what))


def explain_absent() -> None:
    """From now on a module of this package that needs what is absent says so."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds this package's modules where they are; only an import that fails is explained."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{__package__}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module
            vars(spec.loader)["exec_module"] = functools.partial(_run_and_explain, run)
        return spec


def _run_and_explain(run: Callable[[ModuleType], None], module: ModuleType) -> None:
    try:
        run(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _ALWAYS:
            raise
        raise MissingPackageError(needs(module.__name__)) from error
