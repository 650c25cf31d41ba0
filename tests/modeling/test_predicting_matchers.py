"""The matchers that see predictions: by hand, against their definitions written out in plain loops,
and against the answers of mmdetection 3.3 (fixtures/matchers.npz)."""

import math

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from gfocal.config import add_gfocal_config
from gfocal.modeling import recipes
from gfocal.modeling.matchers import (
    BACKGROUND,
    IGNORED,
    ATSSMatcher,
    DynamicATSSMatcher,
    SimOTAMatcher,
    TaskAlignedMatcher,
    check_matches,
)
from gfocal.modeling.structures import DenseAnchors, DensePredictions, GroundTruth
from tests.helpers import official
from tests.helpers.tiny import make_gfl, make_input
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


def row_of_four():
    """One row of centres x = 8, 16, 24, 32 and y = 8 at stride 8; the box [4, 0, 28, 16] holds the
    first three."""
    middles = torch.tensor([8.0, 16, 24, 32])
    boxes = torch.stack([middles - 4, middles * 0 + 4, middles + 4, middles * 0 + 12], dim=1)
    return DenseAnchors(boxes, torch.full((4,), 8.0), [(1, 4)])


def test_task_aligned_by_hand():
    """From x = 16 the box exactly, from x = 24 one that reaches to 36 (IoU 24 / 32), from x = 8 one
    of its left half (IoU 1/2); the surest location is outside."""
    distances = torch.tensor([[4.0, 8, 8, 8], [12, 8, 12, 8], [20, 8, 12, 8], [28, 8, -4, 8]]) / 8
    logits = torch.logit(torch.tensor([0.9, 0.4, 0.8, 0.95]))[:, None]
    predictions = predictions_of(logits[None], distances[None])
    box = Boxes(torch.tensor([[4.0, 0, 28, 16]]))
    truth = GroundTruth([box], [torch.tensor([0])])
    matches = TaskAlignedMatcher(topk=2)(row_of_four(), truth, predictions)
    assert matches.idxs.tolist() == [[BACKGROUND, 0, 0, BACKGROUND]]
    # t = 0.9 / 2^6 = 0.014, 0.4 and 0.8 * (3/4)^6 = 0.142; the largest IoU is 1
    assert matches.quality[0].tolist() == pytest.approx([0, 1.0, 0.8 * 0.75**6 / 0.4, 0])
    # A better one, which has x = 16 alone; the first box scales by what it has kept.
    twice = Boxes(torch.tensor([[4.0, 0, 28, 16], [4.0, 0, 28, 16.0]]))
    twice.tensor[0, 3] = 15.0  # IoU 15 / 16 from x = 16, (24 * 15) / (32 * 16) from x = 24
    truth = GroundTruth([twice], [torch.tensor([0, 0])])
    matches = TaskAlignedMatcher(topk=1)(row_of_four(), truth, predictions)
    assert matches.idxs.tolist() == [[BACKGROUND, 1, BACKGROUND, BACKGROUND]]
    assert matches.quality[0].tolist() == pytest.approx([0, 1.0, 0, 0])


def test_simota_by_hand():
    """The box is centred at x = 16, so x = 8, 16, 24 are less than 1.5 strides away, 32 is not.
    IoUs 1/2, 1 and 3/4 sum to 2.25: two positives, by cost: with equal scores the largest IoUs."""
    distances = torch.tensor([[4.0, 8, 8, 8], [12, 8, 12, 8], [20, 8, 12, 8], [28, 8, -4, 8]]) / 8
    predictions = predictions_of(torch.zeros(1, 4, 2), distances[None])
    truth = GroundTruth([Boxes(torch.tensor([[4.0, 0, 28, 16]]))], [torch.tensor([1])])
    matches = SimOTAMatcher(center_radius=1.5)(row_of_four(), truth, predictions)
    assert matches.idxs.tolist() == [[BACKGROUND, 0, 0, BACKGROUND]]
    assert matches.quality[0].tolist() == [0, 1.0, 0.75, 0]
    # x = 24 is less sure by log(1 + e^3) - log 2 = 2.4, more than 3 log(3/4 : 1/2) = 1.2
    predictions.cls_logits[0, 2, 1] -= 3
    matches = SimOTAMatcher(center_radius=1.5)(row_of_four(), truth, predictions)
    assert matches.idxs.tolist() == [[0, 0, BACKGROUND, BACKGROUND]]


