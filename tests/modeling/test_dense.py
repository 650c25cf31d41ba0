"""The seam: losses and detections on tensors and tuples, parts that do not fit, observers."""

import numpy as np
import pytest
import torch
from detectron2.export import TracingAdapter
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from torch import nn

from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.matchers import ATSSMatcher
from gfocal.modeling.postprocess import NMSPostProcess
from gfocal.modeling.quality import NoQuality, localization_iou, matched_quality
from gfocal.modeling.representations import DiracDistance, GeneralDistribution
from gfocal.modeling.structures import DensePredictions, Matches
from gfocal.modeling.terms import (
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
    """A term with a running state, which draws random numbers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += torch.rand(()) * 0 + 1
        return inputs.box_weights.sum()


def test_a_term_that_answers_no_scalar_is_refused():
    with pytest.raises(ValueError, match=r"loss_quality, PerLocation, answered \(5,\); .* scalar"):
        make_gfl(criterion=criterion_of(quality_loss=PerLocation()))


def test_a_trial_that_fails_is_logged(caplog):
    """It may be the made-up batch that a term cannot take."""
    model = make_gfl(criterion=criterion_of(quality_loss=ReadsWhatIsNotThere()))
    assert "made-up batch failed (AttributeError: " in caplog.text
    with pytest.raises(AttributeError, match="entropy"):
        model([make_input(64, 64, [BOX])])


class OfLevelsAndPairs(nn.Module):
    """What terms do: a level at a time, and positives in pairs."""

    def forward(self, inputs):
        levels = inputs.predictions.cls_logits.split(inputs.anchors.level_sizes, dim=1)
        fine, coarse = (level.mean() for level in levels)
        pairs = torch.combinations(inputs.fg_boxes[:, 0])
        assert len(pairs) >= 3 or len(inputs.anchors.boxes) > 4
        return fine + coarse + (pairs[:, 0] - pairs[:, 1]).square().mean()


def test_the_trial_has_levels_images_and_several_positives(caplog):
    make_gfl(criterion=criterion_of(quality_loss=OfLevelsAndPairs()))
    assert not caplog.records


@pytest.mark.parametrize("measure", [lambda x: x.fg_boxes[:, :1], lambda x: torch.tensor(1.0)])
@pytest.mark.parametrize(
    "terms",
    [
        lambda measure: {"box_weight": measure},
        lambda measure: {"cls_loss": FocalLoss(positive_weight=measure)},
        lambda measure: {"cls_loss": QualityFocalLoss(measure=measure)},
        lambda measure: {"quality_loss": QualityBranchLoss(measure=measure)},
    ],
)
def test_a_measure_of_another_shape_is_refused(terms, measure):
    """Broadcast, it would multiply the losses of boxes by their number."""
    with pytest.raises(ValueError, match=r"measure <lambda> answered \(.*expected .* \(3,\)|\(5"):
        make_gfl(criterion=criterion_of(**terms(measure)))


@pytest.mark.parametrize("bins", [[4.0, 3, 2, 1, 0], [0.0, 1, 1, 2, 3], [0.0, 1, 2]])
def test_bins_that_do_not_increase(bins):
    representation = GeneralDistribution(reg_max=4)
    representation.bins = torch.tensor(bins)
    with pytest.raises(ValueError, match="expected as many increasing bins"):
        make_gfl(head=make_head(box_representation=representation))


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


def test_a_head_of_other_classes_or_locations():
    """An official v2 head has one class row too many: all background would train as that class."""
    model = make_gfl()
    batch = [make_input(64, 64, [BOX])]
    images, anchors, predictions = model.forward_dense(batch)
    truth = model.ground_truth(batch, images.image_sizes)
    extra = predictions._replace(cls_logits=torch.zeros(1, len(anchors.boxes), 4))
    with pytest.raises(ValueError, match=r"class logits \(1, 80, 4\).*expected .* \(1, 80, 3\)"):
        model.losses(anchors, extra, truth)
    with pytest.raises(ValueError, match="class logits"):
        model.inference(anchors, extra, images.image_sizes)
    fewer = predictions.with_tensors([x[:, 1:] for x in predictions.tensors])
    with pytest.raises(ValueError, match="class logits"):
        model.losses(anchors, fewer, truth)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": [torch.tensor([3])]}, r"has class 3; expected 0\.\.2"),
        ({"classes": [torch.tensor([-1])]}, "has class -1"),
        ({"classes": [torch.tensor([0, 1])]}, "image 0 of the batch has 1 boxes and 2 classes"),
        ({"classes": []}, r"of \[1, 0, 1\] images; expected 1 of each"),
        ({"image_sizes": [(64, 64)] * 2}, r"of \[1, 1, 2\] images"),
    ],
)
def test_a_ground_truth_that_is_none(change, message):
    model = make_gfl()
    batch = [make_input(64, 64, [BOX])]
    images, anchors, predictions = model.forward_dense(batch)
    truth = model.ground_truth(batch, images.image_sizes)._replace(**change)
    with pytest.raises(ValueError, match=message):
        model.losses(anchors, predictions, truth)


def test_padding_is_ignored_whatever_the_matcher_says():
    model = make_gfl(matcher=FirstBox())
    batch = [make_input(64, 64, [BOX]), make_input(64, 128, [BOX])]
    images, anchors, predictions = model.forward_dense(batch)
    truth = model.ground_truth(batch, images.image_sizes)
    targets = model.label_anchors(anchors, predictions, truth)
    inside = anchors.inside([(64, 64), (64, 128)])
    assert torch.equal(targets.labels >= 0, inside)
    assert not inside[0].all()


@pytest.mark.parametrize("quality", [5.0, -1.0, float("nan")])
def test_a_quality_that_is_none(quality):
    def matcher(anchors, truth, predictions):
        idxs = ATSSMatcher()(anchors, truth).idxs
        return Matches(idxs, torch.full(idxs.shape, quality))

    with pytest.raises(ValueError, match=f"quality of matcher matcher is {quality}; expected 0 to"):
        make_gfl(matcher=matcher)([make_input(64, 64, [BOX])])


def test_matches_that_are_no_tensors():
    def matcher(anchors, truth, predictions):
        return Matches(ATSSMatcher()(anchors, truth).idxs.numpy())

    with pytest.raises(TypeError, match="idxs of matcher matcher are a ndarray; expected a tensor"):
        make_gfl(matcher=matcher)([make_input(64, 64, [BOX])])


def test_the_parts_run_without_autocast():
    seen = []

    def matcher(anchors, truth, predictions):
        seen.append(torch.is_autocast_enabled("cpu"))
        return ATSSMatcher()(anchors, truth)

    def postprocess(anchors, predictions, image_sizes):
        seen.append(torch.is_autocast_enabled("cpu"))
        return NMSPostProcess()(anchors, predictions, image_sizes)

    model = make_gfl(matcher=matcher, postprocess=postprocess)
    with torch.autocast("cpu", torch.bfloat16):
        model([make_input(64, 64, [BOX])])
        with torch.no_grad():
            model.eval()([make_input(64, 64)])
    assert seen == [False, False]


def test_targets_have_no_gradient():
    weight = torch.ones((), requires_grad=True)

    def matcher(anchors, truth, predictions):
        idxs = ATSSMatcher()(anchors, truth).idxs
        return Matches(idxs, torch.full(idxs.shape, 0.5) * weight)

    model = make_gfl(matcher=matcher)
    batch = [make_input(64, 64, [BOX])]
    images, anchors, predictions = model.forward_dense(batch)
    truth = model.ground_truth(batch, images.image_sizes)
    assert not model.label_anchors(anchors, predictions, truth).quality.requires_grad


def test_the_heads_representation_reads_predictions_that_have_none():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_head()
            self.num_classes, self.num_levels = 3, 2
            self.box_representation = self.inner.box_representation

        def forward(self, features):
            return self.inner(features)._replace(box_representation=None)

    model = make_gfl(head=Head())
    assert model([make_input(64, 64, [BOX])])["loss_dfl"].isfinite()


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
    with pytest.raises(ValueError, match="a postprocess Nothing and also test_score_thresh 0.3"):
        make_gfl(postprocess=Nothing(), test_score_thresh=0.3)
    with pytest.raises(AttributeError, match="score_thresh"):
        make_gfl(postprocess=Nothing()).test_score_thresh = 0.3


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
    model.vis_period = 0
    with EventStorage():
        model(batch)
    assert len(drawn) == 2
    inputs, result, input_format = drawn[0]
    assert inputs is batch[0]
    assert result.image_size == (64, 96)
    assert input_format == "BGR"


class Scores(nn.Module):
    """A detector from an image to scores."""

    def __init__(self):
        super().__init__()
        self.detector = make_gfl().eval()

    def forward(self, image):
        return self.detector([{"image": image}])[0]["instances"].scores


def exported(image, **kwargs):
    return torch.export.export(Scores(), (image,), **kwargs)


@pytest.mark.parametrize(
    "trace",
    [
        lambda image: torch.jit.trace(Scores(), image),
        lambda image: exported(image, strict=False),
        lambda image: exported(image, strict=True),
        lambda image: torch.onnx.export(Scores(), (image,), "x.onnx", dynamo=False),
        lambda image: torch.onnx.export(Scores(), (image,), dynamo=True, verbose=False),
    ],
    ids=["jit.trace", "export", "export strict", "onnx", "onnx dynamo"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_trace_of_the_post_processing_is_refused(trace, tmp_path, monkeypatch):
    """It would freeze the numbers of one image, and be wrong on the next."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception) as error:
        trace(torch.rand(3, 64, 64) * 255)
    messages, cause = "", error.value
    while cause is not None:
        messages, cause = f"{messages}{cause}", cause.__cause__ or cause.__context__
    assert "gfocal export --weights W --output model.onnx" in messages
    assert not any(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_a_trace_as_of_detectron2s_export_model_is_refused():
    model = make_gfl().eval()
    adapter = TracingAdapter(model, [{"image": torch.rand(3, 64, 64) * 255}])
    with pytest.raises(RuntimeError, match="gfocal export"):
        torch.jit.trace(adapter, adapter.flattened_inputs)
    batch = [make_input(64, 64, [BOX])]
    images, anchors, predictions = model.forward_dense(batch)
    with pytest.raises(RuntimeError, match="gfocal export"):  # its parts too
        torch.jit.trace(
            lambda x: (
                model.dense_candidates(
                    anchors, predictions._replace(cls_logits=x), images.image_sizes
                )[0].boxes
            ),
            predictions.cls_logits,
        )


def test_a_compiled_detector_goes_on():
    model = make_gfl(test_score_thresh=0.001).eval()
    batch = [{"image": torch.rand(3, 64, 64) * 255}]
    with torch.no_grad():
        expected = model(batch)[0]["instances"]
        found = torch.compile(model, backend="eager")(batch)[0]["instances"]
    assert len(found) == len(expected) > 0
