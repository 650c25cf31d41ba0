"""Mixed precision: the networks may run in half precision, the maths of boxes, scores and losses
does not. Logits reach +-50 here, and further."""

import copy

import numpy as np
import pytest
import torch
from detectron2.engine import AMPTrainer
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.matchers import ATSSMatcher
from gfocal.modeling.numerics import joint_logits
from gfocal.modeling.postprocess import NMSPostProcess
from gfocal.modeling.quality import (
    DistributionGuidedQualityPredictor,
    NoQuality,
    QualityBranch,
    localization_iou,
)
from gfocal.modeling.representations import DiracDistance, GaussianDistance, GeneralDistribution
from gfocal.modeling.structures import DenseAnchors, DensePredictions, DenseTargets, GroundTruth
from gfocal.modeling.terms import (
    DistributionFocalLoss,
    FocalLoss,
    GaussianNLLLoss,
    GIoULoss,
    QualityBranchLoss,
    QualityFocalLoss,
    ScoreLoss,
)
from tests.helpers.detectors import DETECTORS, DETECTRON2S, LARGE_LOSSES, each_detector, losses_of
from tests.helpers.tiny import make_gfl, make_head, make_input

pytestmark = pytest.mark.usefixtures("one_thread")
HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
K = 4
SIZE = (80, 96)
BOXES = [[3.0, 2.0, 63.0, 58.0], [60.0, 5.0, 90.0, 60.0], [0.0, 20.0, 95.0, 79.0]]
# The terms of each recipe once; what each reads of the predictions is in criterion.py.
TERMS = {
    "qfl": {"cls_loss": QualityFocalLoss()},
    "qfl, beta 1": {"cls_loss": QualityFocalLoss(beta=1.0)},
    **{name: {"cls_loss": ScoreLoss(maps=name)} for name in ("focal", "vfl", "mal", "ia_bce")},
    "focal of the class": {"cls_loss": FocalLoss()},
    "quality branch": {
        "cls_loss": FocalLoss(positive_weight=localization_iou),
        "quality_loss": QualityBranchLoss(measure=localization_iou),
        "box_weight": localization_iou,
    },
}


