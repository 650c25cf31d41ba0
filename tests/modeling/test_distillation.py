"""The losses of a teacher: by hand, and against the formulas of the published code (LD,
https://github.com/HikariTJU/LD), written here again with one box and one level at a time."""

import math

import pytest
import torch
from detectron2.structures import Boxes

from gfocal.modeling import teaching
from gfocal.modeling.criterion import at_least_one_an_image, one_more_an_image
from gfocal.modeling.distillation import (
    ClassDistillation,
    FeatureImitation,
    LocalizationDistillation,
    distillation_loss,
)
from gfocal.modeling.matchers import ATSSMatcher, adaptive_thresholds
from gfocal.modeling.quality import NoQuality
from gfocal.modeling.representations import DiracDistance, GeneralDistribution
from gfocal.modeling.structures import DensePredictions, DenseTargets
from gfocal.modeling.teaching import Teaching, ValuableRegion, fine_grained, valuable
from tests.helpers.tiny import make_head, truth_of
from tests.helpers.tiny_distilled import make_criterion
from tests.modeling.test_matchers import make_anchors

STRIDES = [8, 16, 32]
SIZES = [(96, 128), (96, 128), (64, 100)]  # the last image has padding
BOXES = [
    [[3.0, 2, 63, 58], [40, 20, 120, 90], [10, 60, 30, 88]],
    [],
    [[5, 5, 60, 62], [0, 0, 98, 60]],
]
CLASSES = [[0, 2, 1], [], [1, 1]]


