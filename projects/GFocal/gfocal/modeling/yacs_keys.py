"""The yacs keys that a detector reads, and a config that was made without them."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["added_keys", "score_thresh"]


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


def score_thresh(cfg: Any) -> Any:
    """MODEL.GFL.SCORE_THRESH_TEST. A tool that knows Detectron2's detectors alone, such as its
    demo.py, sets the threshold of all of them: then it is that one.

    Raises:
        ValueError: the threshold of one of them alone is changed, which no tool does.
    """
    default = 0.05  # of Detectron2
    retinanet, rcnn = (cfg.MODEL[name].SCORE_THRESH_TEST for name in ("RETINANET", "ROI_HEADS"))
    if retinanet != rcnn:
        raise ValueError(
            f"MODEL.RETINANET.SCORE_THRESH_TEST is {retinanet!r} and MODEL.ROI_HEADS."
            f"SCORE_THRESH_TEST is {rcnn!r}, and GFL reads neither; expected "
            "MODEL.GFL.SCORE_THRESH_TEST, or the same in both, as tools set it"
        )
    return cfg.MODEL.GFL.SCORE_THRESH_TEST if retinanet == default else retinanet
