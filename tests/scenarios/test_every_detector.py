"""What holds for every detector. (What a single one does is tested beside it, in detectors/.)"""

import copy
import pickle

import pytest
import torch
from detectron2.utils.events import EventStorage

from tests.helpers.detectors import (
    DETECTORS,
    DETECTRON2S,
    LOSSES_IN_SINGLE,
    each_detector,
    each_of_ours,
    losses_of,
)
from tests.helpers.tiny import make_input

pytestmark = pytest.mark.usefixtures("one_thread")
BOXES = [[3.0, 2.0, 63.0, 58.0], [60.0, 5.0, 90.0, 60.0], [20.0, 20.0, 33.0, 35.0]]


def with_boxes():
    return make_input(64, 96, BOXES, [0, 2, 1])


def without_boxes():
    return make_input(64, 96)


def detections(model, batch):
    with torch.no_grad():
        return [x["instances"] for x in model.eval()(batch)]


def assert_same_detections(found, expected, exactly=True):
    for a, b in zip(found, expected, strict=True):
        assert len(a) == len(b) and a.image_size == b.image_size
        assert torch.equal(a.pred_classes, b.pred_classes)
        for x, y in ((a.scores, b.scores), (a.pred_boxes.tensor, b.pred_boxes.tensor)):
            limit = 1e-9 if x.dtype == torch.float64 else 1e-4  # Boxes are always float32
            torch.testing.assert_close(x, y, rtol=0, atol=0 if exactly else limit)


BATCHES = {
    "no box at all": [without_boxes(), make_input(48, 80)],
    "a half without": [with_boxes(), without_boxes()],
    "boxes beyond the image": [
        make_input(64, 96, [[-100, -50, 190, 300], [-300, -300, -200, -250], [90, 60, 99, 70]])
    ],
    "tiny boxes": [make_input(64, 96, [[30, 30, 30.1, 30.1], [40, 9, 40.001, 60]])],
    "the same box twice": [make_input(64, 96, [BOXES[0]] * 2, [0, 0])],
    "the same box, two classes": [make_input(64, 96, [BOXES[0]] * 2, [0, 1])],
    "different sizes": [make_input(64, 96, BOXES), make_input(80, 48, [BOXES[2]])],
    "a small image": [make_input(16, 16, [[1.0, 1, 15, 15]])],
    "one pixel": [make_input(1, 1, [[0, 0, 1, 1]])],
    "many boxes": [
        make_input(64, 96, [[i % 50, i % 40, i % 50 + 9, i % 40 + 9] for i in range(300)])
    ],
}


@each_detector
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
def test_any_batch_trains(name, batch):
    """Every parameter gets a gradient in every batch: a worker without one would not take part in
    the sum of all workers, and they would wait for ever."""
    model = DETECTORS[name]()
    losses = losses_of(model, batch)
    for key, loss in losses.items():
        assert loss.shape == () and loss.isfinite() and loss >= 0, key
    sum(losses.values()).backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key


@each_detector
def test_boxes_teach_every_parameter(name):
    """Boxes of all levels."""
    model = DETECTORS[name]()
    image = make_input(128, 160, [*BOXES, [8, 8, 150, 120], [40, 70, 150, 120]], [0, 1, 2, 0, 1])
    sum(losses_of(model, [image, with_boxes()]).values()).backward()
    idle = [key for key, p in model.named_parameters() if p.requires_grad and not p.grad.any()]
    assert idle == []


@each_detector
def test_a_batch_is_its_images(name):
    """Images of one size, for which no padding differs."""
    model = DETECTORS[name](test_score_thresh=0.0)
    if name not in DETECTRON2S:  # whose post-processing knows float32 only
        model.double()
    batch = [without_boxes() for _ in range(3)]
    together = detections(model, batch)
    assert all(len(x) > 0 for x in together)
    alone = [detections(model, [image])[0] for image in batch]
    assert_same_detections(together, alone, exactly=False)


