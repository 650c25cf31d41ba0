"""MODEL.DISTILLATION: the keys of a student and of its teacher."""

from detectron2.config import CfgNode as CN

from ..modeling.yacs_distillation import DEFAULTS

__all__ = ["distillation_node"]


def distillation_node() -> CN:
    """The keys of MODEL.META_ARCHITECTURE "DistilledGFL", beside those of MODEL.GFL."""
    node = CN()
    # TEACHER: "frozen", the model of CONFIG (a name of the zoo or a file; "": the weights carry it)
    # with the weights in WEIGHTS; or "ema", the average of the student's own, SOLVER.EMA_DECAY.
    # The weights of the losses, and whether these are means, are those of docs/distillation.md.
    for key, default in DEFAULTS.items():
        node[key] = default
    return node
