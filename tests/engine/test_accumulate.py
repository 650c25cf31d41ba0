"""Several micro-batches a step: the gradients of one batch as large as all of them."""

import copy
import logging

import pytest
import torch
from detectron2.config import instantiate
from detectron2.engine import SimpleTrainer
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.utils.events import EventStorage
from torch import nn

from gfocal.engine import LazyTrainer
from gfocal.engine.steps import AccumulatingAMPTrainer, AccumulatingTrainer, step_class
from gfocal.modeling import recipes
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.matchers import ATSSMatcher, FCOSMatcher, TaskAlignedMatcher
from gfocal.modeling.quality import matched_quality
from gfocal.modeling.terms import FocalLoss
from tests.helpers.tiny import TinyBackbone, make_gfl, make_head, make_input
from tests.helpers.tiny_retinanet import make_retinanet

pytestmark = pytest.mark.usefixtures("one_thread")


def images():
    """Two, one, no and one box, of one size: nothing is padded."""
    return [
        make_input(64, 96, [[4, 4, 60, 56], [30, 20, 90, 60]], [0, 2]),
        make_input(64, 96, [[10, 0, 70, 50]], [1]),
        make_input(64, 96),
        make_input(64, 96, [[0, 0, 90, 60]], [2]),
    ]


def stepped(model, batches, accumulate=None, steps=1, **kwargs):
    """The trainer of copies of a model after steps of all the batches, and its storage."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=kwargs.pop("lr", 0.0))
    if accumulate is None:
        trainer = SimpleTrainer(model, batches * steps, optimizer)
    else:
        trainer = AccumulatingTrainer(
            model, batches * steps, optimizer, accumulate=accumulate, **kwargs
        )
    trainer.iter = 0
    with EventStorage() as storage:
        for iteration in range(steps):
            storage.iter = trainer.iter = iteration
            trainer.run_step()
    return trainer, storage


def assert_like_one_batch(model, lr=0.0, steps=1, rtol=1e-9, atol=1e-12):
    """Four micro-batches of one image, and two of two, against one batch of four."""
    batch = images()
    whole, expected = stepped(model, [batch], steps=steps, lr=lr)
    for size in (1, 2):
        batches = [batch[i : i + size] for i in range(0, 4, size)]
        parts, storage = stepped(model, batches, len(batches), steps, lr=lr)
        found = dict(parts.model.named_parameters())
        for name, parameter in whole.model.named_parameters():
            torch.testing.assert_close(found[name].grad, parameter.grad, rtol=rtol, atol=atol)
            torch.testing.assert_close(found[name], parameter, rtol=rtol, atol=atol)
        assert any(p.grad.abs().max() > 1e-4 for p in found.values())
        for name in ("total_loss", "loss_cls", "loss_box_reg"):
            for one, other in zip(storage.history(name).values(), expected.history(name).values()):
                assert one[0] == pytest.approx(other[0], rel=rtol)
    return whole, parts


MATCHERS = {"atss": ATSSMatcher, "fcos": FCOSMatcher, "task aligned": TaskAlignedMatcher}


def detector(quality, box, matcher):
    parts = recipes.pick(recipes.QUALITY, quality, "") | recipes.pick(recipes.BOX, box, "")
    predictor = parts.pop("quality_predictor")
    if "in_channels" in predictor:
        predictor.in_channels = 8
    head = make_head(
        quality_predictor=instantiate(predictor),
        box_representation=instantiate(parts.pop("box_representation")),
    )
    criterion = GFLCriterion(**{k: instantiate(v) for k, v in parts.items()})
    if matcher == "task aligned":
        criterion.cls_loss.measure = criterion.box_weight = matched_quality
        criterion.cls_divisor = None
    for layer in (head.cls_logits, head.box_logits):
        nn.init.normal_(layer.weight, std=0.2)
    model = make_gfl(head=head, criterion=criterion, matcher=MATCHERS[matcher]())
    return model.double()


# Every quality, every box, every matcher.
CASES = [(q, "general_dfl", "atss") for q in recipes.QUALITY]
CASES += [("dgqp_branch" if b.startswith("general") else "qfl", b, "fcos") for b in recipes.BOX]
CASES += [("qfl", "general_dfl", "task aligned")]


@pytest.mark.parametrize(("quality", "box", "matcher"), CASES)
def test_gradients_and_losses_of_one_batch(quality, box, matcher):
    model = detector(quality, box, matcher)
    if isinstance(model.criterion.cls_loss, FocalLoss):  # fvcore computes it in float32
        assert_like_one_batch(model, rtol=1e-5, atol=1e-8)
    else:
        assert_like_one_batch(model)


@pytest.mark.parametrize("warmup_iters", [1, 2])
def test_a_warm_up_ends_in_both_passes(warmup_iters):
    """Two matchers label the steps: the sums are those of the one that labels this step."""
    model = detector("qfl", "general_dfl", "task aligned")
    model.matcher = TaskAlignedMatcher(warmup_iters=warmup_iters)
    assert_like_one_batch(model, steps=4)


def test_several_steps_of_retinanet_with_its_running_normaliser():
    model = make_retinanet(head_in_features=["p3", "p4"]).double()
    whole, parts = assert_like_one_batch(model, lr=0.01, steps=3)
    assert parts.model.loss_normalizer == whole.model.loss_normalizer != 100


class Noisy(TinyBackbone):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.2)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(self.dropout(self.norm(x)))


def test_the_first_pass_leaves_no_trace():
    """Dropout draws the same in both passes; batch norm counts each once."""
    model = make_gfl(backbone=Noisy()).double()
    batch = images()
    torch.manual_seed(3)
    _, expected = stepped(model, [batch])
    after_one = torch.rand(1)
    seen = []
    model.observers.append(lambda core, step: seen.append(step))
    torch.manual_seed(3)
    parts, storage = stepped(model, [batch], 1)
    assert torch.equal(torch.rand(1), after_one)
    assert parts.model.backbone.norm.num_batches_tracked == parts.model.backbone.calls == 1
    assert len(seen) == 1
    total = [x.history("total_loss").latest() for x in (storage, expected)]
    assert total[0] == total[1]

    parts, storage = stepped(model, [batch[:2], batch[2:]], 2)
    assert parts.model.backbone.norm.num_batches_tracked == parts.model.backbone.calls == 2
    # One value a step, the mean: as of one batch.
    for name in ("positives_per_image", "total_loss"):
        assert len(storage.history(name).values()) == 1
    positives = [x.history("positives_per_image").latest() for x in (storage, expected)]
    assert positives[0] == positives[1] > 0


def test_the_sums_of_micro_batches_must_be_alike():
    class Uneven(GFLCriterion):
        def forward(self, anchors, predictions, targets):
            if not (targets.labels < 3).any():
                return {"loss_cls": predictions.cls_logits.sum()}
            return super().forward(anchors, predictions, targets)

    parts = vars(make_gfl().criterion)["_modules"]
    model = make_gfl(criterion=Uneven(**parts))
    with pytest.raises(ValueError, match="micro-batches of a step sum .*; expected the same sums"):
        stepped(model, [images()[1:2], images()[2:3]], 2)


def test_losses_without_a_common_sum_are_averaged(caplog):
    """Detectron2's own RetinaNet: said once, and its running normaliser has seen each once."""
    model = make_retinanet(cls=RetinaNet).double()
    batches = [images()[:2], images()[2:]]
    with caplog.at_level(logging.WARNING):
        parts, _ = stepped(model, batches, 2, steps=2)
    assert caplog.text.count("divided by no sum over the whole batch") == 1
    expected = copy.deepcopy(model)
    for batch in batches * 2:
        expected.zero_grad() if batch is batches[0] else None
        with EventStorage():
            (sum(expected(batch).values()) / 2).backward()
    assert parts.model.loss_normalizer == expected.loss_normalizer
    for one, other in zip(parts.model.parameters(), expected.parameters()):
        torch.testing.assert_close(one.grad, other.grad)


