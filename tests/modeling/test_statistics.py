"""What training says about its targets."""

import logging

import pytest
import torch
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from gfocal.modeling.dense import DenseStep
from gfocal.modeling.representations import DiracDistance, GeneralDistribution
from gfocal.modeling.statistics import TargetStatistics
from gfocal.modeling.structures import DenseAnchors, DensePredictions, DenseTargets, Matches
from tests.helpers.tiny import make_gfl, make_input, truth_of


def batch(reg_max=4):
    """Two levels of one row: 4 locations of stride 8, 2 of stride 16; all logits 0, so that every
    side lies reg_max / 2 strides away."""
    levels = []
    for width, stride in ((4, 8.0), (2, 16.0)):
        x = torch.arange(width) * stride
        levels.append(Boxes(torch.stack([x - 1, x * 0 - 1, x + 1, x * 0 + 1], dim=1)))
    anchors = DenseAnchors.from_levels(levels, [(1, 4), (1, 2)], [8, 16])
    predictions = DensePredictions(
        torch.zeros(2, 6, 3),
        torch.zeros(2, 6, 4, reg_max + 1),
        box_representation=GeneralDistribution(reg_max=reg_max),
    )
    # Image 0: box 0 has location 1, (8, 0) of stride 8, and location 5, (16, 0) of stride 16;
    # box 1 has none. Image 1: its only box has location 2, (16, 0) of stride 8.
    matched = torch.full((2, 6), -1)
    matched[0, [1, 5]] = 0
    matched[1, 2] = 0
    matched[1, 5] = -2
    boxes = [
        Boxes(torch.tensor([[-8.0, -16.0, 24.0, 16.0], [1.0, 1.0, 2.0, 2.0]])),
        Boxes(torch.tensor([[0.0, -16.0, 64.0, 16.0]])),
    ]
    return step_of(anchors, predictions, matched, boxes)


def step_of(anchors, predictions, matched, boxes):
    truth = truth_of(boxes)
    targets = DenseTargets.from_matches(Matches(matched), truth, num_classes=3)
    return DenseStep(anchors, predictions, truth, targets)


def test_by_hand():
    statistics = TargetStatistics(period=1, level_names=["p3", "p4"])
    with EventStorage() as storage:
        statistics(None, batch())
        values = {name: value for name, (value, _) in storage.latest().items()}
    # Predicted: [-8, -16, 24, 16] (IoU 1), [-16, -32, 48, 32] (32 * 32 of 64 * 64: 1/4) and, of
    # image 1, [0, -16, 32, 16] (half of the true box: 1/2).
    assert values == {
        "positives_per_image": 1.5,
        "boxes_without_positive": pytest.approx(1 / 3),
        "mean_iou_of_positives": pytest.approx((1 + 1 / 4 + 1 / 2) / 3),
        # Image 1's right side lies 48 px = 6 strides from (16, 0), beyond 4: one of p3's 8 sides.
        "clipped_dfl_targets/p3": 1 / 8,
        "clipped_dfl_targets/p4": 0.0,
    }


def test_a_side_behind_the_first_location_of_a_level():
    """As ``match_every_box`` has them: the location lies left of its box."""
    anchors, predictions, *_ = batch()
    matched = torch.full((2, 6), -1)
    matched[0, 4] = 0  # (0, 0) of stride 16
    boxes = [Boxes(torch.tensor([[8.0, -16.0, 48.0, 16.0]])), Boxes(torch.zeros(0, 4))]
    with EventStorage() as storage:
        TargetStatistics(1, ["p3", "p4"])(None, step_of(anchors, predictions, matched, boxes))
        values = {name: value for name, (value, _) in storage.latest().items()}
    assert values["clipped_dfl_targets/p4"] == 1 / 4
    assert "clipped_dfl_targets/p3" not in values


def test_one_warning(caplog):
    statistics = TargetStatistics(period=1, level_names=["p3", "p4"])
    statistics.MIN_SIDES = 24  # two batches
    with EventStorage(), caplog.at_level(logging.WARNING):
        statistics(None, batch())
        assert not caplog.records
        for _ in range(3):
            statistics(None, batch())
    (record,) = caplog.records
    assert "8.3% of the sides" in record.message
    assert "from 0 to 4 strides (reg_max = 4)" in record.message


def test_no_warning_where_boxes_fit(caplog):
    statistics = TargetStatistics(period=1, level_names=["p3", "p4"])
    statistics.MIN_SIDES = 1
    with EventStorage(), caplog.at_level(logging.WARNING):
        statistics(None, batch(reg_max=6))
    assert not caplog.records


def test_nothing_to_see():
    """No boxes, and a representation without bins."""
    anchors = batch().anchors
    predictions = DensePredictions(
        torch.zeros(1, 6, 3), torch.zeros(1, 6, 4, 1), None, DiracDistance()
    )
    step = step_of(anchors, predictions, torch.full((1, 6), -1), [Boxes(torch.zeros(0, 4))])
    with EventStorage() as storage:
        TargetStatistics(1, ["p3", "p4"])(None, step)
        assert {k: v for k, (v, _) in storage.latest().items()} == {"positives_per_image": 0.0}


def test_in_training():
    model = make_gfl(statistics_period=2).train()
    inputs = [make_input(64, 96, [[8, 8, 60, 50]])]
    model(inputs)  # without an event storage there is nowhere to put anything
    with EventStorage() as storage:
        for iteration in range(3):
            storage.iter = iteration
            model(inputs)
        history = storage.history("positives_per_image")
        assert [iteration for _, iteration in history.values()] == [0, 2]
        assert storage.history("boxes_without_positive").latest() == 0
    model = make_gfl(statistics_period=0).train()
    with EventStorage() as storage:
        model(inputs)
        assert storage.latest() == {}
