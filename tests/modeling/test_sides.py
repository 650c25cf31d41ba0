"""What detections say of their sides: by hand, in the pixels of the output, and without changing
the detections."""

import math

import pytest
import torch
from detectron2.structures import Boxes, Instances

from gfocal.detectors import AugmentedDetector
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.postprocess import NMSPostProcess
from gfocal.modeling.quality import NoQuality
from gfocal.modeling.representations import DiracDistance, GaussianDistance, GeneralDistribution
from gfocal.modeling.sides import in_output, side_distributions, side_stds
from gfocal.modeling.structures import DenseAnchors, DensePredictions
from gfocal.modeling.terms import GIoULoss, QualityFocalLoss
from gfocal.modeling.uncertainty import Calibration
from tests.helpers.spread import make_spread_gfl
from tests.helpers.tiny import make_head


def one_location(box_logits, representation):
    """Anchors of one location at (20, 12) with stride 8, and predictions of it."""
    anchors = DenseAnchors(torch.tensor([[-12.0, -20, 52, 44]]), torch.tensor([8.0]), [(1, 1)])
    return anchors, DensePredictions(
        torch.zeros(1, 1, 2), box_logits[None, None], None, representation
    )


def test_stds_and_distributions_by_hand():
    """Bins 0, 1, 2 of half a stride, 4 px. Left: half on bin 0, half on bin 2, std of one bin.
    Top: all on bin 1. Right: uniform, std sqrt(2/3) of a bin. Bottom: half on 1, half on 2, half a
    bin."""
    inf = math.inf
    logits = torch.tensor([[0.0, -inf, 0.0], [-inf, 0.0, -inf], [0.0, 0, 0], [-inf, 0, 0]])
    inputs = one_location(logits, GeneralDistribution(2, 0.5))
    locations = torch.tensor([0])
    expected = 4 * torch.tensor([[1.0, 0.0, math.sqrt(2 / 3), 0.5]])
    torch.testing.assert_close(side_stds(*inputs, 0, locations), expected)
    probabilities, edges = side_distributions(*inputs, 0, locations)
    torch.testing.assert_close(probabilities[0, 0], torch.tensor([0.5, 0, 0.5]))
    # The centre is (20, 12); left and top go down, right and bottom up.
    wanted = torch.tensor([[20.0, 16, 12], [12, 8, 4], [20, 24, 28], [12, 16, 20]])
    assert torch.equal(edges[0], wanted)


def test_a_gaussian_has_a_std_and_a_dirac_none():
    logits = torch.tensor([[0.0, math.log(0.5)]] * 4)  # half a stride
    stds = side_stds(*one_location(logits, GaussianDistance()), 0, torch.tensor([0]))
    torch.testing.assert_close(stds, torch.full((1, 4), 4.0))
    dirac = one_location(torch.zeros(4, 1), DiracDistance())
    assert side_stds(*dirac, 0, torch.tensor([0])) is None
    with pytest.raises(TypeError, match="distributions of a box representation DiracDistance"):
        side_distributions(*dirac, 0, torch.tensor([0]))


def test_pixels_of_the_output_and_boxes_that_are_dropped():
    """An image of 10 x 20 px becomes 30 x 40: three times as high, twice as wide."""
    result = Instances(
        (10, 20),
        pred_boxes=Boxes(torch.tensor([[1.0, 2, 5, 6], [3, 3, 3, 9]])),  # the second has no width
        pred_box_stds=torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]),
        bin_edges=torch.arange(16.0).view(2, 4, 2),
        scores=torch.tensor([0.9, 0.8]),
    )
    found = in_output(result, 30, 40)
    assert len(found) == 1 and found.image_size == (30, 40)
    assert found.pred_boxes.tensor.tolist() == [[2, 6, 10, 18]]
    assert found.pred_box_stds.tolist() == [[2, 6, 6, 12]]
    assert found.bin_edges.tolist() == [[[0, 2], [6, 9], [8, 10], [18, 21]]]
    assert result.pred_box_stds[0].tolist() == [1, 2, 3, 4]  # the input stays


def images(count=2):
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": 255 * torch.rand(3, 64 + 8 * i, 80, generator=generator), "height": 128}
        for i in range(count)
    ]