def grid():
    """Strides 8 and 16 on an image of 80 x 96."""
    levels = []
    for stride in (8, 16):
        shape = (SIZE[0] // stride, SIZE[1] // stride)
        rows, columns = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
        centers = stride * torch.stack([columns, rows], dim=-1).flatten(0, 1).float()
        levels.append((Boxes(torch.cat([centers - 4 * stride, centers + 4 * stride], 1)), shape))
    return DenseAnchors.from_levels(*zip(*levels), (8, 16))


def extreme_logits(shape, magnitude):
    """A third each: +magnitude, -magnitude, and something between."""
    logits = torch.empty(shape).uniform_(-magnitude, magnitude)
    kind = torch.randint(0, 3, shape)
    return torch.where(kind == 0, magnitude, torch.where(kind == 1, -magnitude, logits))


def extreme_predictions(dtype, magnitude, representation, quality=True):
    """Two images' predictions in ``dtype``, and the same numbers in float32; all with gradients."""
    locations = len(grid().boxes)
    channels = representation.num_channels
    shapes = [(2, locations, K), (2, locations, 4, channels), (2, locations, 1)]
    logits = [extreme_logits(shape, magnitude).to(dtype) for shape in shapes[: 2 + quality]]
    return tuple(
        DensePredictions(
            *(x.requires_grad_() for x in tensors),
            *[None] * (not quality),
            box_representation=representation,
        )
        for tensors in ([x.clone() for x in logits], [x.float() for x in logits])
    )


def targets():
    boxes = [Boxes(torch.tensor(BOXES)), Boxes(torch.tensor(BOXES[:1]))]
    truth = GroundTruth(boxes, [torch.tensor([0, 3, 1]), torch.tensor([2])])
    return DenseTargets.from_matches(ATSSMatcher()(grid(), truth), truth, K)


def assert_same_losses(half, single, criterion):
    """The losses of half-precision predictions are float32's of the same numbers, and so are their
    gradients but for the rounding to half."""
    for predictions in (half, single):
        losses = criterion(grid(), predictions, targets())
        assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
        sum(losses.values()).backward()
        if predictions is half:
            in_half = losses
    assert losses["loss_cls"] > 0
    torch.testing.assert_close(in_half, losses, rtol=1e-6, atol=0)
    for a, b in zip(half.tensors, single.tensors):
        if b.grad is None:  # a class loss that does not read the quality
            continue
        assert a.grad.dtype == a.dtype and a.grad.isfinite().all()
        torch.testing.assert_close(a.grad, b.grad.to(a.dtype))


@HALF
@pytest.mark.parametrize("magnitude", [5.0, 50.0, 3e4])
@pytest.mark.parametrize(
    ("terms", "quality"), [*((terms, True) for terms in TERMS), ("qfl", False), ("focal", False)]
)
def test_criterion(terms, quality, magnitude, dtype):
    criterion = GFLCriterion(
        **{"box_loss": GIoULoss(), "dist_loss": DistributionFocalLoss(), **TERMS[terms]}
    )
    predictions = extreme_predictions(dtype, magnitude, GeneralDistribution(), quality)
    assert_same_losses(*predictions, criterion)


@HALF
@pytest.mark.parametrize("magnitude", [5.0, 50.0])
def test_criterion_of_dirac_distances(magnitude, dtype):
    criterion = GFLCriterion(cls_loss=QualityFocalLoss(), box_loss=GIoULoss())
    predictions = extreme_predictions(dtype, magnitude, DiracDistance())
    assert_same_losses(*predictions, criterion)


def test_criterion_of_gaussian_distances():
    """A sure and wrong Gaussian costs up to 1024^2 / 1e-6 / 2: more than float16 can write in a
    gradient, so that its own test is bfloat16's. In float16 the loss is finite all the same."""
    criterion = GFLCriterion(cls_loss=QualityFocalLoss(), box_loss=GaussianNLLLoss())
    predictions = extreme_predictions(torch.bfloat16, 50.0, GaussianDistance())
    assert_same_losses(*predictions, criterion)
    half, single = extreme_predictions(torch.float16, 50.0, GaussianDistance())
    a, b = (criterion(grid(), x, targets()) for x in (half, single))
    assert a["loss_box_reg"].isfinite()
    assert torch.equal(a["loss_box_reg"], b["loss_box_reg"])


@HALF
@pytest.mark.parametrize("magnitude", [5.0, 50.0, 3e4])
@pytest.mark.parametrize("quality", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("representation", [DiracDistance, GaussianDistance, GeneralDistribution])
def test_detections(representation, quality, magnitude, dtype):
    """Of half-precision predictions: those of the same numbers in float32."""
    predictions = extreme_predictions(dtype, magnitude, representation(), quality)
    postprocess = NMSPostProcess(topk_candidates=50, max_detections=20)
    with torch.no_grad():
        half, single = (postprocess(grid(), x, [SIZE, SIZE]) for x in predictions)
    for a, b in zip(half, single):
        assert len(a) > 0
        assert a.scores.dtype == a.pred_boxes.tensor.dtype == torch.float32
        assert torch.equal(a.scores, b.scores) and torch.equal(a.anchor_idxs, b.anchor_idxs)
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)


@HALF
def test_scores_next_to_the_threshold(dtype):
    """Each of 1000 scores falls on the side of the threshold where float32 sees it; in half
    precision the threshold itself would be rounded by more than they differ."""
    cls_logits = torch.linspace(-3.1, -2.8, 1000).to(dtype)
    anchors = DenseAnchors(torch.rand(1000, 4), torch.full((1000,), 8.0), [(20, 50)])
    predictions = DensePredictions(
        cls_logits.view(1, -1, 1), torch.zeros(1, 1000, 4, 17), None, GeneralDistribution()
    )
    postprocess = NMSPostProcess(nms_thresh=1.0, max_detections=1000)
    for score_thresh in torch.linspace(0.05, 0.06, 20).tolist():
        postprocess.score_thresh = score_thresh
        (result,) = postprocess(anchors, predictions, [(900, 900)])
        above = (cls_logits.float().sigmoid() > score_thresh).nonzero().flatten()
        assert result.anchor_idxs.sort().values.tolist() == above.tolist()


@HALF
def test_joint_logits(dtype):
    values = torch.tensor([-50.0, -12, -1, 0, 1, 12, 50]).to(dtype)
    a, b = values[:, None], values[None]
    joint = joint_logits(a, b)
    assert joint.dtype == torch.float32
    # log(p / (1 - p)) of p = sigmoid(a) sigmoid(b), with 1 / p - 1 written out
    odds = (-a.double()).exp() + (-b.double()).exp() + (-a.double() - b.double()).exp()
    torch.testing.assert_close(joint.double(), -odds.log(), rtol=1e-6, atol=1e-6)


@HALF
@pytest.mark.parametrize("magnitude", [5.0, 50.0])
def test_dgqp_under_autocast(magnitude, dtype):
    """Statistics and both layers in float32, whatever the head's convolutions ran in."""
    predictor = DistributionGuidedQualityPredictor(add_var=True)
    logits = extreme_logits((2, 30, 4, 17), magnitude).to(dtype)
    expected = predictor(None, logits.float())
    with torch.autocast("cpu", dtype):
        for x in (logits, logits.float()):
            quality = predictor(None, x)
            assert quality.dtype == torch.float32
            assert torch.equal(quality, expected)
            assert torch.nn.Linear(17, 2)(x).dtype == dtype  # autocast was on
    assert expected.std() > 0


def extreme_gfl(quality_predictor):
    """A detector and a batch on which its logits are between -50 and 50, both reached in size."""
    model = make_gfl(head=make_head(3, quality_predictor))
    batch = [make_input(*SIZE, BOXES, [0, 2, 1]), make_input(64, 48)]
    head = model.head
    last = [getattr(quality_predictor, x) for x in ("conv", "fc2") if hasattr(quality_predictor, x)]
    last = [head.cls_logits, head.box_logits, *last]
    for layer in (*head.cls_tower, *head.box_tower, *last):
        torch.nn.init.normal_(layer.weight, std=0.2)
        torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for _ in range(2):  # the quality depends on the distributions
            for layer, logits in zip(last, model.forward_dense(batch)[2].tensors):
                middle = logits.median()
                scale = 50 / (logits - middle).abs().max()
                layer.weight *= scale
                layer.bias.copy_((layer.bias - middle) * scale)
    return model, batch


QUALITIES = pytest.mark.parametrize(
    "quality",
    [NoQuality, DistributionGuidedQualityPredictor, lambda: QualityBranch(8)],
    ids=["v1", "v2", "branch"],
)


@HALF
@QUALITIES
def test_detector_under_autocast(quality, dtype, monkeypatch):
    """With logits of +-50: the losses are those of float32 on the logits of half precision, which
    are near float32's; what the criterion sees of the boxes is float32."""
    model, batch = extreme_gfl(quality())
    expected = model(batch)
    seen = {}
    compute = model.criterion.forward

    def spy(anchors, predictions, targets):
        seen["arguments"] = anchors, predictions, targets
        seen["inputs"] = model.criterion.loss_inputs(*seen["arguments"])
        return compute(*seen["arguments"])

    monkeypatch.setattr(model.criterion, "forward", spy)
    with torch.autocast("cpu", dtype):
        assert model.head.cls_logits(torch.zeros(1, 8, 2, 2)).dtype == dtype  # autocast is on
        losses = model(batch)
    predictions, inputs = seen["arguments"][1], seen["inputs"]
    assert max(x.abs().max() for x in predictions.tensors) > 45
    assert {x.dtype for x in predictions.tensors} == {torch.float32}
    floating = [x for x in inputs if isinstance(x, torch.Tensor) and x.is_floating_point()]
    assert {x.dtype for x in floating} == {torch.float32}
    torch.testing.assert_close(losses, compute(*seen["arguments"]), rtol=0, atol=0)
    assert all(loss.isfinite() for loss in losses.values())
    torch.testing.assert_close(losses, expected, rtol=0.03, atol=1e-3)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.head.parameters() if p.grad is not None)


