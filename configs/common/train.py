"""The options of a training (docs/training.md), with the periods of Detectron2's own
configs/common/train.py and a device that is there."""

from gfocal.config import resolve_device, train_node

train = train_node(
    device=resolve_device().type,
    eval_period=5000,
    checkpointer=dict(max_to_keep=100),
)
