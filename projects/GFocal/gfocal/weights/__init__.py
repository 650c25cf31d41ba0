"""Other people's weight files: read safely, renamed by tables, and checked against the model."""

from .checkpointers import (
    GFLCheckpointer,
    StrictCheckpointer,
    WeightsOnlyCheckpointer,
    check_weights,
)
from .convert import (
    convert_checkpoint_to_mmdet,
    convert_imagenet_state_dict,
    convert_mmdet_checkpoint,
    convert_mmdet_state_dict,
    to_mmdet_state_dict,
)
from .description import Description, describe, find_config, read_description
from .fit import check_state_dict, expected_state_dict, find_configs
from .names import DetectorTable
from .reading import load_mmdet_checkpoint, load_weights_only

__all__ = [
    "Description",
    "DetectorTable",
    "GFLCheckpointer",
    "StrictCheckpointer",
    "WeightsOnlyCheckpointer",
    "check_state_dict",
    "check_weights",
    "convert_checkpoint_to_mmdet",
    "convert_imagenet_state_dict",
    "convert_mmdet_checkpoint",
    "convert_mmdet_state_dict",
    "describe",
    "expected_state_dict",
    "find_config",
    "find_configs",
    "load_mmdet_checkpoint",
    "load_weights_only",
    "read_description",
    "to_mmdet_state_dict",
]