@HALF
@QUALITIES
def test_inference_under_autocast(quality, dtype):
    model, batch = extreme_gfl(quality())
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype):
        images, anchors, predictions = model.forward_dense(batch)
        results = [x["instances"] for x in model(batch)]
    with torch.no_grad():
        expected = model.inference(anchors, predictions, images.image_sizes)
    assert sum(map(len, results)) > 0
    for result, other in zip(results, expected):
        assert result.scores.dtype == result.pred_boxes.tensor.dtype == torch.float32
        assert torch.equal(result.scores, other[other.pred_boxes.nonempty()].scores)
        assert result.pred_boxes.tensor.isfinite().all() and (result.scores <= 1).all()


@HALF
@each_detector
def test_every_detector_under_autocast(name, dtype):
    model = DETECTORS[name](test_score_thresh=0.0)
    batch = [make_input(*SIZE, BOXES, [0, 2, 1]), make_input(*SIZE)]
    expected = losses_of(copy.deepcopy(model), batch)
    with torch.autocast("cpu", dtype):
        losses = losses_of(model, batch)
        with torch.no_grad():
            results = [x["instances"] for x in model.eval()(batch)]
    for key, loss in losses.items():
        assert loss.dtype == torch.float32, key
        torch.testing.assert_close(loss, expected[key], rtol=0.05, atol=1e-3)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    for result in results:
        assert len(result) > 0
        assert result.scores.dtype == torch.float32 or name in DETECTRON2S
        assert result.pred_boxes.tensor.isfinite().all()
        assert ((result.scores >= 0) & (result.scores <= 1)).all()


