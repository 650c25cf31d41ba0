"""The tensor-only network finds what the detector finds, to the bit where both run in PyTorch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfocal.export.network import TensorNetwork
from gfocal.export.nms import kept_by_nms
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.numerics import joint_logits
from gfocal.modeling.postprocess import NMSPostProcess
from gfocal.modeling.quality import NoQuality
from gfocal.modeling.representations import DiracDistance, GaussianDistance, GeneralDistribution
from gfocal.modeling.suppression import GaussianSoftNMS, HardNMS
from gfocal.modeling.terms import GIoULoss, QualityFocalLoss
from gfocal.modeling.uncertainty import Calibration
from tests.helpers.exported import found_by, pictures
from tests.helpers.spread import make_spread_gfl
from tests.helpers.tiny import make_head

pytestmark = pytest.mark.usefixtures("one_thread")


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 3),
    height=st.integers(1, 130),
    width=st.integers(1, 130),
    thresh=st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.999, [0.1, 0.6, 0.0], {1: 0.4}]),
    topk=st.sampled_from([1, 3, 20, 1000]),
    limit=st.sampled_from([1, 5, 100]),
    iou=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    agnostic=st.booleans(),
    calibration=st.sampled_from([None, Calibration(0.4, (0, 0.3, 0.7, 1), (0, 0.1, 0.8, 0.9))]),
)
def test_it_finds_what_the_detector_finds(
    seed, count, height, width, thresh, topk, limit, iou, agnostic, calibration
):
    torch.manual_seed(seed)
    post = NMSPostProcess(
        score_thresh=thresh,
        topk_candidates=topk,
        max_detections=limit,
        suppression=HardNMS(iou, class_agnostic=agnostic),
        calibration=calibration,
    )
    model = make_spread_gfl(postprocess=post)
    images = pictures(count, height, width)
    with torch.no_grad():
        outputs = TensorNetwork(model)(images)
    assert_same(found_by(model, images), outputs)


def test_nothing_is_found():
    model = make_spread_gfl(test_score_thresh=0.9999)
    boxes, scores, classes, image_idxs, stds = TensorNetwork(model)(pictures())
    assert boxes.shape == stds.shape == (0, 4)
    assert scores.shape == classes.shape == image_idxs.shape == (0,)


def test_images_of_two_sizes_in_one_batch():
    """With the preprocessing outside, image_sizes says where each image ends."""
    model = make_spread_gfl()
    images = [pictures(1, 70, 90)[0], pictures(1, 95, 33)[0]]
    batch = model.preprocess_image([{"image": image} for image in images])
    assert batch.tensor.shape == (2, 3, 96, 96)
    with torch.no_grad():
        outputs = TensorNetwork(model, preprocessing="outside")(
            batch.tensor, torch.tensor(batch.image_sizes)
        )
    boxes, _, _, image_idxs, _ = outputs
    assert_same(found_by(model, images), outputs)
    assert boxes[image_idxs == 1, 2].max() == 33 and boxes[image_idxs == 0, 2].max() > 33


def test_decoded_is_dense():
    model = make_spread_gfl()
    images = pictures(2, 70, 90)
    with torch.no_grad():
        boxes, scores, stds = TensorNetwork(model, "decoded", stds=True)(images)
        _, anchors, predictions = model.forward_dense([{"image": image} for image in images])
    locations = 12 * 10 + 6 * 5  # of 96 x 80 pixels
    assert boxes.shape == stds.shape == (2, locations, 4) and scores.shape == (2, locations, 3)
    expected = joint_logits(predictions.cls_logits, predictions.quality_logits).sigmoid()
    torch.testing.assert_close(scores, expected, rtol=0, atol=0)
    distances = model.head.box_representation(predictions.box_logits)
    expected = anchors.decode(distances).clamp(min=0)
    expected[..., 0::2].clamp_(max=90)
    expected[..., 1::2].clamp_(max=70)
    torch.testing.assert_close(boxes, expected)
    # In pixels: the same distribution on the second level is twice as wide.
    in_strides = model.head.box_representation.std(predictions.box_logits)
    torch.testing.assert_close(stds[:, :120], 8 * in_strides[:, :120])
    torch.testing.assert_close(stds[:, 120:], 16 * in_strides[:, 120:])


def test_raw_has_the_logits_of_each_level():
    model = make_spread_gfl()
    network = TensorNetwork(model, "raw")
    names = ["cls_logits", "box_logits", "quality_logits"]
    assert network.output_names == [f"{name}_{level}" for name in names for level in ("p3", "p4")]
    with torch.no_grad():
        outputs = dict(zip(network.output_names, network(pictures(2, 70, 90))))
    shapes = {name: tuple(x.shape) for name, x in outputs.items()}
    assert shapes["cls_logits_p3"] == (2, 120, 3) and shapes["cls_logits_p4"] == (2, 30, 3)
    assert shapes["box_logits_p4"] == (2, 30, 4, 17) and shapes["quality_logits_p4"] == (2, 30, 1)
    assert (
        len(TensorNetwork(make_spread_gfl(quality_predictor=NoQuality()), "raw").output_names) == 4
    )


def test_stds_of_detections():
    """Those of the dense output, at the locations of the detections."""
    model = make_spread_gfl()
    images = pictures(2, 70, 90)
    with torch.no_grad():
        stds = TensorNetwork(model, stds=True)(images)[-1]
        dense = TensorNetwork(model, "decoded", stds=True)(images)[-1]
        found = [x["instances"] for x in model([{"image": image} for image in images])]
    expected = torch.cat([dense[i, x.anchor_idxs] for i, x in enumerate(found)])
    torch.testing.assert_close(stds, expected, rtol=0, atol=0)


def make_boxes_only(representation):
    criterion = GFLCriterion(cls_loss=QualityFocalLoss(), box_loss=GIoULoss())
    return make_spread_gfl(head=make_head(3, NoQuality(), representation), criterion=criterion)


def test_stds_are_there_where_they_are_free():
    """Of detections, if the detector gives them. Elsewhere on request."""
    model = make_spread_gfl()
    for level in ("raw", "decoded", "full"):
        assert TensorNetwork(model, level).stds == (level == "full")
        assert not TensorNetwork(model, level, stds=False).stds
    assert TensorNetwork(make_boxes_only(GaussianDistance())).stds
    dirac = make_boxes_only(DiracDistance())
    network = TensorNetwork(dirac)
    assert not network.stds and len(network(pictures())) == len(network.output_names) == 4
    with pytest.raises(ValueError, match="stds of a DiracDistance: it has no standard deviation"):
        TensorNetwork(dirac, stds=True)
    model.postprocess.stds = False
    assert not TensorNetwork(model).stds
    with pytest.raises(ValueError, match="whose postprocess has stds=False; set it to True"):
        TensorNetwork(model, stds=True)
    assert TensorNetwork(model, "decoded", stds=True).stds


def test_only_the_stds_of_detections_are_computed(monkeypatch):
    model = make_spread_gfl()
    seen = []
    std = GeneralDistribution.std
    monkeypatch.setattr(
        GeneralDistribution, "std", lambda self, x: (seen.append(x.shape), std(self, x))[1]
    )
    boxes, *_ = TensorNetwork(model)(pictures())
    assert seen == [(len(boxes), 4, 17)] and len(boxes) < 2 * 150  # of 150 locations an image


def test_half_precision_ends_before_the_integral():
    """Backbone and head compute in float16. Softmax, expectation, DGQP and scores do not."""
    model = make_spread_gfl()
    network = TensorNetwork(model, "decoded", dtype=torch.float16)
    assert next(network.detector.backbone.parameters()).dtype == torch.float16
    assert network.detector.head.cls_logits.weight.dtype == torch.float16
    assert network.detector.head.quality_predictor.fc1.weight.dtype == torch.float32
    seen = []
    softmax = torch.Tensor.softmax
    try:
        torch.Tensor.softmax = lambda x, dim: (seen.append(x.dtype), softmax(x, dim))[1]
        boxes, scores = network(pictures())
    finally:
        torch.Tensor.softmax = softmax
    assert seen == [torch.float32] * 3  # DGQP of two levels, the integral
    assert boxes.dtype == scores.dtype == torch.float32
    reference = TensorNetwork(model, "decoded")
    assert next(model.parameters()).dtype == torch.float32  # a copy was changed
    torch.manual_seed(1)
    images = pictures()
    assert (network(images)[1] - reference(images)[1]).abs().max() < 0.02


def test_nms_by_hand():
    """Two images and two classes; boxes overlap by 0.8 or not at all."""
    a, b, c = [0.0, 0, 10, 10], [0.0, 0, 10, 8], [20.0, 20, 30, 30]
    boxes = torch.tensor([[a, b, c, a], [a, b, c, a]])
    scores = torch.tensor([[0.5, 0.9, 0.1, 0.7], [0.8, 0.2, -1.0, -1.0]])
    classes = torch.tensor([[0, 0, 0, 1], [1, 0, 0, 1]])
    kept = kept_by_nms(boxes, scores, classes, 0.6, 2, 100)
    assert kept.tolist() == [[False, True, True, True], [True, True, False, False]]
    one_class = torch.zeros_like(classes)
    kept = kept_by_nms(boxes, scores, one_class, 0.6, 1, 100)
    assert kept.tolist() == [[False, True, True, False], [True, False, False, False]]
    kept = kept_by_nms(boxes, scores, one_class, 0.9, 1, 100)
    assert kept.tolist() == [[False, True, True, True], [True, True, False, False]]


def test_what_has_no_tensor_form_is_refused():
    with pytest.raises(TypeError, match="got a Linear; gfocal export is for the detectors of"):
        TensorNetwork(torch.nn.Linear(1, 1))
    soft = make_spread_gfl(suppression=GaussianSoftNMS())
    with pytest.raises(TypeError, match="GaussianSoftNMS.*Level 'decoded' ends before it"):
        TensorNetwork(soft)
    TensorNetwork(soft, "decoded")
    other = make_spread_gfl(postprocess=lambda anchors, predictions, sizes: [])
    with pytest.raises(TypeError, match="postprocess is a function"):
        TensorNetwork(other)
    with pytest.raises(ValueError, match="level is 'dense'; expected one of raw, decoded, full"):
        TensorNetwork(soft, "dense")
    with pytest.raises(ValueError, match="preprocessing is 'no'"):
        TensorNetwork(soft, "decoded", preprocessing="no")


def test_another_grid_of_anchors_is_refused():
    model = make_spread_gfl()
    model.anchor_generator.offset = 0.5  # its boxes are made from it, too: both agree
    TensorNetwork(model, "decoded")

    class Moved(type(model.anchor_generator)):
        pass

    model.anchor_generator.__class__ = Moved
    with pytest.raises(TypeError, match="the anchor generator is a Moved"):
        TensorNetwork(model, "decoded")
    model = make_spread_gfl()
    for cell in model.anchor_generator.cell_anchors:
        cell += 1.0
    with pytest.raises(TypeError, match="not at \\(index \\+ offset\\) \\* stride"):
        TensorNetwork(model, "decoded")


def test_a_head_that_leaves_the_reading_to_the_detector():
    """Its predictions name no box representation; the head has one."""
    head = make_head(3)
    model = make_spread_gfl(head=head)
    head.register_forward_hook(lambda part, x, out: out._replace(box_representation=None))
    images = pictures()
    with torch.no_grad():
        outputs = TensorNetwork(model)(images)
    assert_same(found_by(model, images), outputs)


def test_a_backbone_without_divisibility():
    model = make_spread_gfl()
    model.backbone.__class__ = type("Any", (type(model.backbone),), {"size_divisibility": 0})
    images = pictures(2, 64, 96)
    with torch.no_grad():
        outputs = TensorNetwork(model)(images)
    assert_same(found_by(model, images), outputs)
