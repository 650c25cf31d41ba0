"""Other people's weight files: read safely, renamed by tables, and checked against the model."""

from .convert import (
    GFLCheckpointer,
    WeightsOnlyCheckpointer,
    check_state_dict,
    convert_checkpoint_to_mmdet,
    convert_imagenet_state_dict,
    convert_mmdet_checkpoint,
    convert_mmdet_state_dict,
    expected_state_dict,
    find_configs,
    load_mmdet_checkpoint,
    load_weights_only,
    to_mmdet_state_dict,
)

__all__ = [
    "GFLCheckpointer",
    "WeightsOnlyCheckpointer",
    "check_state_dict",
    "convert_checkpoint_to_mmdet",
    "convert_imagenet_state_dict",
    "convert_mmdet_checkpoint",
    "convert_mmdet_state_dict",
    "expected_state_dict",
    "find_configs",
    "load_mmdet_checkpoint",
    "load_weights_only",
    "to_mmdet_state_dict",
]