@each_matcher
def test_images_of_a_batch_do_not_mix(matcher):
    for seed in range(6):
        anchors, truth, predictions = batch = random_batch(seed, dtype=torch.float32)
        together = matcher()(*batch)
        check_matches(together, anchors, truth, matcher())
        for i in range(2):
            one = GroundTruth([truth.boxes[i]], [truth.classes[i]], [truth.image_sizes[i]])
            said = predictions.with_tensors([x[i : i + 1] for x in predictions.tensors])
            alone = matcher()(anchors, one, said)
            assert torch.equal(together.idxs[i], alone.idxs[0])
            if alone.quality is not None:
                torch.testing.assert_close(together.quality[i], alone.quality[0])


@each_matcher
def test_padding_takes_no_part(matcher):
    """As on an image without padding, whatever is predicted on it; None: there is none."""
    small, large = make_anchors(64, 64, strides=[8]), make_anchors(64, 96, strides=[8])
    on_image = large.inside([(64, 64)])[0]
    boxes, classes = [Boxes(torch.tensor([[40.0, 6, 95, 60]]))], [torch.tensor([0])]
    logits, distances = torch.full((1, 96, 1), 5.0), torch.ones(1, 96, 4)
    distances *= torch.linspace(1, 3, 96)[:, None]
    logits[:, on_image] = torch.linspace(-3, 0, 64)[:, None]
    alone = matcher()(
        small,
        GroundTruth(boxes, classes, [(64, 64)]),
        predictions_of(logits[:, on_image], distances[:, on_image]),
    )
    predictions = predictions_of(logits, distances)
    padded = matcher()(large, GroundTruth(boxes, classes, [(64, 64)]), predictions)
    assert (padded.idxs[0, ~on_image] == IGNORED).all()
    assert torch.equal(padded.idxs[:, on_image], alone.idxs) and (alone.idxs == 0).any()
    whole = matcher()(large, GroundTruth(boxes, classes), predictions)
    assert (whole.idxs[0, ~on_image] == 0).any() and (whole.idxs != IGNORED).all()


@each_matcher
def test_few_boxes_few_locations(matcher):
    """No boxes, in one image or all; a box between all centres; a level without locations."""
    none, tiny = Boxes(torch.zeros(0, 4)), Boxes(torch.tensor([[3.0, 3, 5, 5]]))
    no_class, a_class = torch.zeros(0, dtype=torch.int64), torch.tensor([0])
    shapes = [(1, 2), (0, 0)]
    anchors = DenseAnchors.from_levels(
        [Boxes(torch.tensor([[-32.0, -32, 32, 32], [-24, -32, 40, 32]])), none], shapes, [8, 16]
    )
    predictions = predictions_of(torch.zeros(2, 2, 3), torch.ones(2, 2, 4))
    for boxes, classes in (
        ([none, none], [no_class, no_class]),
        ([none, tiny], [no_class, a_class]),
        ([tiny, none], [a_class, no_class]),
    ):
        truth = GroundTruth(boxes, classes)
        matches = matcher()(anchors, truth, predictions)
        check_matches(matches, anchors, truth, matcher())
        # SimOTA gives each box a location near its centre, also outside of it.
        expected = [int(len(x) > 0) if matcher is SimOTAMatcher else 0 for x in boxes]
        assert (matches.idxs >= 0).sum(dim=1).tolist() == expected


@each_matcher
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_predictions_that_are_not_finite(matcher, value):
    """Of all locations inside a box: they become positive, and their losses end a training."""
    anchors, truth, predictions = random_batch(2)
    assert sum(truth.counts)
    broken = predictions.with_tensors(
        [predictions.cls_logits, torch.full_like(predictions.box_logits, value)]
    )
    matches = matcher()(anchors, truth, broken)
    check_matches(matches, anchors, truth, matcher())
    assert (matches.idxs >= 0).any()
    broken = predictions.with_tensors([torch.full_like(x, value) for x in predictions.tensors])
    check_matches(matcher()(anchors, truth, broken), anchors, truth, matcher())


