"""Where the names of earlier commits are now, for saved configs (``_target_``) and imports.

They work in this version, with a DeprecationWarning. If an old module is gone, it is made here when
it is imported. If it is still there, it asks :func:`moved_names` for the names that have left it.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

__all__ = ["MOVED", "install", "moved_names"]

# Old module: the modules that have its names now.
MOVED: dict[str, tuple[str, ...]] = {
    "gfocal.backbone": ("gfocal.backbones",),
    "gfocal.box_distribution": (
        "gfocal.modeling.representations",
        "gfocal.modeling.boxes",
        "gfocal.modeling.numerics",
    ),
    "gfocal.checkpoint": ("gfocal.weights", "gfocal.weights.fit"),
    "gfocal.criterion": (
        "gfocal.modeling.criterion",
        "gfocal.modeling.terms",
        "gfocal.modeling.structures",
    ),
    "gfocal.head": ("gfocal.modeling.head",),
    "gfocal.losses": ("gfocal.modeling.losses",),
    "gfocal.matcher": ("gfocal.modeling.matchers",),
    "gfocal.meta_arch": ("gfocal.detectors.gfl",),
    "gfocal.optimize": ("gfocal.export.optimize",),
    "gfocal.postprocess": ("gfocal.modeling.postprocess",),
    "gfocal.quality": ("gfocal.modeling.quality", "gfocal.modeling.numerics"),
    "gfocal.recipes": ("gfocal.modeling.recipes",),
    "gfocal.retinanet": ("gfocal.detectors.retinanet",),
    "gfocal.rng": ("gfocal.process.rng",),
    "gfocal.statistics": ("gfocal.modeling.statistics",),
    "gfocal.structures": ("gfocal.modeling.structures", "gfocal.modeling.numerics"),
    "gfocal.visualization": ("gfocal.inspect",),
    "gfocal.workers": ("gfocal.process.sums",),
    "gfocal.engine.checkpointing": ("gfocal.engine.saving", "gfocal.weights"),
    "gfocal.engine.config_checks": ("gfocal.config",),
    "gfocal.engine.config_io": ("gfocal.config", "gfocal.config.keys"),
    # These are still there.
    "gfocal.data.coco": ("gfocal.data.coco_json", "gfocal.data.coco_evaluation"),
    "gfocal.data.mapper": ("gfocal.data.images",),
    "gfocal.engine.base": (
        "gfocal.engine.steps",
        "gfocal.engine.seed",
        "gfocal.weights",
        "gfocal.config",
    ),
    "gfocal.engine.hooks": (
        "gfocal.engine.ema",
        "gfocal.engine.best",
        "gfocal.engine.validation",
        "gfocal.engine.evaluation",
    ),
}
# Modules with a public name that stays, in another place.
ALIASES = {"gfocal.model_zoo": "gfocal.config.model_zoo"}


def moved_names(module: str) -> Callable[[str], Any]:
    """Returns the ``__getattr__`` of an old module.

    Args:
        module: its name, a key of MOVED.
    """

    def __getattr__(name: str) -> Any:
        for target in () if name.startswith("_") else MOVED[module]:
            found = importlib.import_module(target)
            if hasattr(found, name):
                warnings.warn(
                    f"{module}.{name} is now {target}.{name}; the old name works in this version",
                    DeprecationWarning,
                    stacklevel=2,
                )
                return getattr(found, name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes the old modules that are gone. It is asked after all finders of files."""

    def find_spec(
        self, fullname: str, path: Any, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MOVED and fullname not in ALIASES:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__name__ in ALIASES:
            sys.modules[module.__name__] = importlib.import_module(ALIASES[module.__name__])
            return
        module.__doc__ = f"Now in {', '.join(MOVED[module.__name__])}."
        module.__dict__["__getattr__"] = moved_names(module.__name__)


def install() -> None:
    """Lets the old modules be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