@pytest.fixture(scope="module")
def batch():
    """Anchors, predictions, targets and what a teacher says, in float64."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape, scale=1.0):
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale

    anchors = make_anchors(96, 128, STRIDES)
    anchors = anchors._replace(boxes=anchors.boxes.double(), strides=anchors.strides.double())
    count = len(anchors.boxes)
    boxes = [Boxes(torch.tensor(x).reshape(-1, 4)) for x in BOXES]
    truth = truth_of(boxes, [torch.tensor(x, dtype=torch.int64) for x in CLASSES], SIZES)
    matches = ATSSMatcher()(anchors, truth)
    targets = DenseTargets.from_matches(matches, truth, 3)
    targets = targets._replace(boxes=targets.boxes.double())
    bins = GeneralDistribution(reg_max=4).double()
    student, teacher = (
        DensePredictions(
            noise(3, count, 3, scale=2).requires_grad_(),
            noise(3, count, 4, 5, scale=5).requires_grad_(),
            box_representation=bins,
        )
        for _ in range(2)
    )
    maps = [
        [noise(3, 6, *shape).requires_grad_() for shape in anchors.level_shapes] for _ in range(2)
    ]
    lesson = Teaching(teacher, maps[0], maps[1], truth)
    return anchors, student, targets, lesson


def iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height), width * height / areas[0]


def threshold(anchors, box, valid):
    """Mean and (unbiased) deviation of the IoUs of the nearest 9 anchors of each level."""
    center = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
    ious, start = [], 0
    for size in anchors.level_sizes:
        level = [i for i in range(start, start + size) if valid[i]]
        level.sort(key=lambda i: math.dist(anchors.centers[i].tolist(), center))
        ious += [iou(anchors.boxes[i].tolist(), box)[0] for i in level[:9]]
        start += size
    mean = sum(ious) / len(ious)
    return mean + math.sqrt(sum((x - mean) ** 2 for x in ious) / (len(ious) - 1))


def published_region(anchors, boxes, valid, of_anchor):
    """{location: IoU} of get_vlr_region. With ``of_anchor`` as its DIoU is computed there."""
    region = {}
    for box in boxes:
        t = threshold(anchors, box, valid)
        for i, anchor in enumerate(anchors.boxes.tolist()):
            if not valid[i]:
                continue
            overlap, part = iou(anchor, box)
            rho = sum(((anchor[k] + anchor[k + 2] - box[k] - box[k + 2]) / 2) ** 2 for k in (0, 1))
            sides = (max(anchor[k + 2], box[k + 2]) - min(anchor[k], box[k]) for k in (0, 1))
            diou = (part if of_anchor else overlap) - rho / sum(x**2 for x in sides)
            if 0.25 * t <= diou < t:
                region[i] = max(region.get(i, 0.0), overlap)
    return {i: x for i, x in region.items() if x > 0}


def published_kl(student, teacher, temperature):
    """Of a row of logits: the mean over them, times the temperature squared."""
    p, q = (torch.softmax(x / temperature, dim=0) for x in (teacher, student))
    return (p * (p / q).log()).sum() / len(p) * temperature**2


def published_losses(batch, of_anchor):
    """loss_ld, loss_ld_vlr, loss_kd and loss_im of LDHead.loss_single, summed over the levels."""
    anchors, student, targets, lesson = batch
    totals = dict.fromkeys(("ld", "vlr", "kd", "imitation"), 0.0)
    start = 0
    for level, size in enumerate(anchors.level_sizes):
        ld = vlr = kd = 0.0
        positives, squares = 0, []
        for image, size_of_image in enumerate(SIZES):
            valid = anchors.inside([size_of_image])[0]
            region = published_region(anchors, BOXES[image], valid, of_anchor)
            fine = published_fine_grained(anchors, BOXES[image], valid)
            for i in range(start, start + size):
                kl = [
                    published_kl(a, b, 10)
                    for a, b in zip(
                        student.box_logits[image, i], lesson.predictions.box_logits[image, i]
                    )
                ]
                if 0 <= targets.labels[image, i] < 3:
                    positives += 1
                    ld += student.cls_logits[image, i].detach().sigmoid().max() * sum(kl) / 4
                    kd += published_kl(
                        student.cls_logits[image, i], lesson.predictions.cls_logits[image, i], 2
                    )
                if i in region:
                    vlr += region[i] * sum(kl) / 16
                if i in fine:
                    y, x = divmod(i - start, anchors.level_shapes[level][1])
                    own, other = (
                        maps[level][image, :, y, x]
                        for maps in (lesson.own_features, lesson.features)
                    )
                    squares.append((own - other) ** 2)
        totals["ld"] += 0.25 * ld
        totals["vlr"] += 0.25 * vlr
        if positives:
            totals["kd"] += 10 * kd / positives
            totals["imitation"] += 2 * torch.stack(squares).mean() if squares else 0
        start += size
    return totals


def published_fine_grained(anchors, boxes, valid):
    found = set()
    for box in boxes:
        ious = {i: iou(x, box)[0] for i, x in enumerate(anchors.boxes.tolist()) if valid[i]}
        found |= {i for i, x in ious.items() if x > 0.5 * max(ious.values())}
    return found


def published_terms(of_anchor):
    region = ValuableRegion(published_overlap=of_anchor)
    return {
        "ld_loss": LocalizationDistillation(normalised=False),
        "ld_vlr_loss": LocalizationDistillation(region=region, normalised=False),
        "kd_loss": ClassDistillation(normalised=False),
        "imitation_loss": FeatureImitation(normalised=False),
    }


NAMES = {
    "loss_ld": "ld",
    "loss_ld_vlr": "vlr",
    "loss_kd": "kd",
    "loss_imitation": "imitation",
}


@pytest.mark.parametrize("of_anchor", [False, True])
def test_the_published_form(batch, of_anchor):
    anchors, student, targets, lesson = batch
    losses = make_criterion(**published_terms(of_anchor))(anchors, student, targets, lesson)
    expected = published_losses(batch, of_anchor)
    inputs = [student.cls_logits, student.box_logits, *lesson.own_features]
    for name, key in NAMES.items():
        assert losses[name].item() == pytest.approx(expected[key].item(), rel=1e-9), name
        assert losses[name].item() > 0.01
        found, wanted = (
            torch.autograd.grad(x, inputs, retain_graph=True, allow_unused=True)
            for x in (losses[name], expected[key])
        )
        for one, other in zip(found, wanted):
            if other is not None:
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
                continue
            assert one is None or not one.any()


def test_what_the_batch_above_has(batch):
    """Positives that are in the valuable region too, locations on padding, and both flavours of
    DIoU choose other locations."""
    anchors, _, targets, lesson = batch
    regions = [valuable(anchors, lesson.truth, published_overlap=x) > 0 for x in (False, True)]
    positive = (targets.labels >= 0) & (targets.labels < 3)
    assert positive.sum() > 10
    assert (regions[0] & positive).sum() > 2
    assert not torch.equal(*regions)
    assert not regions[0][1].any()  # the image without boxes
    assert (targets.labels == -1).any()


def test_by_hand():
    # Softmaxes at temperature 1: the teacher (1/4, 3/4), the student (1/2, 1/2).
    teacher, student = torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2)
    kl = (math.log(0.5) + 3 * math.log(1.5)) / 4
    assert distillation_loss(student, teacher, 1.0).item() == pytest.approx(kl / 2)
    # Twice the logits at temperature 2 are the same softmaxes; the square of it stays.
    assert distillation_loss(student, 2 * teacher, 2.0).item() == pytest.approx(4 * kl / 2)
    with pytest.raises(ValueError, match=r"inputs have shape \(1, 2\) and targets \(1, 3\)"):
        distillation_loss(student, torch.zeros(1, 3), 1.0)


def losses_of(batch, **terms):
    anchors, student, targets, lesson = batch
    losses = make_criterion(**terms)(anchors, student, targets, lesson)
    return {name: losses[name] for name in NAMES}


def repeated(batch, times):
    """The images of a batch several times."""
    anchors, student, targets, lesson = batch

    def more(x):
        return torch.cat([x] * times)

    truth = lesson.truth
    truth = truth._replace(
        boxes=[*truth.boxes] * times,
        classes=[*truth.classes] * times,
        image_sizes=[*truth.image_sizes] * times,
    )
    return (
        anchors,
        student.with_tensors([more(x) for x in student.tensors]),
        DenseTargets(more(targets.labels), more(targets.boxes)),
        Teaching(
            lesson.predictions.with_tensors([more(x) for x in lesson.predictions.tensors]),
            [more(x) for x in lesson.features],
            [more(x) for x in lesson.own_features],
            truth,
        ),
    )


def test_a_mean_does_not_grow_with_the_batch(batch):
    once, thrice = losses_of(batch), losses_of(repeated(batch, 3))
    for name in NAMES:
        assert thrice[name].item() == pytest.approx(once[name].item(), rel=1e-9), name
    once, thrice = (losses_of(x, **published_terms(False)) for x in (batch, repeated(batch, 3)))
    for name in ("loss_ld", "loss_ld_vlr"):
        assert thrice[name].item() == pytest.approx(3 * once[name].item(), rel=1e-9), name


def test_a_mean_is_the_sum_over_its_weights(batch):
    anchors, student, targets, lesson = batch
    mean, total = losses_of(batch), losses_of(batch, **published_terms(False))
    inputs = make_criterion().loss_inputs(anchors, student, targets)
    ratio = total["loss_ld"] / mean["loss_ld"]  # of weights .25 and 10
    assert ratio.item() == pytest.approx(0.25 / 10 * inputs.total_box_weight.item())
    weights = ValuableRegion()(inputs, lesson).weights
    ratio = total["loss_ld_vlr"] / mean["loss_ld_vlr"]
    assert ratio.item() == pytest.approx(0.25 / 5 * weights.sum().item())


@pytest.mark.parametrize("divisor", [None, at_least_one_an_image, one_more_an_image])
def test_the_mean_over_the_foreground_is_not_the_divisor_of_the_classes(batch, divisor):
    """Which may be a sum of labels, as TOOD's, or count images too."""
    anchors, student, targets, lesson = batch
    criterion = make_criterion(kd_loss=ClassDistillation(weight=1.0), cls_divisor=divisor)
    loss = criterion(anchors, student, targets, lesson)["loss_kd"]
    foreground = (targets.labels >= 0) & (targets.labels < 3)
    rows = zip(student.cls_logits[foreground], lesson.predictions.cls_logits[foreground])
    expected = [published_kl(*row, 2).item() for row in rows]
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-9)


