"""Who builds a model: this package's trainers, which read its yacs keys, or another's."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import attrgetter
from typing import Any

__all__ = ["TRAINER_KEYS", "built_here", "warn_of_keys_for_trainers"]

# yacs keys that this package adds and its trainers alone act on.
TRAINER_KEYS = (
    "DETERMINISTIC",
    "INPUT.AUGMENTATIONS",
    "MODEL.CHANNELS_LAST",
    "SOLVER.ACCUMULATE",
    "SOLVER.EMA_DECAY",
    "TEST.BEST_METRIC",
    "TEST.EARLY_STOP_PATIENCE",
    "TEST.RELIABILITY",
    "TEST.VALIDATION_LOSS",
)
_here = ContextVar("built_here", default=False)


@contextmanager
def built_here() -> Iterator[None]:
    """Models that are built inside it are built by this package."""
    token = _here.set(True)
    try:
        yield
    finally:
        _here.reset(token)


def warn_of_keys_for_trainers(cfg: Any) -> None:
    """Warns if a config asks for what this package's trainers do, and another builds its model.

    Args:
        cfg: a yacs config.
    """
    if _here.get():
        return
    asked = []
    for key in TRAINER_KEYS:
        try:
            value = attrgetter(key)(cfg)
        except AttributeError:  # without add_gfocal_config
            continue
        # SOLVER.ACCUMULATE 1: none. INPUT.AUGMENTATIONS "default": what every trainer has.
        if value is True or (value and value not in (1, "default")):
            asked.append(f"{key} ({value!r})")
    if asked:
        logging.getLogger(__name__).warning(
            f"{', '.join(asked)}: gfocal's own trainers act on this, and no other does. The model "
            "is being built by another's code. To train: gfocal train, or gfocal.Trainer"
        )
