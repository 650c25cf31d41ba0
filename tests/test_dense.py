"""The seam: losses and detections on tensors and tuples, parts that do not fit, observers."""

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from torch import nn

from gfocal.criterion import GFLCriterion
from gfocal.matchers import ATSSMatcher
from gfocal.postprocess import NMSPostProcess
from gfocal.quality import NoQuality, localization_iou, matched_quality
from gfocal.representations import DiracDistance, GeneralDistribution
from gfocal.structures import DensePredictions, Matches
from gfocal.terms import (
    DistributionFocalLoss,
    FocalLoss,
    GaussianNLLLoss,
    GIoULoss,
    QualityBranchLoss,
    QualityFocalLoss,
)
from tests.helpers.tiny import make_gfl, make_head, make_input

BOX = [3.0, 2.0, 63.0, 58.0]


def criterion_of(**terms):
    return GFLCriterion(**{"cls_loss": QualityFocalLoss(), "box_loss": GIoULoss(), **terms})


def test_losses_and_detections_of_tensors():
    """What the detector says of images is what its core says of the head's answers."""
    model = make_gfl(test_score_thresh=0.001)
    batch = [make_input(64, 96, [BOX]), make_input(64, 64)]
    images, anchors, predictions = model.forward_dense(batch)
    losses = model.losses(anchors, predictions, model.ground_truth(batch, images.image_sizes))
    assert losses == model(batch)
    model.eval()
    with torch.no_grad():
        results = model.inference(anchors, predictions, images.image_sizes)
        for result, expected in zip(results, model(batch)):
            assert torch.equal(result.scores, expected["instances"].scores)


@pytest.mark.parametrize(
    ("head", "terms", "message"),
    [
        (
            {"box_representation": DiracDistance(), "quality_predictor": NoQuality()},
            {"dist_loss": DistributionFocalLoss()},
            "DistributionFocalLoss needs a box representation with to_bins, which DiracDistance",
        ),
        (
            {"box_representation": DiracDistance(), "quality_predictor": NoQuality()},
            {"box_loss": GaussianNLLLoss()},
            "GaussianNLLLoss needs a box representation with std, which DiracDistance",
        ),
        (
            {"quality_predictor": NoQuality()},
            {"cls_loss": FocalLoss(), "quality_loss": QualityBranchLoss(measure=localization_iou)},
            "no quality to train",
        ),
    ],
)
def test_terms_that_do_not_fit_the_head(head, terms, message):
    with pytest.raises(ValueError, match=message):
        make_gfl(head=make_head(**head), criterion=criterion_of(**terms))


class PerLocation(nn.Module):
    def forward(self, inputs):
        return inputs.box_weights


class ReadsWhatIsNotThere(nn.Module):
    def forward(self, inputs):
        return inputs.predictions.box_representation.entropy()


class Counts(nn.Module):
    """A term with a running state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += 1
        return inputs.box_weights.sum()


def test_a_term_that_answers_no_scalar_is_refused():
    with pytest.raises(ValueError, match=r"loss_quality, PerLocation, answered \(1,\); .* scalar"):
        make_gfl(criterion=criterion_of(quality_loss=PerLocation()))


def test_a_term_that_cannot_read_the_representation_is_refused():
    with pytest.raises(ValueError, match="do not fit .* GeneralDistribution.*'entropy'"):
        make_gfl(criterion=criterion_of(quality_loss=ReadsWhatIsNotThere()))


def test_trying_the_terms_leaves_no_trace():
    term = Counts()
    criterion, head = criterion_of(quality_loss=term), make_head()
    before = torch.get_rng_state()
    criterion.check_head(head)
    assert term.calls == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_on_the_meta_device_there_is_nothing_to_try():
    with torch.device("meta"):
        assert make_gfl().head.cls_logits.weight.device.type == "meta"


def test_a_quality_predictor_of_too_few_channels():
    with pytest.raises(ValueError, match="topk is 4 but a side has 3 channels"):
        make_head(box_representation=GeneralDistribution(reg_max=2))


def test_a_head_without_what_is_read_of_it():
    class Head(nn.Module):
        num_classes = 3

    with pytest.raises(TypeError, match="Head has no num_levels, box_representation; expected"):
        make_gfl(head=Head())


class FirstBox:
    """Everything is the first box's, with a soft label of its score."""

    def __call__(self, anchors, truth, predictions):
        assert not predictions.cls_logits.requires_grad
        shape = (len(truth.boxes), len(anchors.boxes))
        return Matches(
            torch.zeros(shape, dtype=torch.int64), predictions.joint_logits().sigmoid().amax(-1)
        )