@pytest.mark.parametrize("normalised", [True, False])
def test_a_batch_without_boxes(batch, normalised):
    anchors, student, targets, lesson = batch
    truth = truth_of([Boxes(torch.zeros(0, 4))] * 3, image_sizes=SIZES)
    lesson = lesson._replace(truth=truth)
    targets = targets._replace(labels=torch.full_like(targets.labels, 3))
    terms = {} if normalised else published_terms(False)
    losses = make_criterion(**terms)(anchors, student, targets, lesson)
    for name in NAMES:
        assert losses[name].item() == 0
        grads = torch.autograd.grad(losses[name], student.tensors, retain_graph=True,
                                    allow_unused=True)  # fmt: skip
        assert all(x is None or not x.any() for x in grads)


@pytest.mark.parametrize("normalised", [True, False])
def test_a_box_without_a_positive_location(batch, normalised):
    """Its valuable region is there, and the weights of the foreground add up to 0."""
    anchors, student, targets, lesson = batch
    targets = targets._replace(labels=torch.full_like(targets.labels, 3))
    terms = {} if normalised else published_terms(False)
    losses = make_criterion(**terms)(anchors, student, targets, lesson)
    assert losses["loss_ld"].item() == losses["loss_kd"].item() == 0
    assert 0 < losses["loss_ld_vlr"].item() < 1000


