"""What makes a GPU's queue run empty: a step of training reads one number from it, a call of
inference three times. (On a CPU the same operators run, so they can be counted here.)"""

import pytest
import torch

from gfocal.modeling.matchers import DynamicATSSMatcher, TaskAlignedMatcher
from tests.helpers.detectors import DETECTORS, each_of_ours
from tests.helpers.synchronisations import Synchronisations
from tests.helpers.tiny import make_gfl, make_input


def make_step(device="cpu", **parts):
    """Targets, losses and their backward, of the full model's parts."""
    model = make_gfl(**parts).to(device).train()
    inputs = [
        make_input(64, 96, [[0, 0, 60, 60], [8, 8, 60, 64]], [0, 1]),
        make_input(80, 64, [[0, 0, 64, 80]], [2]),
    ]
    with torch.no_grad():
        _, anchors, predictions = model.forward_dense(inputs)
    for logits in predictions.tensors:
        logits.requires_grad_()
    truth = model.ground_truth(inputs, [(64, 96), (80, 64)])

    def match():
        return model.label_anchors(anchors, predictions, truth)

    def losses(targets):
        return sum(model.criterion(anchors, predictions, targets).values())

    return match, losses


def test_training():
    match, losses = make_step()
    with Synchronisations() as matching:
        targets = match()
    assert matching.found == []
    assert (targets.matched_idxs >= 0).sum() > 2
    with Synchronisations() as losing:
        loss = losses(targets)
    assert losing.found == [("nonzero", "criterion.py")]  # which locations are foreground
    with Synchronisations() as backward:
        loss.backward()
    assert {file for _, file in backward.found} <= {
        "score_losses.py"
    }  # on a CPU only: is it times 1?


@pytest.mark.parametrize("matcher", [TaskAlignedMatcher, DynamicATSSMatcher])
def test_matchers_that_read_predictions(matcher):
    """Which locations are decoded. (On a CPU, the first's number of pairs is no operator.)"""
    match, _ = make_step(matcher=matcher())
    with Synchronisations() as matching:
        match()
    assert matching.found == [("nonzero", "batch.py")]


# How often a step of training, and an inference before NMS, read a number. Most of SSD's and
# CenterNet's are masks as indices. SSD's of inference are in its NMS.
READS = {"ssd": (19, 7), "centernet": (12, 2), "cornernet": (2, 1)}


@each_of_ours
def test_every_detector(name):
    """Targets, losses and detections of the network's outputs, for three boxes as for thirty."""
    model = DETECTORS[name](test_score_thresh=0.0)
    found = []
    for count in (1, 10):
        boxes = [[0, 0, 60, 60], [8, 8, 60, 64], [30, 20, 90, 60]] * count
        inputs = [make_input(64, 96, boxes, [0, 1, 2] * count), make_input(64, 96)]
        images = model.preprocess_image(inputs)
        truth = model.ground_truth(inputs, images.image_sizes)
        outputs = model.train().predict(images.tensor)
        with Synchronisations() as training:
            model.losses(*outputs, truth, inputs)
        with torch.no_grad():
            outputs = model.eval().predict(images.tensor[:1])
            with Synchronisations() as inference:
                model.inference(*outputs, images.image_sizes[:1])
        found.append((training.found, inference.found))
    assert found[0] == found[1]
    assert tuple(len(x) for x in found[0]) == READS.get(name, (1, 2)), found[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_training_on_cuda():
    match, losses = make_step("cuda")
    losses(match()).backward()
    try:
        torch.cuda.set_sync_debug_mode("error")
        targets = match()
        torch.cuda.set_sync_debug_mode("warn")
        with pytest.warns(UserWarning, match="synchronizing") as warnings:
            losses(targets).backward()
        assert len(warnings) == 1  # which locations are foreground
    finally:
        torch.cuda.set_sync_debug_mode("default")