def test_a_matcher_may_read_predictions_and_hand_back_a_soft_label():
    """QFL of a label that is the score itself: nothing is left of the positives' class."""
    model = make_gfl(
        num_classes=1,
        matcher=FirstBox(),
        criterion=criterion_of(cls_loss=QualityFocalLoss(measure=matched_quality)),
    )
    losses = model([make_input(64, 64, [BOX])])
    assert losses["loss_cls"].item() == pytest.approx(0, abs=1e-10)
    assert losses["loss_box_reg"] > 0


def test_a_soft_label_that_nobody_gave():
    model = make_gfl(criterion=criterion_of(cls_loss=QualityFocalLoss(measure=matched_quality)))
    with pytest.raises(ValueError, match="matched_quality has nothing to read"):
        model([make_input(64, 64, [BOX])])


def test_a_matcher_of_the_old_contract():
    model = make_gfl(matcher=lambda anchors, truth, predictions: torch.zeros(1, 80))
    with pytest.raises(TypeError, match=r"answered a Tensor; expected .*Matches"):
        model([make_input(64, 64, [BOX])])


def test_an_index_beyond_an_images_boxes():
    def matcher(anchors, truth, predictions):
        matches = ATSSMatcher()(anchors, truth)
        return Matches(torch.where(matches.idxs == 0, 1, matches.idxs))

    model = make_gfl(matcher=matcher)
    with pytest.raises(ValueError, match="matcher matcher gave location .* of image 0 .* index 1"):
        model([make_input(64, 64, [BOX]), make_input(64, 64, [BOX])])


def test_post_processing_is_a_part():
    class Nothing:
        def __call__(self, anchors, predictions, image_sizes):
            return [Instances(size, pred_boxes=[], scores=torch.zeros(0)) for size in image_sizes]

    model = make_gfl(postprocess=Nothing()).eval()
    images, anchors, predictions = model.forward_dense([make_input(64, 96)])
    (result,) = model.inference(anchors, predictions, images.image_sizes)
    assert len(result) == 0
    model = make_gfl(postprocess=NMSPostProcess(score_thresh=0.3, nms_thresh=0.5))
    assert (model.test_score_thresh, model.test_nms_thresh) == (0.3, 0.5)
    model.test_score_thresh = 0.4
    assert model.postprocess.score_thresh == 0.4
    with pytest.raises(ValueError, match="got a postprocess Nothing and also score_thresh 0.3"):
        make_gfl(postprocess=Nothing(), test_score_thresh=0.3)


def test_observers_see_each_step_and_change_nothing():
    seen = []
    model = make_gfl(observers=[lambda core, step: seen.append((core, step))])
    batch = [make_input(64, 96, [BOX])]
    losses = model(batch)
    ((core, step),) = seen
    assert core is model
    assert step.batched_inputs is batch
    assert isinstance(step.predictions, DensePredictions)
    assert not step.predictions.cls_logits.requires_grad
    assert (step.targets.labels[0] == 0).any()
    assert losses == make_gfl_like(model)(batch)
    with torch.no_grad():
        model.eval()(batch)
    assert len(seen) == 1


def make_gfl_like(model):
    twin = make_gfl()
    twin.load_state_dict(model.state_dict())
    return twin


def test_pictures_are_drawn_by_what_is_passed_in():
    drawn = []

    def draw(inputs, result, input_format):
        drawn.append((inputs, result, input_format))
        return np.zeros((4, 5, 3), dtype=np.uint8)

    model = make_gfl(vis_period=2, draw_training=draw)
    batch = [make_input(64, 96, [BOX]), make_input(80, 64)]
    with EventStorage() as storage:
        for iteration in range(3):
            storage.iter = iteration
            model(batch)
    assert len(drawn) == 2
    inputs, result, input_format = drawn[0]
    assert inputs is batch[0]
    assert result.image_size == (64, 96)
    assert input_format == "BGR"
