"""The yacs keys that a detector reads, and a config that was made without them."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["added_keys", "threshold_of_tools"]


@contextlib.contextmanager
def added_keys() -> Iterator[None]:
    """Code inside it reads keys that ``add_gfocal_config`` adds.

    Raises:
        ValueError: one of them is not there; the message says how it gets there.
    """
    try:
        yield
    except (AttributeError, KeyError) as error:  # of yacs: the name of the key alone
        key = str(error).strip("'")
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", key):
            raise
        raise ValueError(
            f"the config has no {key}: it was made without gfocal.config.add_gfocal_config(cfg), "
            "which must be called before merge_from_file. To a tool that makes the config itself, "
            "give a complete yaml: that of cfg.dump() after both, or config.yaml of a training"
        ) from error


def threshold_of_tools(cfg: Any) -> float | None:
    """The score threshold that a tool has set which knows Detectron2's detectors alone, such as
    Detectron2's demo.py: it sets those of all of them. None: no tool has."""
    default = 0.05  # of Detectron2
    theirs = cfg.MODEL.RETINANET.SCORE_THRESH_TEST, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
    return theirs[0] if theirs[0] == theirs[1] != default else None