def test_mixed_precision():
    model = make_gfl()
    batch = images()
    _, expected = stepped(model, [batch])
    _, storage = stepped(model, [batch[:2], batch[2:]], 2, precision=torch.bfloat16)
    values = [x.history("total_loss").latest() for x in (storage, expected)]
    assert values[0] == pytest.approx(values[1], rel=0.02)
    assert values[0] != values[1]


def test_a_gradient_scaler_sees_one_gradient_a_step():
    model = make_gfl()
    batch = images()
    batches = [batch[:2], batch[2:]]
    whole, _ = stepped(model, [batch], lr=0.1)
    copied = copy.deepcopy(model)
    optimizer = torch.optim.SGD(copied.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer = AccumulatingAMPTrainer(
        copied, batches * 2, optimizer, grad_scaler=scaler, accumulate=2
    )
    trainer.iter = 0
    with EventStorage():
        trainer.run_step()
        for one, other in zip(copied.parameters(), whole.model.parameters()):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        assert trainer.state_dict()["grad_scaler"]["scale"] == 8
        before = [x.detach().clone() for x in copied.parameters()]
        with torch.no_grad():
            scaler._scale.fill_(float("inf"))  # an overflow skips the step, and lowers the scale
        trainer.run_step()
        assert all(map(torch.equal, before, copied.parameters()))


def test_an_iteration_is_a_step_of_the_optimizer(toy_config):
    trainer = LazyTrainer(toy_config("+train.accumulate=3", "train.max_iter=4"))
    steps = []
    trainer.optimizer.register_step_post_hook(lambda *args: steps.append(1))
    trainer.train()
    assert len(steps) == 4
    assert trainer.data_loader.num_batches == 12


def test_the_step_follows_precision_and_device():
    cpu = nn.Linear(1, 1)
    with torch.device("meta"):
        elsewhere = nn.Linear(1, 1)
    steps = [
        step_class(m, amp=amp, accumulate=2) for m in (cpu, elsewhere) for amp in (False, True)
    ]
    assert [x.func for x in steps] == [AccumulatingTrainer] * 3 + [AccumulatingAMPTrainer]
    precisions = [x.keywords.get("precision") for x in steps]
    assert precisions == [None, torch.bfloat16, None, torch.float16]


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_values_that_are_no_number_of_micro_batches(toy_config, value):
    cfg = toy_config()
    cfg.train.accumulate = value
    with pytest.raises(ValueError, match=r"train.accumulate is .*; expected an integer, at"):
        LazyTrainer(cfg)