def test_no_gradient_reaches_the_teacher(batch):
    _, student, _, lesson = batch
    total = sum(losses_of(batch).values())
    teacher = [*lesson.predictions.tensors, *lesson.features]
    grads = torch.autograd.grad(total, [*teacher, student.box_logits], allow_unused=True)
    assert all(x is None for x in grads[:-1]) and grads[-1].any()


def test_few_boxes_at_a_time_give_the_same(batch, monkeypatch):
    anchors, _, targets, lesson = batch
    valid = targets.labels >= 0
    once = valuable(anchors, lesson.truth), fine_grained(anchors, lesson.truth, valid)
    monkeypatch.setattr(teaching, "_PAIRS", 2 * len(anchors.boxes))  # two boxes
    again = valuable(anchors, lesson.truth), fine_grained(anchors, lesson.truth, valid)
    assert all(torch.equal(*x) for x in zip(once, again))
    assert once[0].any() and once[1].any()


def test_the_ends_of_the_valuable_region(batch):
    """From DIoU 0 on there are more anchors; from t on there is none."""
    anchors, _, _, lesson = batch
    sizes = []
    for lower in (0, 0.25, 1):
        region = ValuableRegion(lower=lower)
        ious = valuable(anchors, lesson.truth, region.topk, region.lower)
        sizes.append((ious > 0).sum().item())
    assert sizes[0] > sizes[1] > sizes[2] == 0


def test_the_thresholds_are_those_of_the_matcher(batch):
    """The positives of a box that shares no anchor: candidates inside it from its threshold on."""
    anchors = batch[0]
    for boxes in (BOXES[0][:1], BOXES[2][:1]):
        truth = truth_of([Boxes(torch.tensor(boxes))])
        (t,) = adaptive_thresholds(anchors, truth).tolist()
        assert t == pytest.approx(threshold(anchors, boxes[0], [True] * len(anchors.boxes)))
        matched = (ATSSMatcher()(anchors, truth).idxs[0] == 0).nonzero()[:, 0]
        ious = [iou(anchors.boxes[i].tolist(), boxes[0])[0] for i in matched]
        assert min(ious) >= t > 0.1
    empty = truth_of([Boxes(torch.zeros(0, 4))])
    assert adaptive_thresholds(anchors, empty).shape == (0,)


def test_without_a_teacher_its_losses_are_zero(batch):
    anchors, student, targets, _ = batch
    losses = make_criterion()(anchors, student, targets)
    assert [losses[name].item() for name in NAMES] == [0] * 4
    assert losses["loss_cls"] > 0
    only = make_criterion(ld_vlr_loss=None, kd_loss=None, imitation_loss=None)
    assert set(only(anchors, student, targets)) - set(losses) == set()
    assert list(only.lessons) == ["loss_ld"]


def test_what_does_not_fit_is_refused():
    nothing = dict.fromkeys(("ld_loss", "ld_vlr_loss", "kd_loss", "imitation_loss"))
    with pytest.raises(ValueError, match="are None; expected one at least"):
        make_criterion(**nothing)
    with pytest.raises(ValueError, match=r"temperature is 0; expected a number above 0"):
        LocalizationDistillation(temperature=0)
    with pytest.raises(ValueError, match="temperature is '10'; expected a number"):
        ClassDistillation(temperature="10")
    with pytest.raises(ValueError, match="weight is -1"):
        FeatureImitation(weight=-1)
    with pytest.raises(ValueError, match="lower is 2"):
        ValuableRegion(lower=2)
    dirac = make_head(quality_predictor=NoQuality(), box_representation=DiracDistance())
    with pytest.raises(ValueError, match="LocalizationDistillation needs .*bins.*DiracDistance"):
        LocalizationDistillation().check_head(dirac)
    with pytest.raises(ValueError, match="compares classes, and the head has 1"):
        ClassDistillation().check_head(make_head(num_classes=1))