@each_matcher
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(matcher, dtype):
    anchors, truth, predictions = random_batch(4, dtype=torch.float32)
    rounded = predictions.with_tensors([x.to(dtype) for x in predictions.tensors])
    as_float = rounded.with_tensors([x.float() for x in rounded.tensors])
    half, full = matcher()(anchors, truth, rounded), matcher()(anchors, truth, as_float)
    assert torch.equal(half.idxs, full.idxs)
    if full.quality is not None:
        assert half.quality.dtype == torch.float32
        assert torch.equal(half.quality, full.quality)


def test_warm_up():
    """Iterations 0 to 4 are another matcher's, with the IoU of what is predicted as the quality."""
    batch = random_batch(0)
    matcher, late = TaskAlignedMatcher(warmup_iters=5), TaskAlignedMatcher()(*batch)
    with EventStorage(4):
        early = matcher(*batch)
    assert torch.equal(early.idxs, ATSSMatcher()(*batch).idxs)
    assert not torch.equal(early.idxs, late.idxs)
    for i in range(2):
        ious = Plain(*batch, i).ious
        for r, g in enumerate(early.idxs[i].tolist()):
            assert early.quality[i, r].item() == pytest.approx(ious[g][r] if g >= 0 else 0)
    with EventStorage(5):
        assert torch.equal(matcher(*batch).idxs, late.idxs)
    assert torch.equal(matcher(*batch).idxs, late.idxs)  # outside of a training
    other = TaskAlignedMatcher(warmup_iters=5, warmup=SimOTAMatcher())
    with EventStorage(0):
        assert torch.equal(other(*batch).quality, SimOTAMatcher()(*batch).quality)
        nothing = GroundTruth([Boxes(torch.zeros(0, 4))] * 2, [torch.zeros(0).long()] * 2)
        assert (matcher(batch[0], nothing, batch[2]).quality == 0).all()


def test_settings_out_of_range():
    for make, message in (
        (lambda: TaskAlignedMatcher(topk=0), "topk is 0; expected an integer, at least 1"),
        (lambda: TaskAlignedMatcher(beta=-1), "beta is -1; expected a number of at least 0"),
        (lambda: TaskAlignedMatcher(topk=2.5), "topk is 2.5; expected an integer"),
        (lambda: TaskAlignedMatcher(alpha=math.inf), "alpha is inf; expected a number"),
        (lambda: TaskAlignedMatcher(warmup_iters=-1), "warmup_iters is -1"),
        (lambda: DynamicATSSMatcher(topk=0), "topk is 0"),
        (lambda: DynamicATSSMatcher(alpha=1.5), r"alpha is 1.5; expected a number in \[0, 1\]"),
        (lambda: SimOTAMatcher(candidate_topk=0), "candidate_topk is 0"),
        (lambda: SimOTAMatcher(center_radius=math.nan), "center_radius is nan"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            make()


@pytest.mark.parametrize("name", ["task_aligned", "dynamic_atss", "simota"])
def test_a_detector_trains_with_it(name):
    """The parts of its recipe in a small GFLV2: finite losses, some of boxes."""
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.MODEL.GFL.MATCHER = name
    parts = recipes.from_yacs(cfg.MODEL.GFL)
    torch.manual_seed(0)
    model = make_gfl(matcher=parts["matcher"], criterion=parts["criterion"]).train()
    # Of two levels that predict one box each, none is above ATSS's threshold.
    torch.nn.init.normal_(model.head.box_logits.weight, std=0.5)
    batch = [
        make_input(64, 96, [[3.0, 2, 63, 58], [60.0, 5, 90, 60]], [0, 1]),
        make_input(80, 48),
    ]
    optimizer, boxes = torch.optim.SGD(model.parameters(), lr=0.01), []
    for iteration in range(4):
        optimizer.zero_grad()
        with EventStorage(iteration):
            losses = model(batch)
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
        boxes.append(losses["loss_box_reg"].item())
    assert max(boxes) > 0
    with torch.no_grad():
        assert len(model.eval()(batch)) == 2
