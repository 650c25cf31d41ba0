"""Optimizers with gradient clipping."""

import copy

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.solver.build import get_default_optimizer_params
from torch import nn

from gfocal.solver import SGD, Adam, AdamW


def _step(optimizer, *gradients):
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = torch.tensor(gradient)
    before = [p.detach().clone() for p in parameters]
    optimizer.step()
    return [(old - new.detach()).tolist() for old, new in zip(before, parameters)]


def _parameters():
    return [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]


def test_the_norm_is_over_all_parameters():
    """Gradients 30 and 40 have norm 50; clipped at 5 they are 3 and 4. At lr 0.5: 1.5 and 2."""
    steps = _step(SGD(_parameters(), lr=0.5, max_grad_norm=5.0), [30.0], [40.0])
    assert steps == [pytest.approx([1.5], rel=1e-5), pytest.approx([2.0], rel=1e-5)]
    # Also where each parameter is a group of its own, as Detectron2 0.5 makes them.
    groups = [{"params": [p]} for p in _parameters()]
    steps = _step(SGD(groups, lr=0.5, max_grad_norm=5.0), [30.0], [40.0])
    assert steps == [pytest.approx([1.5], rel=1e-5), pytest.approx([2.0], rel=1e-5)]


def test_a_small_gradient_stays():
    assert _step(SGD(_parameters(), lr=1.0, max_grad_norm=5.0), [3.0], [3.5]) == [[3.0], [3.5]]


def test_without_clipping_it_is_torch_sgd():
    assert _step(SGD(_parameters(), lr=1.0), [30.0], [40.0]) == [[30.0], [40.0]]


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_adam_and_adamw_clip_too(kind):
    """The first step of Adam is lr * g / (|g| + eps), here 1/2 where the clipped g equals eps."""
    arguments = {"lr": 1.0, "weight_decay": 0.0, "eps": 3.0}
    steps = _step(kind(_parameters(), max_grad_norm=5.0, **arguments), [30.0], [40.0])
    assert steps == [pytest.approx([3 / 6], rel=1e-5), pytest.approx([4 / 7], rel=1e-5)]
    steps = _step(kind(_parameters(), **arguments), [30.0], [40.0])
    assert steps == [pytest.approx([30 / 33], rel=1e-5), pytest.approx([40 / 43], rel=1e-5)]


def test_a_fused_step_is_refused():
    with pytest.raises(ValueError, match="fused=True"):
        SGD(_parameters(), lr=1.0, max_grad_norm=1.0, fused=True)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), "abc"])
def test_bad_norm(value):
    with pytest.raises(ValueError, match=r"max_grad_norm is .*; expected None or above 0"):
        SGD(_parameters(), lr=1.0, max_grad_norm=value)


def test_from_a_config_and_back_from_a_checkpoint():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    config = L(SGD)(
        params=L(get_default_optimizer_params)(),
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        max_grad_norm=1.0,
    )
    config.params.model = model
    optimizer = instantiate(config)
    groups = optimizer.param_groups
    assert sum(len(group["params"]) for group in groups) == 4
    # The official code decays every parameter, batch norm included.
    assert {group["weight_decay"] for group in groups} == {1e-4}
    model(torch.randn(2, 1, 3, 3)).square().mean().backward()
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    restored = instantiate(config)
    restored.load_state_dict(state)
    assert restored.max_grad_norm == 1.0
    assert len(restored.state) == len(optimizer.state) == 4
