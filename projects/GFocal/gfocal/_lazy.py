"""Packages whose public names are imported when they are first used.

So ``import gfocal`` is light, and what needs neither PyTorch nor Detectron2 works without them.
"""

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

__all__ = ["lazy_names", "names_of"]


def names_of(public: Mapping[str, str]) -> dict[str, str]:
    """{name: its module} of a table {module: "its names"}."""
    return {name: module for module, names in public.items() for name in names.split()}


def lazy_names(
    package: str,
    names: Mapping[str, str],
    modules: Collection[str] | None = None,
    hidden: Collection[str] = (),
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the ``__getattr__`` and ``__dir__`` of a package.

    No name may be that of a module of the package: importing the module would take its place.

    Args:
        package: its ``__name__``.
        names: {public name: the module that it is in, relative: ".coco", "..config"}.
        modules: the package's modules that are its attributes too; by default all.
        hidden: modules that are attributes too, and not listed.
    """

    def known_modules() -> Collection[str]:
        if modules is not None:
            return modules
        found = (module.name for module in pkgutil.iter_modules(sys.modules[package].__path__))
        return [name for name in found if not name.startswith("_")]

    def __getattr__(name: str) -> Any:
        if name in names:
            return getattr(importlib.import_module(names[name], package), name)
        # None of Python's own names is a module: no need to look.
        if not name.startswith("__") and name in (*hidden, *known_modules()):
            return importlib.import_module(f"{package}.{name}")
        nearest = [] if name.startswith("_") else difflib.get_close_matches(name, __dir__(), n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")

    def __dir__() -> list[str]:
        own = {name for name in vars(sys.modules[package]) if name.startswith("__")}
        return sorted({*own, *names, *known_modules()})

    return __getattr__, __dir__
