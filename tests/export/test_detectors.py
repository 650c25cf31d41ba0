"""Detectors that are no GFL are exported by the same code: with levels or without, clipped boxes or
not, soft-NMS, one image size."""

import numpy as np
import onnxruntime
import pytest
import torch

from gfocal.export import OnnxPredictor, ParityError, export_model
from gfocal.export.formats import FORMATS
from gfocal.export.network import TensorNetwork
from gfocal.modeling.decoded import Decoded
from gfocal.modeling.representations import GaussianDistance
from gfocal.modeling.suppression import GaussianSoftNMS
from gfocal.modeling.uncertainty import Calibration
from tests.helpers.contract import Blocks, Points, make_spread
from tests.helpers.exported import found_by, pictures

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = {"blocks": Blocks, "points": Points}
by_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
by_format = pytest.mark.parametrize("format", FORMATS)


@pytest.mark.parametrize("topk", [3, 1000])
# Boxes of points have no area, and so no IoU.
@pytest.mark.parametrize(("kind", "nms"), [(Points, 1.0), (Blocks, 1.0), (Blocks, 0.3)])
def test_it_finds_what_the_detector_finds(kind, nms, topk):
    torch.manual_seed(1)
    calibration = Calibration(1.0, (0, 0.3, 0.7, 1), (0, 0.1, 0.8, 0.9))
    model = make_spread(kind, test_topk_candidates=topk, test_nms_thresh=nms)
    for model.postprocess.calibration in (None, calibration):
        images = pictures(3, 70, 90)
        ours = found_by(model, images)
        with torch.no_grad():
            theirs = TensorNetwork(model)(images)
        assert len(ours[0]) >= 9 and len(theirs) == 4
        for a, b in zip(ours, theirs):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_boxes_are_clipped_where_the_detector_clips():
    boxes, *_ = TensorNetwork(make_spread(Blocks))(pictures())
    assert boxes.min() == 0 and (boxes[:, 2:] > boxes[:, :2]).all()
    boxes, *_ = TensorNetwork(make_spread(Points))(pictures())
    assert boxes.min() < 0 and (boxes[:, 2] < boxes[:, 0]).any()


@by_kind
def test_outside_preprocessing(kind):
    """Only boxes that are clipped ask where an image ends."""
    model = make_spread(kind)
    network = TensorNetwork(model, preprocessing="outside")
    images = [pictures(1, 70, 90)[0], pictures(1, 95, 33)[0]]
    batch = model.preprocess_image([{"image": image} for image in images])
    sizes = [torch.tensor(batch.image_sizes)] if kind is Blocks else []
    assert network.input_names == ["images", "image_sizes"][: 1 + len(sizes)]
    for a, b in zip(found_by(model, images), network(batch.tensor, *sizes)):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@by_kind
@by_format
@pytest.mark.parametrize("level", ["raw", "decoded", "full"])
def test_files(kind, format, level, tmp_path):
    path = tmp_path / f"model{FORMATS[format].suffix}"
    rows = export_model(make_spread(kind), path, format=format, level=level)
    assert all(row.found for row in rows)
    card = FORMATS[format].read(str(path)).card
    assert card.clips_boxes == (kind is Blocks) and not card.stds and list(card.strides) == []
    assert (
        list(card.outputs)
        == {
            "raw": ["map_p3", "map_p4"] if kind is Blocks else ["map_p3"],
            "decoded": ["boxes", "scores"],
            "full": ["boxes", "scores", "classes", "image_idxs"],
        }[level]
    )


def test_soft_nms_ends_at_decoded(tmp_path):
    model = make_spread(Blocks, suppression=GaussianSoftNMS())
    with pytest.raises(TypeError, match="GaussianSoftNMS.*Level 'decoded' ends before it"):
        export_model(model, tmp_path / "model.onnx")
    assert export_model(model, tmp_path / "model.onnx", level="decoded")


@pytest.mark.parametrize("change", [lambda x: x + 0.01, lambda x: 0.99 * x])
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("suppression", [None, GaussianSoftNMS()])
def test_a_decode_of_its_own_is_refused(index, change, suppression, tmp_path, monkeypatch):
    """`decode` that is not what `inference` does."""
    model = make_spread(Blocks, suppression=suppression)
    decode_levels = Blocks.decode_levels

    def wrong(self, images):
        found = list(decode_levels(self, images))
        found[index] = change(found[index])
        return type(decode_levels(self, images))(*found)

    monkeypatch.setattr(Blocks, "decode_levels", wrong)
    lowers_what_is_higher = suppression is not None and index == 1 and change(1.0) > 1
    if lowers_what_is_higher:  # a soft-NMS could have lowered it
        export_model(model, tmp_path / "model.ts", format="torchscript", level="decoded")
        return
    with pytest.raises(ParityError):
        export_model(model, tmp_path / "model.ts", format="torchscript", level="decoded")


