"""Detections beside Detectron2's Instances of the same numbers."""

import copy

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from gfocal.export import Detections
from gfocal.export.detections import BoxArray


@pytest.fixture
def both() -> tuple[Detections, Instances]:
    boxes = np.array([[0, 1, 4, 5], [2, 2, 2, 9], [1, 0, 8, 8]], np.float32)
    fields = {
        "scores": np.array([0.9, 0.5, 0.25], np.float32),
        "pred_classes": np.array([2, 0, 1]),
        "pred_box_stds": boxes / 8,
    }
    tensors = {name: torch.from_numpy(x) for name, x in fields.items()}
    return (
        Detections((9, 8), pred_boxes=BoxArray(boxes), **fields),
        Instances((9, 8), pred_boxes=Boxes(torch.from_numpy(boxes)), **tensors),
    )


def assert_same(found: Detections, expected: Instances) -> None:
    assert found.image_size == expected.image_size and len(found) == len(expected)
    assert list(found.get_fields()) == list(expected.get_fields())
    for name, values in expected.get_fields().items():
        assert found.has(name) and found.get(name) is getattr(found, name)
        array, tensor = found.get(name), values
        if name == "pred_boxes":
            assert len(array) == len(values)
            assert np.array_equal(array.area(), values.area())
            assert np.array_equal(array.nonempty(), values.nonempty())
            array, tensor = array.tensor, values.tensor
        assert str(array.dtype) == str(tensor.dtype).removeprefix("torch.")
        assert array.shape == tuple(tensor.shape) and np.array_equal(array, tensor)


def test_the_same_names_and_numbers(both):
    found, expected = both
    assert_same(found, expected)
    assert found.to("cpu") is found and found.to(torch.device("cpu")) is found
    for item in (0, -1, slice(1, None), slice(0, 0), [2, 0], [], np.array([1, 1])):
        assert_same(found[item], expected[item])
    assert_same(found[np.int64(1)], expected[1])
    assert_same(found[found.scores > 0.3], expected[expected.scores > 0.3])
    assert_same(found[found.pred_boxes.nonempty()], expected[expected.pred_boxes.nonempty()])


def test_fields_of_ones_own(both):
    found, expected = both
    found.track = expected.track = [7, 8, 9]
    assert found.track == [7, 8, 9] and found.has("track")
    found.scores = found.scores / 2
    assert found[-1].track == [9] and copy.deepcopy(found).track == found.track
    assert found[0].scores.tolist() == [np.float32(0.45)] == found.get("scores")[:1].tolist()
    with pytest.raises(ValueError, match="track has length 1; expected 3 detections"):
        found.track = [1]
    with pytest.raises(AttributeError):
        found.image_size = (1, 1)


def test_instances_of_it(both):
    found, expected = both
    instances = found.to_instances()
    assert type(instances) is Instances and type(instances.pred_boxes) is Boxes
    assert_same(found, instances)
    instances.pred_boxes.tensor.zero_()
    assert_same(found, expected)  # a copy


def test_what_is_not_there(both):
    found, _ = both
    assert not found.has("pred_masks")
    with pytest.raises(AttributeError, match="Detections has no field 'pred_masks'"):
        found.pred_masks  # noqa: B018
    with pytest.raises(AttributeError, match=r"'pred_box_stds': the file was exported without st"):
        Detections((9, 8), scores=found.scores).pred_box_stds  # noqa: B018
    with pytest.raises(KeyError):
        found.get("pred_masks")
    with pytest.raises(IndexError):
        found[3]
    with pytest.raises(ValueError, match="arrays are on the cpu, not on cuda:0"):
        found.to("cuda:0")
    assert "Detections(3 in 9 x 8 pixels; fields: pred_boxes, scores" in repr(found)
