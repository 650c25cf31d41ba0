"""A file whose images come into the middle of a larger one, as for CenterNet."""

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T

from gfocal.data.mapper import resize_of
from gfocal.data.placement import content_of
from gfocal.data.transforms import CenterPad
from gfocal.export import OnnxPredictor, export_model
from gfocal.export.card import ModelCard
from tests.helpers.contract import Points, make_spread
from tests.helpers.onnx_files import make_card

pytestmark = pytest.mark.usefixtures("one_thread")


def test_augmentations_as_numbers():
    pad = {"multiple": 127, "extra": 0, "mean": [1.0, 2.0, 3.5]}
    assert resize_of([CenterPad([1, 2, 3.5], 127, 0)]) == {"center_pad": pad}
    assert resize_of([T.Resize((300, 200))]) == {"height": 300, "width": 200}
    assert resize_of([T.Resize(512)]) == {"height": 512, "width": 512}
    assert resize_of([T.Resize(512), CenterPad()]) is None
    assert resize_of([T.Resize(512, interp=0)]) is None


@pytest.mark.parametrize("mean", [[0.0], [100.0, 50.5, 7.0]])
@pytest.mark.parametrize("size", [(50, 40), (64, 33), (31, 63)])
def test_an_application_finds_what_the_detector_finds(mean, size, tmp_path):
    """In pixels of the image, not clipped to it."""
    model, path = make_spread(Points), tmp_path / "model.onnx"
    pad = CenterPad(mean)
    export_model(model, path, resize=resize_of([pad]))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    inputs = T.AugInput(image)
    transforms = T.AugmentationList([pad])(inputs)
    tensor = torch.tensor(inputs.image.transpose(2, 0, 1).copy(), dtype=torch.float32)
    sizes = {"height": size[0], "width": size[1], **content_of(transforms)}
    predictor = OnnxPredictor(path)
    ours = predictor.preprocess(image)
    np.testing.assert_array_equal(ours["image"], tensor)
    assert {name: ours[name] for name in sizes} == sizes
    assert predictor.resized(size) == tuple(tensor.shape[1:])
    with torch.no_grad():
        (expected,) = model([{"image": tensor, **sizes}])
    found, expected = predictor(image)["instances"], expected["instances"]
    assert len(found) == len(expected) > 3 and found.image_size == size
    boxes = expected.pred_boxes.tensor.numpy()
    np.testing.assert_allclose(found.pred_boxes.tensor, boxes, atol=1e-3)
    assert boxes.min() < 0 and not found.pred_boxes.nonempty().all()


@pytest.mark.parametrize(
    "rule",
    [
        {"center_pad": {"multiple": 31, "extra": 1}},
        {"center_pad": {"multiple": 31, "extra": -1, "mean": [0]}},
        {"center_pad": {"multiple": 31, "extra": 1, "mean": 0}},
        {"center_pad": 31},
        {"height": 1.5, "width": 2},
    ],
)
def test_a_wrong_rule_is_refused(rule):
    text = make_card(resize=rule).to_json()
    with pytest.raises(ValueError, match="its metadata 'gfocal' resize is"):
        ModelCard.from_json(text, "model.onnx")
