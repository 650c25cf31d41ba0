"""The example for trackers: its drawings, its filter, and that the page shows its code."""

import importlib
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from gfocal.data.shapes import CLASSES
from tests.helpers.tiny import make_gfl

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLES = DOCS / "examples"


@pytest.fixture
def drawn(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("drawn_sequences")


@pytest.fixture
def tracker(drawn):
    pytest.importorskip("filterpy.kalman")
    return importlib.import_module("kalman_tracker")


def test_a_sequence_depends_on_its_seed(drawn):
    one, same, other = (drawn.draw_sequence(0, seed) for seed in (1, 1, 2))
    assert (one.images == same.images).all() and (one.boxes == same.boxes).all()
    assert (one.images != other.images).mean() > 0.5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_boxes_are_those_of_the_target(drawn, seed):
    """What moves is where a frame differs from the median of all frames."""
    sequence = drawn.draw_sequence(0, seed)
    still = np.median(sequence.images, axis=0)
    for frame in np.flatnonzero(sequence.visible == 1)[::6]:
        moving = np.abs(sequence.images[frame] - still).mean(axis=2) > 25
        rows, columns = np.flatnonzero(moving.any(axis=1)), np.flatnonzero(moving.any(axis=0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(box, sequence.boxes[frame], atol=1.5)


def test_the_band_hides_all_of_the_target_for_some_frames(drawn):
    for seed in range(3):
        sequence = drawn.draw_sequence(0, seed)
        visible, still = sequence.visible, np.median(sequence.images, axis=0)
        hidden = np.flatnonzero(visible == 0)
        for frame in hidden:  # a blurred edge may show at the band's sides
            moving = np.abs(sequence.images[frame] - still).mean(axis=2) > 25
            assert moving.sum() < 0.05 * np.prod(
                sequence.boxes[frame, 2:] - sequence.boxes[frame, :2]
            )
        assert len(hidden) and visible[0] == visible[-1] == 1
        assert (np.diff(visible[: hidden[0] + 1]) <= 0.02).all()  # goes
        assert (np.diff(visible[hidden[-1] :]) >= -0.02).all()  # and comes back


def test_errors_by_hand(drawn):
    """The truth is 10 x 10 px. Boxes that lie 1 px to the right have an IoU of 90 / 110."""
    truth = np.tile([20.0, 20.0, 30.0, 30.0], (16, 1))
    visible = np.array([1, 1, 0.5, 0, 0.5] + [1] * 11)
    sequence = drawn.Sequence(np.zeros(0), 0, truth, visible)
    boxes = truth + [1.0, 0.0, 1.0, 0.0]
    np.testing.assert_allclose(drawn.errors(boxes, sequence), [0.5**0.5] * 4 + [9 / 11])
    boxes[[2, 4]] += 2.0  # 3, 2, 3, 2 px where it is hidden partly
    boxes[15] += 2.0  # the 11th frame after it
    boxes[0] = np.nan
    much, others = 6.5, 0.5
    expected = [((3 * much + 12 * others) / 15) ** 0.5, 0.5**0.5, much**0.5, 0.5**0.5]
    np.testing.assert_allclose(drawn.errors(boxes, sequence)[:4], expected)


def detections(boxes, stds=None, scores=None):
    boxes = torch.as_tensor(np.reshape(boxes, (-1, 4)), dtype=torch.float32)
    found = Instances((192, 192), pred_boxes=Boxes(boxes))
    found.scores = torch.full((len(boxes),), 0.8) if scores is None else torch.tensor(scores)
    found.pred_box_stds = torch.ones(len(boxes), 4) if stds is None else torch.as_tensor(stds)
    return found


def test_a_filter_that_knows_the_noise_is_better(drawn, tracker):
    """A stand-in detector, whose error is 0.5 or 8 px and that says so. No constant is as good."""
    rng = np.random.default_rng(0)
    for seed in (1, 2):
        sequence = drawn.draw_sequence(0, seed)
        found = []
        for box, visible in zip(sequence.boxes, sequence.visible):
            std = rng.choice([0.5, 8.0], 4)
            seen = detections(box + std * rng.standard_normal(4), std[None])
            found.append(seen if visible > 0.5 else seen[[]])

        def error(name, factor, found=found, sequence=sequence):
            boxes = tracker.track(found, tracker.NOISES[name], factor)
            return drawn.errors(boxes, sequence)[0]

        least = min(error("constant", factor) for factor in tracker.FACTORS)
        assert error("bbox_std^2", 1.0) < 0.8 * least


def test_noises_by_hand(tracker):
    """Bins 8 px apart. A sure side a quarter of a bin after the first has a standard deviation of
    8 sqrt(3) / 4 px, all of it by the two bins; another is at bin 0 or at bin 2."""
    found = detections([10.0, 10.0, 20.0, 20.0], scores=[0.75])
    sure, unsure = [0.75, 0.25, 0.0], [0.5, 0.0, 0.5]
    found.pred_box_distributions = torch.tensor([[sure, unsure, sure, unsure]])
    edges = torch.tensor([0.0, 8.0, 16.0])
    found.bin_edges = torch.stack([20 - edges, 20 - edges, 20 + edges, 20 + edges])[None]
    found.pred_box_stds = torch.tensor([[12**0.5, 8.0, 12**0.5, 8.0]])
    expected = {
        "constant": [1, 1, 1, 1],
        "1 - score": [0.25] * 4,
        "(1 - score)^2": [0.0625] * 4,
        "bbox_std^2": [12, 64, 12, 64],
        "bbox_std^2, unsure part": [1, 65, 1, 65],
        "unsure part * (1 - score)^2": [0.0625, 65 / 16, 0.0625, 65 / 16],
    }
    assert tracker.NOISES.keys() == expected.keys()
    for name, variances in expected.items():
        np.testing.assert_allclose(tracker.NOISES[name](found), [variances], rtol=1e-5)


def test_the_nearest_detection_counts_if_it_is_near(tracker):
    box = np.array([10.0, 10.0, 40.0, 50.0])  # its diagonal is 50 px
    boxes = np.stack([box + 40, box + 30, box + 36])
    assert tracker.nearest(boxes, box) == 1  # 42 px away
    assert tracker.nearest(boxes[[0, 2]], box) is None  # 57 and 51 px
    assert tracker.nearest(np.zeros((0, 4)), box) is None


def test_frames_without_a_detection(tracker):
    """Before the first one there is no box; after the last one its velocity counts on."""
    nothing = detections(np.zeros((0, 4)))
    moving = [detections(np.array([0.0, 20.0, 30.0, 50.0]) + 2.0 * i) for i in range(20)]
    constant = tracker.NOISES["constant"]
    boxes = tracker.track([nothing, *moving, nothing, nothing], constant, 1.0)
    assert np.isnan(boxes[0]).all()
    np.testing.assert_allclose(boxes[-1], np.array([0.0, 20.0, 30.0, 50.0]) + 42, atol=0.3)
    held = tracker.last_detection([nothing, *moving, nothing])
    np.testing.assert_allclose(held[-1], [38.0, 58.0, 68.0, 88.0])
    with pytest.raises(ValueError, match="none of 3 frames has a detection"):
        tracker.track([nothing] * 3, constant, 1.0)


def test_detections_of_a_model(drawn, tracker):
    torch.manual_seed(0)
    model = make_gfl(num_classes=len(CLASSES), test_score_thresh=0.0).eval()
    predictor = SimpleNamespace(
        model=model,
        preprocess=lambda image: {
            "image": torch.from_numpy(image.transpose(2, 0, 1).copy()),
            "height": image.shape[0],
            "width": image.shape[1],
        },
    )
    sequence = drawn.draw_sequence(0, 1)
    sequence = sequence._replace(images=sequence.images[:2])
    _, every = tracker.detect(predictor, sequence, 0.0)
    least = every[0].scores.median().item()
    _, frames = tracker.detect(predictor, sequence, least)
    assert 0 < len(frames[0]) < len(every[0])
    assert len(frames) == 2
    for found in frames:
        assert (found.pred_classes == sequence.label).all() and (found.scores > least).all()
        for noise in tracker.NOISES.values():
            assert noise(found).shape == (len(found), 4) and (noise(found) > 0).all()


def test_the_page_shows_the_code_of_the_example():
    sections = [
        section
        for page in DOCS.glob("uncertainty*.md")
        for section in re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE)
        if section.startswith("## For trackers")
    ]
    assert len(sections) == 1
    shown = re.findall(r"^```python\n(.*?)^```$", sections[0], re.MULTILINE | re.DOTALL)
    code = [line.strip() for line in (EXAMPLES / "kalman_tracker.py").read_text().splitlines()]
    assert shown
    for block in shown:
        lines = [line.strip() for line in block.rstrip().splitlines()]
        assert any(code[i : i + len(lines)] == lines for i in range(len(code))), block