@each_detector
def test_an_image_in_the_middle_of_a_padded_one(name):
    """As gfocal.data.transforms.CenterPad puts it there; Detectron2's detectors keep the border."""
    model = DETECTORS[name](test_score_thresh=0.0)
    inputs = make_input(64, 96)
    place = {"border": (8, 16), "content_size": (40, 60), "height": 80, "width": 120}
    if name in DETECTRON2S:
        with pytest.raises(ValueError, match="lies inside of a border"):
            detections(model, [{**inputs, **place}])
        return
    (padded,), (found,) = (detections(model, [{**inputs, **x}]) for x in ({}, place))
    assert found.image_size == (80, 120)
    expected = 2 * (padded.pred_boxes.tensor - torch.tensor([16, 8, 16, 8]))
    scores = padded.scores
    if model.clips_boxes:
        limits = torch.tensor([120, 80, 120, 80])
        expected = expected.clamp(min=0).minimum(limits)
        kept = (expected[:, 2:] > expected[:, :2]).all(dim=1)
        expected, scores = expected[kept], scores[kept]
    elif name == "cornernet":  # nothing lies left of the image or above it
        expected = expected.clamp(min=0)
    assert len(found) > 0
    torch.testing.assert_close(found.pred_boxes.tensor, expected)
    assert torch.equal(found.scores, scores)


@each_detector
def test_a_batch_without_images(name):
    model = DETECTORS[name]()
    for mode in (True, False):
        with pytest.raises(ValueError, match="a batch without images"):
            model.train(mode)([])


@each_detector
def test_double_precision(name):
    """All is computed in it, so that a comparison with other code can be exact. (Detectron2's
    ``Boxes`` are float32 at the very end.)"""
    model = DETECTORS[name](test_score_thresh=0.0)
    batch = [with_boxes(), without_boxes()]
    single = losses_of(copy.deepcopy(model), batch)
    model.double()
    double = losses_of(model, batch)
    assert double.keys() == single.keys()
    for key, loss in double.items():
        assert loss.dtype == torch.float64 or name in LOSSES_IN_SINGLE, key
        torch.testing.assert_close(single[key].double(), loss.double(), rtol=1e-4, atol=1e-6)
    if name not in DETECTRON2S:
        assert {x.scores.dtype for x in detections(model, batch)} == {torch.float64}


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@each_detector
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES.keys())
def test_a_copy_is_a_model_of_its_own(name, copied):
    model = DETECTORS[name](test_score_thresh=0.0)
    batch = [with_boxes()]
    losses_of(model, batch)
    expected = detections(model, batch)
    other = copied(model)
    assert_same_detections(detections(other, batch), expected)
    assert losses_of(copied(other), batch) == losses_of(copied(model), batch)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    assert_same_detections(detections(model, batch), expected)


@each_detector
def test_an_evaluation_leaves_no_trace(name):
    model = DETECTORS[name](test_score_thresh=0.0)
    losses_of(model, [with_boxes()])
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    batch = [with_boxes()]
    pixels = batch[0]["image"].clone()
    random = torch.get_rng_state()
    first, second = (detections(model, batch) for _ in range(2))
    assert_same_detections(first, second)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(batch[0]["image"], pixels)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in after)


@each_detector
def test_the_state_dict_is_all_there_is(name):
    """Weights and statistics of batch norm, no constants; a model that loads it is the same."""
    torch.manual_seed(1)
    model = DETECTORS[name](test_score_thresh=0.0)
    losses_of(model, [with_boxes(), with_boxes()])
    state = model.state_dict()
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    others = state.keys() - dict(model.named_parameters()).keys()
    assert [key for key in others if not key.endswith(statistics)] == []
    other = DETECTORS[name](test_score_thresh=0.0)
    assert any(not torch.equal(state[key], x) for key, x in other.state_dict().items())
    other.load_state_dict(state)
    batch = [with_boxes()]
    assert_same_detections(detections(other, batch), detections(model, batch))


@each_detector
def test_settings_of_the_inference(name):
    model = DETECTORS[name](test_score_thresh=0.0)
    batch = [with_boxes()]
    (everything,) = detections(model, batch)
    middle = everything.scores.median().item()
    model.test_score_thresh = middle
    (some,) = detections(model, batch)
    assert 0 < len(some) < len(everything) and (some.scores > middle).all()
    model.test_score_thresh = 0.0
    model.max_detections_per_image = 3
    (best,) = detections(model, batch)
    assert torch.equal(best.scores, everything.scores[:3])


@each_of_ours
def test_an_observed_step(name):
    """Statistics of the targets, and a picture of the first image."""
    model = DETECTORS[name](statistics_period=1, vis_period=1, test_score_thresh=0.0)
    with EventStorage() as storage:
        model([make_input(64, 96, BOXES[:2]), make_input(80, 48)])
    ((_, picture, _),) = storage._vis_data
    assert picture.shape[0] == 3 and picture.shape[2] >= 96
    latest = {key: value for key, (value, _) in storage.latest().items()}
    assert latest["positives_per_image"] >= 0.5
    assert 0 <= latest["boxes_without_positive"] <= 0.5
    assert 0 <= latest["mean_iou_of_positives"] <= 1