@each_detector
def test_steps_in_float16_with_a_gradient_scaler(name):
    """The training step of CUDA, on a CPU: no step is skipped at the scale that it starts with."""
    model = DETECTORS[name]()
    before = copy.deepcopy(dict(model.named_parameters()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** (8 if name in LARGE_LOSSES else 16))
    start = scaler.get_scale()
    for boxes in (BOXES, [], BOXES[:1]):
        with torch.autocast("cpu", torch.float16):
            loss = sum(losses_of(model, [make_input(*SIZE, boxes)]).values())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert loss.isfinite() and scaler.get_scale() == start
    assert all(p.isfinite().all() for p in model.parameters())
    parts = {key.partition(".")[0] for key in before}
    moved = {k.partition(".")[0] for k, p in model.named_parameters() if not p.equal(before[k])}
    assert moved == parts


@QUALITIES
def test_recovery_in_float16(quality):
    """From logits of +-50 the first gradients overflow float16 at the scale that the scaler starts
    with. It finds one that fits, and the losses fall."""
    model, batch = extreme_gfl(quality())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler("cpu")
    losses = []
    for _ in range(20):
        with torch.autocast("cpu", torch.float16):
            loss = sum(model(batch).values())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@QUALITIES
def test_losses_on_cuda(quality):
    model, batch = extreme_gfl(quality())
    model.cuda()
    expected = {name: loss.item() for name, loss in model(batch).items()}
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cuda", dtype):
            losses = model(batch)
        assert {loss.dtype for loss in losses.values()} == {torch.float32}
        losses = {name: loss.item() for name, loss in losses.items()}
        assert losses == pytest.approx(expected, rel=0.05, abs=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@QUALITIES
def test_steps_on_cuda(quality):
    """Detectron2's AMPTrainer, which is the training step of gfocal's trainers on CUDA."""
    model = make_gfl(quality_predictor=quality()).cuda()
    batches = [[make_input(*SIZE, boxes)] for boxes in (BOXES, [], BOXES[:1])]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trainer = AMPTrainer(model, batches, optimizer)
    start = trainer.grad_scaler.get_scale()
    with EventStorage(0) as storage:
        for trainer.iter in range(len(batches)):
            trainer.run_step()
            assert np.isfinite(storage.latest()["total_loss"][0])
            storage.step()
    assert trainer.grad_scaler.get_scale() == start
    assert all(parameter.isfinite().all() for parameter in model.parameters())
