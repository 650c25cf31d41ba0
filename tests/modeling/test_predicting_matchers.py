"""The matchers that see predictions: by hand, against their definitions written out in plain loops,
and against the answers of mmdetection 3.3 (fixtures/matchers.npz)."""

import math

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes

from gfocal.modeling.matchers import (
    BACKGROUND,
    IGNORED,
    DynamicATSSMatcher,
    SimOTAMatcher,
    TaskAlignedMatcher,
)
from gfocal.modeling.structures import DensePredictions, GroundTruth
from tests.helpers import official
from tests.modeling.test_matchers import full_matrix_atss, make_anchors

STRIDES = [8, 16, 32]
CLASSES = 4
MATCHERS = [TaskAlignedMatcher, DynamicATSSMatcher, SimOTAMatcher]
each_matcher = pytest.mark.parametrize("matcher", MATCHERS)


def boxes_of(tensor):
    boxes = Boxes(torch.zeros(0, 4))
    boxes.tensor = tensor  # Boxes() is float32
    return boxes


def predictions_of(logits, distances, quality=None):
    """A box representation that reads one channel a side: the distance itself, in strides."""
    return DensePredictions(logits, distances[..., None], quality, lambda x: x[..., 0])


def random_batch(seed, *, ties=False, sizes=((96, 128), (70, 50)), dtype=torch.float64):
    """Images of a batch, each with its boxes, and predictions, half of them about one of them."""
    rng = np.random.default_rng(seed)
    anchors = make_anchors(*np.max(sizes, axis=0).tolist(), strides=STRIDES)
    centers, strides = anchors.centers.double(), anchors.strides.double()
    all_boxes, all_classes, logits, distances = [], [], [], []
    for height, width in sizes:
        count = int(rng.integers(0, 9))
        middles = rng.uniform(-0.1, 1.1, (count, 2)) * [width, height]
        sides = np.exp(rng.uniform(np.log(2), np.log(120), (count, 2)))
        boxes = np.concatenate([middles - sides / 2, middles + sides / 2], axis=1)
        if ties:
            boxes = np.round(boxes / 8) * 8 - 4
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 8)
        boxes = torch.from_numpy(boxes)
        classes = torch.from_numpy(rng.integers(0, CLASSES, count))
        if count > 2:
            boxes[2], classes[2] = boxes[1], classes[1]
        said = torch.from_numpy(rng.exponential(2, (len(centers), 4)))
        if count:
            about = boxes[torch.from_numpy(rng.integers(0, count, len(centers)))]
            true = torch.cat([centers - about[:, :2], about[:, 2:] - centers], dim=1)
            near = (true.amin(dim=1) > 0) & torch.from_numpy(rng.random(len(centers)) < 0.7)
            true = true / strides[:, None] * torch.from_numpy(rng.uniform(0.7, 1.4, true.shape))
            said = torch.where(near[:, None], true, said)
        score = torch.from_numpy(rng.normal(-1, 2, (len(centers), CLASSES)))
        if ties:
            said, score = said.round(), score.clamp(-1, 0).round() * 2
        all_boxes.append(boxes_of(boxes.to(dtype)))
        all_classes.append(classes)
        logits.append(score.to(dtype))
        distances.append(said.to(dtype))
    quality = torch.from_numpy(rng.normal(1, 1, (len(sizes), len(centers), 1))).to(dtype)
    quality = None if seed % 2 else quality.round() if ties else quality
    truth = GroundTruth(all_boxes, all_classes, list(sizes))
    return anchors, truth, predictions_of(torch.stack(logits), torch.stack(distances), quality)