def test_detectors_without_a_level():
    model = make_spread(Blocks)
    with pytest.raises(ValueError, match="stds of a Blocks: it has no standard deviation"):
        TensorNetwork(model, stds=True)

    class Unread(Blocks):
        box_representation = GaussianDistance()

    model = make_spread(Unread)
    assert not TensorNetwork(model).stds
    for level, method in (("raw", "`raw`"), ("decoded", "decode_levels"), ("full", "decode_lev")):
        with pytest.raises(ValueError, match=f"stds of a Unread: its {method}"):
            TensorNetwork(model, level, stds=True)

    class Bare(Blocks):
        raw = Blocks.__mro__[1].raw
        decode_levels = Blocks.__mro__[1].decode_levels
        decode = Blocks.__mro__[1].decode

    for level in ("raw", "decoded", "full"):
        with pytest.raises(TypeError, match=f"Bare has no `raw` or `decode`, .* level '{level}'"):
            TensorNetwork(Bare(), level)


# One image size.


class OneSize(Blocks):
    """Its networks fail on others, and a number is of the size."""

    def maps(self, images):
        if images.shape[-2:] != (64, 96):
            raise RuntimeError(f"Kernel size can't be greater than {tuple(images.shape)}")
        return super().maps(images)


RESIZE = {"height": 64, "width": 96}


def test_another_size_is_refused():
    with pytest.raises(
        ValueError, match=r"OneSize does not take an image of 192 x 256 px \(Kernel"
    ):
        TensorNetwork(make_spread(OneSize))
    with pytest.raises(ValueError, match=r"one Resize as the test augmentations"):
        TensorNetwork(make_spread(OneSize))
    with pytest.raises(ValueError, match=r"an image of 32 x 96 px \(Kernel size .*\)$"):
        TensorNetwork(make_spread(OneSize), image_size=(32, 96))


@by_format
@pytest.mark.parametrize("preprocessing", ["inside", "outside"])
def test_a_file_for_one_size(format, preprocessing, tmp_path):
    path = tmp_path / f"model{FORMATS[format].suffix}"
    options = {"format": format, "preprocessing": preprocessing, "resize": RESIZE}
    rows = export_model(make_spread(OneSize), path, **options)
    assert {row.shape[1:] for row in rows} == {(64, 96)} and {row.shape[0] for row in rows} == {
        1,
        3,
    }


@pytest.mark.parametrize("preprocessing", ["inside", "outside"])
def test_an_application_resizes_to_it(preprocessing, tmp_path):
    """Without keeping the ratio, as Detectron2's Resize; boxes come back in pixels of the image."""
    from detectron2.data.transforms import Resize

    model, path = make_spread(OneSize), tmp_path / "model.onnx"
    export_model(model, path, preprocessing=preprocessing, resize=RESIZE)
    shape = onnxruntime.InferenceSession(path).get_inputs()[0].shape
    assert shape[2:] == [64, 96] and not isinstance(shape[0], int)
    predictor = OnnxPredictor(path)
    image = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    resized = Resize((64, 96)).get_transform(image).apply_image(image)
    tensor = torch.tensor(resized.transpose(2, 0, 1).copy(), dtype=torch.float32)
    with torch.no_grad():
        (expected,) = model([{"image": tensor, "height": 50, "width": 40}])
    for found in (predictor(image), predictor([image, image])[1]):
        found = found["instances"]
        assert len(found) == len(expected["instances"]) > 3
        boxes = expected["instances"].pred_boxes.tensor.numpy()
        np.testing.assert_allclose(found.pred_boxes.tensor, boxes, atol=1e-3)
    with pytest.raises(
        ValueError, match="model.onnx is for images of 64 x 96 px; got one of 8 x 8"
    ):
        predictor.detect([{"image": np.zeros((3, 8, 8), np.float32), "height": 8, "width": 8}])


class Pairs(Blocks):
    """Its candidates come in the order of their scores; as CornerNet's."""

    gain = 1.0

    def scores(self, predictions):
        return self.gain * super().scores(predictions)

    def decode_levels(self, images):
        found = super().decode_levels(images)
        best = found.scores.amax(dim=-1).topk(120, dim=1).indices[..., None]
        boxes, scores = (
            x.gather(1, best.expand(-1, -1, x.shape[-1])) for x in (found.boxes, found.scores)
        )
        return Decoded(boxes, scores, [120])


def test_ranked_candidates(tmp_path):
    """Where none has a score, nothing was compared."""
    options = {"format": "torchscript", "level": "decoded", "resize": RESIZE}
    model = make_spread(Pairs, max_detections_per_image=3, suppression=GaussianSoftNMS())
    assert [row.found for row in export_model(model, tmp_path / "m.ts", **options)] == [
        120,
        360,
    ]
    model.gain = 0.0
    with pytest.raises(ParityError, match="could not be compared.*no score is above 0.0001"):
        export_model(model, tmp_path / "m.ts", **options)
