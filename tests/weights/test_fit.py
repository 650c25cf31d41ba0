"""Which model weights are of, and what is wrong with them."""

import pytest
import torch

from gfocal import model_zoo
from gfocal.weights import check_state_dict, expected_state_dict, find_configs
from gfocal.weights.fit import is_optional


@pytest.mark.parametrize("name", ["gflv2_R_50_FPN_1x", "gfl_X_101_32x4d_FPN_ms_2x"])
def test_which_published_model_it_is(name):
    cfg = model_zoo.get_config(f"COCO-Detection/{name}.py").model
    cfg.num_classes = 5
    found, problems = find_configs(expected_state_dict(cfg))
    same = [name, "gflv2_R_50_FPN_ms_2x"] if "R_50" in name else [name]
    assert found == [f"COCO-Detection/{other}.py" for other in same] and problems == {}


def test_a_part_of_another_detector():
    """Smaller detectors have fewer weights that it lacks."""
    config = "COCO-Detection/fovea_R_50_FPN_1x.py"
    cfg = model_zoo.get_config(config).model
    cfg.num_classes = 5
    expected = expected_state_dict(cfg)
    head = {key: value for key, value in expected.items() if key.startswith("head.")}
    found, problems = find_configs(head)
    assert found == [config]
    assert problems.keys() == {key for key in expected if key not in head and not is_optional(key)}


def test_check_state_dict():
    expected = {"a": torch.zeros(2), "b": torch.zeros(3), "x.num_batches_tracked": torch.zeros(())}
    got = {
        "a": torch.zeros(4),
        "c": torch.zeros(1),
        "anchor_generator.cell_anchors.0": torch.ones(1),
    }
    assert check_state_dict(expected, expected) == {}
    assert check_state_dict(got, expected) == {
        "a": "(4,) in the file, (2,) in the model",
        "b": "missing in the file",
        "c": "not in the model",
    }