def iou(a, b):
    """Of two boxes, lists of four numbers."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [max(0.0, x[2] - x[0]) * max(0.0, x[3] - x[1]) for x in (a, b)]
    return width * height / max(sum(areas) - width * height, 1e-6)


class Plain:
    """One image as lists of numbers: boxes, classes, locations on the image, scores, predicted."""

    def __init__(self, anchors, truth, predictions, image):
        self.boxes = truth.boxes[image].tensor.tolist()
        self.classes = truth.classes[image].tolist()
        self.centers, self.strides = anchors.centers.tolist(), anchors.strides.tolist()
        on_image = anchors.inside(truth.image_sizes)[image]
        self.locations = on_image.nonzero().flatten().tolist()
        self.scores = predictions.joint_logits()[image].sigmoid().tolist()
        decoded = anchors.decode(predictions.distances_of(predictions.box_logits))[image]
        self.ious = [[iou(box, own) for own in decoded.tolist()] for box in self.boxes]
        self.idxs = torch.where(on_image, BACKGROUND, IGNORED).tolist()
        self.quality = [0.0] * len(self.idxs)

    def depth(self, box, location):
        """How deep a location lies inside a box, pixels."""
        (x, y), (x1, y1, x2, y2) = self.centers[location], self.boxes[box]
        return min(x - x1, y - y1, x2 - x, y2 - y)


def plain_task_aligned(image, topk, alpha, beta):
    claims = {}
    aligned = [
        [image.scores[r][k] ** alpha * image.ious[g][r] ** beta for r in range(len(image.scores))]
        for g, k in enumerate(image.classes)
    ]
    for g, of_box in enumerate(aligned):
        inside = [r for r in image.locations if image.depth(g, r) > 0.01]
        best = sorted(inside, key=lambda r: (-np.float32(of_box[r]), r))[:topk]
        for r in best:
            if of_box[r] > 0:
                claims.setdefault(r, []).append(g)
    for r, boxes in claims.items():
        image.idxs[r] = max(boxes, key=lambda g: (image.ious[g][r], -g))
    for g, of_box in enumerate(aligned):
        own = [r for r in claims if image.idxs[r] == g]
        for r in own:
            largest = max(image.ious[g][x] for x in own)
            image.quality[r] = of_box[r] / max(of_box[x] for x in own) * largest
    return image


def plain_simota(image, radius, candidate_topk, cls_weight, iou_weight):
    def is_near(g, r):
        x1, y1, x2, y2 = image.boxes[g]
        x, y = image.centers[r]
        away = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2))
        return away < radius * image.strides[r]

    def cost(g, r):
        scores = image.scores[r]
        entropy = sum(-math.log(1 - p) for k, p in enumerate(scores) if k != image.classes[g])
        entropy -= math.log(scores[image.classes[g]])
        both = is_near(g, r) and image.depth(g, r) > 0
        far = 0.0 if both else 1e5
        return cls_weight * entropy - iou_weight * math.log(image.ious[g][r] + 1e-7) + far

    everyone = range(len(image.boxes))
    places = [
        r for r in image.locations if any(is_near(g, r) or image.depth(g, r) > 0 for g in everyone)
    ]
    costs = {(g, r): cost(g, r) for g in everyone for r in places}
    claims = {}
    for g in everyone:
        best = sorted((image.ious[g][r] for r in places), reverse=True)[:candidate_topk]
        count = max(1, int(torch.tensor(best, dtype=torch.float64).sum()))
        for r in sorted(places, key=lambda r: (round(costs[g, r], 9), r))[:count]:
            claims.setdefault(r, []).append(g)
    for r, boxes in claims.items():
        several = everyone if len(boxes) > 1 else boxes
        image.idxs[r] = min(several, key=lambda g: (round(costs[g, r], 9), g))
        image.quality[r] = image.ious[image.idxs[r]][r]
    return image


def assert_plain(matches, batch, plain, *numbers):
    for i in range(len(batch[1].boxes)):
        expected = plain(Plain(*batch, i), *numbers)
        assert matches.idxs[i].tolist() == expected.idxs
        np.testing.assert_allclose(matches.quality[i], expected.quality, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("numbers", [(13, 1.0, 6.0), (3, 0.5, 2.0), (1, 0.0, 1.0)])
def test_task_aligned_equals_its_definition(numbers, ties):
    positives = 0
    for seed in range(6):
        batch = random_batch(seed, ties=ties)
        matches = TaskAlignedMatcher(*numbers)(*batch)
        assert_plain(matches, batch, plain_task_aligned, *numbers)
        positives += (matches.idxs >= 0).sum().item()
    assert positives > 20


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("numbers", [(2.5, 10, 1.0, 3.0), (0.75, 3, 0.0, 1.0)])
def test_simota_equals_its_definition(numbers, ties):
    positives = 0
    for seed in range(6):
        batch = random_batch(seed, ties=ties)
        matches = SimOTAMatcher(*numbers)(*batch)
        assert_plain(matches, batch, plain_simota, *numbers)
        positives += (matches.idxs >= 0).sum().item()
    assert positives > 20


@pytest.mark.parametrize("alpha", [0.8, 0.0, 1.0])
def test_dynamic_atss_equals_the_full_matrix(alpha):
    positives = 0
    for seed in range(10):
        anchors, truth, _ = batch = random_batch(seed)
        matches = DynamicATSSMatcher(alpha=alpha)(*batch)
        assert matches.quality is None
        inside = anchors.inside(truth.image_sizes)
        for i, (boxes, classes) in enumerate(zip(truth.boxes, truth.classes)):
            scores = torch.tensor(Plain(*batch, i).scores, dtype=torch.float64).t()[classes]
            ious = torch.tensor(Plain(*batch, i).ious, dtype=torch.float64).view_as(scores)
            values = scores ** (1 - alpha) * ious**alpha
            expected = full_matrix_atss(anchors, boxes.tensor, 9, inside[i], values)
            assert torch.equal(matches.idxs[i], torch.where(inside[i], expected, IGNORED))
            positives += (expected >= 0).sum().item()
    assert positives > 20


def test_mmdetections_assignments():
    """Its TaskAlignedAssigner takes the best of all locations, ours those inside; so the fixture's
    scores of a class are 0 outside of its box, for this matcher."""
    cases = official.load("matchers")
    anchors = make_anchors(96, 128, strides=STRIDES)
    for i in range(int(cases["num_cases"])):
        boxes, logits, distances = (
            torch.from_numpy(cases[f"{name}_{i}"]).double()
            for name in ("gt", "logits", "distances")
        )
        truth = GroundTruth([boxes_of(boxes)], [torch.from_numpy(cases[f"labels_{i}"])])
        predictions = predictions_of(logits[None], distances[None])
        for matcher, name in ((DynamicATSSMatcher(), "datss"), (SimOTAMatcher(), "simota")):
            matches = matcher(anchors, truth, predictions)
            assert matches.idxs[0].tolist() == (cases[f"{name}_inds_{i}"] - 1).tolist()
        np.testing.assert_allclose(matches.quality[0], cases[f"simota_ious_{i}"], rtol=1e-6)

        x, y = anchors.centers.double().unbind(dim=1)
        x1, y1, x2, y2 = boxes.t()[..., None]
        inside = torch.stack([x - x1, y - y1, x2 - x, y2 - y]).amin(dim=0) > 0.01
        for box_inside, label in zip(inside, cases[f"labels_{i}"]):
            logits[~box_inside, label] = -1000.0
        matches = TaskAlignedMatcher()(
            anchors, truth, predictions_of(logits[None], distances[None])
        )
        inds, metrics, ious = (cases[f"tal_{name}_{i}"] for name in ("inds", "metrics", "ious"))
        assert matches.idxs[0].tolist() == (inds - 1).tolist()
        for g in set(inds[inds > 0]):  # their head scales the alignment
            own = inds == g
            expected = metrics[own] / metrics[own].max() * ious[own].max()
            np.testing.assert_allclose(matches.quality[0].numpy()[own], expected, rtol=1e-9)
