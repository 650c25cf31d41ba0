"""Images are padded as the backbone asks: to multiples of a size, or to a square."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling.backbone import Backbone

from gfocal._padding import Padding
from gfocal.export import OnnxPredictor, export_model
from tests.helpers.spread import make_spread_gfl
from tests.helpers.tiny import TinyBackbone, make_gfl, make_input

pytestmark = pytest.mark.usefixtures("one_thread")
KNOWN_TO_DETECTRON2 = hasattr(Backbone, "padding_constraints")


class SquareBackbone(TinyBackbone):
    """As ViTDet's SimpleFeaturePyramid with square_pad=256: each place has an embedding too."""

    def __init__(self):
        super().__init__()
        self.square_size = 256
        for level, side in (("p3", 32), ("p4", 16)):
            self.register_buffer(level, torch.randn(self.channels, side, side))

    @property
    def padding_constraints(self):
        return {"square_size": self.square_size}

    def forward(self, x):
        return {level: y + getattr(self, level) for level, y in super().forward(x).items()}


@pytest.mark.parametrize(
    ("constraints", "divisibility", "expected"),
    [
        (None, 0, (192, 188)),
        ({}, 32, (192, 192)),
        ({"square_size": 0}, 64, (192, 192)),
        ({"square_size": 250, "size_divisibility": 16}, 32, (256, 256)),
        ({"size_divisibility": 100}, 32, (200, 200)),
        ({"size_divisiblity": 32, "square_size": 0}, 0, (192, 192)),  # SimpleFeaturePyramid's
    ],
)
def test_by_hand(constraints, divisibility, expected):
    backbone = SimpleNamespace(size_divisibility=divisibility)
    if constraints is not None:  # Detectron2 0.5 has none
        backbone.padding_constraints = constraints
    assert Padding.of(backbone).size((192, 188)) == expected


def test_a_box_in_the_last_columns_has_positives():
    """Without the padding they have no location."""
    model = make_gfl(backbone=SquareBackbone(), ignore_padding=True)
    inputs = [make_input(192, 188, [[176.5, 60, 187.5, 124]], [1]), make_input(100, 60)]
    images = model.preprocess_image(inputs)
    assert images.tensor.shape == (2, 3, 256, 256)
    assert images.image_sizes == [(192, 188), (100, 60)]
    assert torch.equal(images[0], (inputs[0]["image"] - model.pixel_mean) / model.pixel_std)
    assert not images.tensor[0, :, :, 188:].any() and not images.tensor[1, :, 100:].any()
    anchors, predictions = model.predict(images.tensor)
    truth = model.ground_truth(inputs, images.image_sizes)
    targets = model.label_anchors(anchors, predictions, truth)
    # All of the square belongs to an image, as in Detectron2's FCOS: background, not ignored.
    assert (targets.labels == 1).any() and not (targets.labels < 0).any()
    assert all(x.isfinite() for x in model(inputs).values())


@pytest.mark.skipif(not KNOWN_TO_DETECTRON2, reason="this Detectron2 has no padding_constraints")
def test_as_detectron2s_fcos():
    from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead

    backbone = SquareBackbone()
    shapes = [backbone.output_shape()[x] for x in ("p3", "p4")]
    fcos = FCOS(
        backbone=backbone,
        head=FCOSHead(input_shape=shapes, num_classes=3, conv_dims=[8]),
        head_in_features=["p3", "p4"],
        num_classes=3,
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    model = make_gfl(backbone=backbone)
    for sizes in ([(192, 188)], [(100, 256), (7, 30)]):
        inputs = [make_input(*size) for size in sizes]
        theirs, ours = fcos.preprocess_image(inputs), model.preprocess_image(inputs)
        assert torch.equal(ours.tensor, theirs.tensor)
        assert ours.image_sizes == [tuple(x) for x in theirs.image_sizes]


@pytest.mark.parametrize("training", [True, False])
def test_an_image_larger_than_the_square(training):
    model = make_gfl(backbone=SquareBackbone()).train(training)
    inputs = make_input(80, 257, image_id=7, file_name="seven.jpg")
    message = (
        r"image 7 \(seven.jpg\) has 80 x 257 px in the network, and the backbone pads to 256 x 256"
    )
    with pytest.raises(ValueError, match=message):
        model([inputs])


@pytest.mark.parametrize("preprocessing", ["inside", "outside"])
def test_an_exported_file_pads_too(preprocessing, tmp_path):
    """An export compares the file with the detector on images of several sizes."""
    torch.manual_seed(0)
    path = tmp_path / "model.onnx"
    model = make_spread_gfl(backbone=SquareBackbone())
    export_model(model, path, format="onnx", preprocessing=preprocessing, resize={})
    predictor = OnnxPredictor(path)
    assert predictor.card.padding == Padding(16, 256)
    assert "square_size" in json.loads(predictor.card.to_json())
    image = np.random.randint(0, 256, (192, 188, 3), dtype=np.uint8)
    found = predictor(image)["instances"]
    inputs = {"image": torch.as_tensor(image.transpose(2, 0, 1).copy())}
    with torch.no_grad():
        expected = model([inputs])[0]["instances"]
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    with pytest.raises(ValueError, match="has 257 x 10 px in the network"):
        predictor(np.zeros((257, 10, 3), np.uint8))