@torch.no_grad()
def test_fields_change_no_detection_and_a_batch_gives_what_its_images_give():
    model = make_spread_gfl()
    model.postprocess.stds = False
    plain = [x["instances"] for x in model(images())]
    assert len(plain[0]) >= 3 and not plain[0].has("pred_box_stds")
    model.postprocess.stds = model.postprocess.distributions = True
    rich = [x["instances"] for x in model(images())]
    for a, b, image in zip(plain, rich, images()):
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
        assert torch.equal(a.scores, b.scores) and torch.equal(a.pred_classes, b.pred_classes)
        # The std is that of the distribution.
        mean = (b.pred_box_distributions * b.bin_edges).sum(-1, keepdim=True)
        variance = (b.pred_box_distributions * (b.bin_edges - mean) ** 2).sum(-1)
        torch.testing.assert_close(b.pred_box_stds, variance.sqrt(), rtol=1e-3, atol=1e-2)
    (image,) = images(1)
    turned = {**image, "image": image["image"].flip(-1)}
    alone = [model([x])[0]["instances"].pred_box_stds for x in (image, turned)]
    for one, found in zip(alone, model([image, turned])):
        torch.testing.assert_close(one, found["instances"].pred_box_stds)


@torch.no_grad()
def test_no_detections_have_fields_too():
    model = make_spread_gfl(test_score_thresh=0.9999)
    model.postprocess.distributions = True
    found = model(images(1))[0]["instances"]
    assert found.pred_box_stds.shape == (0, 4)
    assert found.pred_box_distributions.shape == found.bin_edges.shape == (0, 4, 17)


@torch.no_grad()
def test_a_calibration_changes_scores_and_stds_and_nothing_else():
    model = make_spread_gfl()
    before = model(images(1))[0]["instances"]
    model.postprocess.calibration = Calibration(0.25, (0, 0.5, 1), (0, 0.1, 0.9))
    after = model(images(1))[0]["instances"]
    assert torch.equal(before.pred_boxes.tensor, after.pred_boxes.tensor)
    assert torch.equal(before.pred_classes, after.pred_classes)
    s = before.scores
    torch.testing.assert_close(
        after.scores, torch.where(s < 0.5, 0.2 * s, 0.1 + 1.6 * (s - 0.5)), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(after.pred_box_stds, 0.25 * before.pred_box_stds)


def make_dirac():
    criterion = GFLCriterion(cls_loss=QualityFocalLoss(), box_loss=GIoULoss())
    return {"head": make_head(3, NoQuality(), DiracDistance()), "criterion": criterion}


@torch.no_grad()
def test_a_dirac_detector_says_so():
    assert not make_spread_gfl(**make_dirac())(images(1))[0]["instances"].has("pred_box_stds")
    with pytest.raises(TypeError, match="DiracDistance: it has none. GeneralDistribution has"):
        make_spread_gfl(**make_dirac(), postprocess=NMSPostProcess(distributions=True))
    with pytest.raises(ValueError, match="stds is 'yes'; expected true or false"):
        NMSPostProcess(stds="yes")


@torch.no_grad()
def test_time_augmentation_gives_stds_of_the_image():
    """The mirror alone: a side's std is that of the other side. And twice the size: as many pixels
    of the network, half as many of the image."""
    model = make_spread_gfl()
    image = {"image": images(1)[0]["image"]}
    mirrored = model([{"image": image["image"].flip(-1)}])[0]["instances"]

    class Mirror(AugmentedDetector):
        """Without the image itself."""

    augmented = Mirror(model, [64], 1000, flip=True)
    original = augmented.detector.candidates
    calls = []

    def candidates(inputs):
        found = original(inputs)
        calls.append(inputs)
        return [x._replace(scores=x.scores * (len(calls) == 2)) for x in found]

    model.candidates = candidates  # of the image itself nothing scores above 0
    found = augmented([image])[0]["instances"]
    found = found[found.scores > 0]
    assert len(found) >= 3
    count = len(found)
    assert torch.equal(found.pred_box_stds, mirrored.pred_box_stds[:count][:, [2, 1, 0, 3]])
    model.postprocess.distributions = True
    with pytest.raises(ValueError, match="distributions have no test-time augmentation"):
        augmented([image])


@torch.no_grad()
def test_time_augmentation_in_another_size():
    model = make_spread_gfl()
    image = 255 * torch.rand(3, 64, 80)
    found = AugmentedDetector(model, [128], 1000, flip=False)([{"image": image}])[0]["instances"]
    pixels = image.permute(1, 2, 0).numpy()
    from detectron2.data.transforms import ResizeTransform

    large = ResizeTransform(64, 80, 128, 160).apply_image(pixels).copy()
    wanted = model([{"image": torch.from_numpy(large).permute(2, 0, 1)}])[0]["instances"]
    assert len(found) >= 3
    torch.testing.assert_close(found.pred_box_stds, wanted.pred_box_stds / 2)
