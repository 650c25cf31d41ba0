"""CenterNet as a user meets it."""

import copy
import math

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from torch import nn

from gfocal import model_zoo
from gfocal.backbones import DeconvolutionNeck
from gfocal.config import add_gfocal_config
from gfocal.detectors import centernet
from gfocal.detectors.centernet import CenterNet
from gfocal.modeling.centers import (
    CenterDistributions,
    CenterNetPredictions,
    CenterQualityFocalLoss,
    CenterSize,
)
from gfocal.modeling.heatmaps import centernet_radius, heatmap_peaks
from gfocal.modeling.postprocess import NMSPostProcess
from gfocal.modeling.representations import GeneralDistribution
from gfocal.modeling.suppression import GaussianSoftNMS
from gfocal.weights import convert_mmdet_state_dict, to_mmdet_state_dict
from tests.helpers.tiny import make_input, truth_of
from tests.helpers.tiny_centernet import make_centernet

BOX = [3.0, 2.0, 63.0, 58.0]
BATCHES = {
    "different sizes": [make_input(64, 96, [BOX]), make_input(80, 48, [BOX, [0, 0, 20, 20]])],
    "one image without boxes": [make_input(64, 64), make_input(64, 64, [BOX])],
    "no boxes at all": [make_input(64, 64), make_input(48, 96)],
    "one pixel": [make_input(1, 1, [[0.0, 0, 1, 1]])],
    "box reaching outside": [make_input(64, 64, [[-100.0, -50, 190, 100]])],
    "box wholly outside": [make_input(64, 64, [[-300.0, -300, -200, -250]])],
    "tiny box": [make_input(64, 64, [[30.0, 30, 30.1, 30.1]])],
    "many boxes": [
        make_input(64, 64, [[i % 50, i % 40, i % 50 + 9, i % 40 + 9] for i in range(300)])
    ],
}


def distributions():
    bins = GeneralDistribution.geometric(6, first=1.0, last=32.0)
    return CenterDistributions(representation=bins)


def make_spread(num_classes=3, spread=3.0, **kwargs):
    """A detector whose weights, peaks and boxes are not all alike."""
    torch.manual_seed(0)
    model = make_centernet(num_classes, **kwargs)
    for branch in model.head.branches.values():
        for layer in branch[::2]:
            nn.init.normal_(layer.weight, std=spread / math.sqrt(layer.weight[0].numel()))
    return model.eval()


VARIANTS = {
    "plain": {},
    "qfl": {"heat_loss": CenterQualityFocalLoss()},
    "dfl": {"box": distributions()},
    "centernet's radius": {"radius": centernet_radius},
}
by_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


def test_registered():
    assert META_ARCH_REGISTRY.get("CenterNet") is CenterNet


@by_variant
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_any_batch_trains(batch, variant):
    model = make_centernet(**variant)
    losses = model(batch)
    names = {"loss_sides", "loss_dfl"} if "box" in variant else {"loss_wh", "loss_offset"}
    assert losses.keys() == {"loss_center_heatmap", *names}
    for name, loss in losses.items():
        assert loss.isfinite() and loss >= 0, name
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@by_variant
def test_boxes_teach_every_parameter(variant):
    model = make_spread(**variant).train()
    losses = model([make_input(64, 96, [BOX, [60.0, 5, 90, 60]], [0, 2])])
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def predictions_of(channels, height=4, width=4, classes=2):
    """All heat logits 0, and the same channels everywhere."""
    channels = torch.tensor(channels).view(1, -1, 1, 1).expand(1, -1, height, width).clone()
    return CenterNetPredictions(torch.zeros(1, classes, height, width), channels)


def test_losses_by_hand():
    """Stride 4, 4 x 4 cells, two classes, p = 1/2 and the box (w, h, dx, dy) = (1, 1, .5, .5)
    everywhere. Two boxes of 4 x 4 px in cell (1, 1), of classes 0 and 1, and one of 4 x 8 px in
    (3, 2), class 0. Their radii, 1 (1 - sqrt(.3)) / 2 < 1, are 0.

    Three cells are 1, and 29 are 0: 32 * ln 2 / 4. Of the two in one cell only the second counts
    for the boxes, but both for the divisor, 3. The centres of all are in the middle of a cell, so
    offsets are right; the size is wrong by 1 in the last."""
    model = make_centernet(2)
    boxes = Boxes(torch.tensor([[4.0, 4, 8, 8], [4, 4, 8, 8], [12, 6, 16, 14]]))
    truth = truth_of([boxes], [torch.tensor([0, 1, 0])])
    losses = model.losses(predictions_of([1.0, 1, 0.5, 0.5]), truth)
    assert losses["loss_center_heatmap"].item() == pytest.approx(8 * math.log(2) / 3)
    assert losses["loss_wh"].item() == pytest.approx(0.1 * 1 / 2 / 3)
    assert losses["loss_offset"].item() == 0
    # QFL: the IoU is 1, 1 and 1/2 (4 of 8 px in height), so |q - 1/2|^2 ln 2 is 1/4 ln 2 twice.
    model.heat_loss = CenterQualityFocalLoss()
    losses = model.losses(predictions_of([1.0, 1, 0.5, 0.5]), truth)
    assert losses["loss_center_heatmap"].item() == pytest.approx(31 / 4 * math.log(2) / 3)


def test_two_boxes_of_one_cell_and_class():
    """The last one is the object: of the other neither size nor count is left."""
    model = make_centernet(2)
    boxes = torch.tensor([[0.0, 0, 12, 12], [4, 4, 8, 8]])
    predictions = predictions_of([1.0, 1, 0.5, 0.5])
    both = model.losses(predictions, truth_of([Boxes(boxes)]))
    last = model.losses(predictions, truth_of([Boxes(boxes[1:])]))
    assert both["loss_wh"] == last["loss_wh"] == 0
    other = model.losses(predictions, truth_of([Boxes(boxes.flip(0))]))
    assert other["loss_wh"].item() == pytest.approx(0.1 * 4 / 2)


def test_the_divisor_is_a_mean_over_processes(monkeypatch):
    """Two processes, three objects here and one there: this one divides by 2."""
    model = make_centernet(2)
    boxes = torch.tensor([[0.0, 0, 4, 4], [4, 4, 8, 8], [8, 8, 12, 12]])
    arguments = predictions_of([2.0, 1, 0.5, 0.5]), truth_of([Boxes(boxes)])
    alone = model.losses(*arguments)
    monkeypatch.setattr(centernet, "sum_over_workers", lambda x: (x + 1, 2))
    for name, loss in model.losses(*arguments).items():
        assert loss.item() == pytest.approx(alone[name].item() * 3 / 2), name


def test_padding_is_background():
    """As published: cells beyond an image count, if another one is larger."""
    model = make_spread()
    small, large = make_input(32, 32, [[4, 4, 20, 20]]), make_input(64, 64, [[4, 4, 20, 20]])
    padded = {"image": torch.full((3, 64, 64), 123.0), "instances": small["instances"]}
    padded["image"][:] = model.pixel_mean
    padded["image"][:, :32, :32] = small["image"]
    together = model.train()([small, large])
    for name, loss in model([padded, large]).items():
        assert together[name].item() == pytest.approx(loss.item()), name


def test_crowds_have_no_background():
    """Nothing is learned from the heat in a region, but at an object's cell."""
    model = make_spread().train()
    region = Boxes(torch.tensor([[0.0, 0, 32, 32]]))
    inputs = make_input(32, 32, [[4, 4, 8, 8]], ignore_regions=region)
    images = model.preprocess_image([inputs])
    (predictions,) = model.predict(images.tensor)
    predictions = CenterNetPredictions(*(x.detach().requires_grad_() for x in predictions))
    truth = model.ground_truth([inputs], images.image_sizes)
    loss = model.losses(predictions, truth)["loss_center_heatmap"]
    (grad,) = torch.autograd.grad(loss, predictions.heat_logits)
    assert grad.abs().sum(dim=1).nonzero().tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (make_input(32, 32, [[4, 4, 4, 9]]), "degenerate box"),
        (make_input(32, 32, [[4, 4, 9, 9]], [3]), "class 3; expected 0..2"),
        ({"image": torch.zeros(3, 32, 32)}, 'no "instances"'),
    ],
)
def test_bad_ground_truth(inputs, message):
    with pytest.raises(ValueError, match=message):
        make_centernet()([inputs])


def test_statistics():
    """Two boxes, one without a cell, in two images; the box that has one is predicted as is."""
    model = make_centernet(2, statistics_period=1)
    boxes = [Boxes(torch.tensor([[4.0, 4, 8, 8], [30, 30, 40, 40]])), Boxes(torch.zeros(0, 4))]
    predictions = CenterNetPredictions(
        *(x.repeat(2, 1, 1, 1) for x in predictions_of([1.0, 1, 0.5, 0.5]))
    )
    with EventStorage() as storage:
        model.losses(predictions, truth_of(boxes))
        latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest == {
        "positives_per_image": 0.5,
        "boxes_without_positive": 0.5,
        "mean_iou_of_positives": pytest.approx(1),
    }


def test_detections_by_hand():
    """Peaks at the cells (1, 2) of class 0 and (3, 0) of class 1; between them all is lower. The
    second box has no area, and reaches beyond the image."""
    model = make_centernet(2, max_detections_per_image=2)
    predictions = predictions_of([2.0, 1.0, 0.25, 0.5])
    predictions.heat_logits[:] = -9
    predictions.heat_logits[0, 0, 2, 1], predictions.heat_logits[0, 1, 0, 3] = 2.0, 1.0
    predictions.channels[0, :2, 0, 3] = torch.tensor([-4.0, 3.0])
    (result,) = model.inference(predictions, [(16, 16)])
    assert result.pred_classes.tolist() == [0, 1]
    assert result.scores.tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))])
    # ((1.25 -+ 1) * 4, (2.5 -+ .5) * 4) and ((3.25 +- 2) * 4, (.5 -+ 1.5) * 4)
    assert result.pred_boxes.tensor.tolist() == [[1, 8, 9, 12], [21, -4, 5, 8]]
    assert result.anchor_idxs.tolist() == [9, 3]


def test_output_of_a_padded_image():
    """The image of 32 x 40 px lies 4 px below and 12 px right of the corner, and its output has
    twice its height and half its width."""
    model = make_spread(box=distributions(), spread=1.0)
    inputs = make_input(64, 64)
    (plain,) = model([inputs])
    placed = {"border": (4, 12), "content_size": (32, 40), "height": 64, "width": 20}
    (found,) = model([{**inputs, **placed}])
    plain, found = plain["instances"], found["instances"]
    assert plain.image_size == (64, 64) and found.image_size == (64, 20)
    scale, corner = torch.tensor([0.5, 2, 0.5, 2]), torch.tensor([12, 4, 12, 4])
    expected = (plain.pred_boxes.tensor - corner) * scale
    torch.testing.assert_close(found.pred_boxes.tensor, expected)
    torch.testing.assert_close(found.pred_box_stds, plain.pred_box_stds * scale)
    (alone,) = model([{**inputs, "border": (4, 12), "content_size": (32, 40)}])
    assert alone["instances"].image_size == (32, 40)


@by_variant
def test_a_batch_is_its_images(variant):
    model = make_spread(**variant)
    images = [make_input(64, 96), make_input(64, 96)]
    together = model(images)
    for one, image in zip(together, images):
        one, (alone,) = one["instances"], model([image])
        alone = alone["instances"]
        assert torch.equal(one.pred_classes, alone.pred_classes) and len(one) == 100
        torch.testing.assert_close(one.scores, alone.scores)
        torch.testing.assert_close(
            one.pred_boxes.tensor, alone.pred_boxes.tensor, rtol=0, atol=1e-3
        )


@pytest.mark.parametrize("box", [CenterSize(), distributions()], ids=["size", "dfl"])
def test_flip(box):
    """The network sees single pixels of an average, so a mirrored image has mirrored answers; with
    a network that cannot tell left from right, both together are the plain ones."""
    plain = make_spread(box=box)
    for branch in plain.head.branches.values():
        weight = branch[0].weight.data
        weight.copy_((weight + weight.flip(-1)) / 2)
    if isinstance(box, CenterDistributions):
        for x in (plain.head.branches["sides"][2].weight, plain.head.branches["sides"][2].bias):
            x.data.copy_((x + x.unflatten(0, (4, 7))[[2, 1, 0, 3]].flatten(0, 1)) / 2)
    flipping = copy.deepcopy(plain)
    flipping.test_flip = True
    inputs = make_input(64, 96)
    one, other = (model([inputs])[0]["instances"] for model in (plain, flipping))
    torch.testing.assert_close(one.scores, other.scores)
    torch.testing.assert_close(one.pred_boxes.tensor, other.pred_boxes.tensor, rtol=1e-4, atol=1e-2)


def test_what_a_flip_averages():
    """Heat and size are means; the offset is the image's own. In training nothing is mirrored."""
    model = make_spread()
    images = torch.randn(1, 3, 32, 48)
    (a,), (b,) = model.predict(images), model.predict(images.flip(-1))
    model.test_flip = True
    (both,) = model.predict(images)
    heats = (a.heat_logits.sigmoid() + b.heat_logits.sigmoid().flip(-1)) / 2
    torch.testing.assert_close(both.heat_logits.sigmoid(), heats)
    sizes = (a.channels[:, :2] + b.channels[:, :2].flip(-1)) / 2
    torch.testing.assert_close(both.channels, torch.cat([sizes, a.channels[:, 2:]], dim=1))
    assert torch.equal(model.train().predict(images)[0].channels, a.channels)


@pytest.mark.parametrize("box", [CenterSize(), distributions()], ids=["size", "dfl"])
@pytest.mark.parametrize("flip", [False, True])
def test_decode(box, flip):
    """What exports are made of: the same boxes and scores, and a trace holds for other sizes."""
    model = make_spread(box=box, test_flip=flip)
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        boxes, scores = model.decode(images)
        results = model.inference(*model.predict(images), [(32, 48)] * 2)
        decoded = model.decode_levels(images)
        traced = torch.jit.trace(Decode(model), images, check_trace=False)
        other = torch.randn(1, 3, 64, 80)
        for a, b in zip(traced(other), model.decode(other)):
            torch.testing.assert_close(a, b)
    assert boxes.shape == (2, 96, 4) and scores.shape == (2, 96, 3)
    for i, result in enumerate(results):
        found = scores[i, result.anchor_idxs, result.pred_classes]
        torch.testing.assert_close(found, result.scores)
        torch.testing.assert_close(boxes[i, result.anchor_idxs], result.pred_boxes.tensor)
        assert len(result) == min(100, (scores[i] > 0).sum())
        if isinstance(box, CenterDistributions):
            stds = decoded.stds(torch.tensor(i), result.anchor_idxs)
            torch.testing.assert_close(stds, result.pred_box_stds)
            torch.testing.assert_close(decoded.stds()[i, result.anchor_idxs], stds)
    assert (decoded.stds is None) == isinstance(box, CenterSize)


class Decode(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model.decode(images)


def test_stds_and_distributions():
    """As GFL's: in pixels; a calibration scales the standard deviations."""
    model = make_spread(box=distributions(), postprocess=NMSPostProcess(distributions=True))
    model.postprocess.score_thresh = 0.0
    (result,) = model([make_input(32, 48)])
    result = result["instances"]
    probs, edges = result.pred_box_distributions, result.bin_edges
    expected = (probs * edges).sum(dim=-1)
    torch.testing.assert_close(expected, result.pred_boxes.tensor, rtol=1e-4, atol=1e-3)
    variance = (probs * (edges - expected[..., None]).square()).sum(dim=-1)
    torch.testing.assert_close(variance.sqrt(), result.pred_box_stds, rtol=1e-3, atol=1e-3)
    with pytest.raises(TypeError, match="distributions"):
        make_centernet(postprocess=NMSPostProcess(distributions=True))


def test_settings():
    """By default the published ones; each can be set; a part of one's own has its own."""
    model = make_spread()
    assert (model.test_score_thresh, model.test_nms_thresh) == (0.0, 1.0)
    assert (model.test_topk_candidates, model.max_detections_per_image) == (100, 100)
    images = model.preprocess_image([make_input(64, 96)]).tensor
    peaks = heatmap_peaks(model.raw(images)["heatmap"].sigmoid()).flatten().sort().values
    model.test_score_thresh = peaks[-8].item()
    assert len(model.inference(*model.predict(images), [(64, 96)])[0]) == 7
    assert make_centernet(test_nms_thresh=0.5).test_nms_thresh == 0.5
    soft = make_centernet(suppression=GaussianSoftNMS())
    assert isinstance(soft.postprocess.suppression, GaussianSoftNMS)
    assert make_centernet(postprocess=NMSPostProcess()).test_nms_thresh == 0.6
    thresholds = make_centernet(test_score_thresh={"b": 0.5, "default": 0.1}, class_names="abc")
    assert thresholds.postprocess.thresholds(3) == (0.1, 0.5, 0.1)


def test_construction_errors():
    with pytest.raises(ValueError, match="in_feature 'p3' is not among"):
        make_centernet(in_feature="p3")
    with pytest.raises(ValueError, match="the head has 3 classes, the detector 4"):
        make_centernet(head=make_centernet().head, num_classes=4)
    with pytest.raises(ValueError, match=r"branches .*CenterDistributions expects {'sides': 28}"):
        make_centernet(head=make_centernet().head, box=distributions())
    with pytest.raises(TypeError, match="expected an NMSPostProcess"):
        make_centernet(postprocess=lambda *args: [])
    with pytest.raises(ValueError, match="test_flip is 1; expected true or false"):
        make_centernet(test_flip=1)
    with pytest.raises(ValueError, match="test_score_thresh is 2"):
        make_centernet(test_score_thresh=2)


def test_networks_in_half_precision():
    """Bins stay as they are; boxes and scores are in float32."""
    model = make_spread(box=distributions())
    model.cast_networks(torch.bfloat16)
    (found,) = model([make_input(32, 48)])
    assert found["instances"].scores.dtype == torch.float32
    assert model.box.representation.bins.dtype == torch.float32
    assert torch.equal(model.box.representation.bins, distributions().representation.bins)
    assert len(found["instances"]) > 10
    saved = {name: x for name, x in model.state_dict().items() if name.endswith("bins")}
    assert list(saved) == ["box.representation.bins"] and saved.popitem()[1].dtype == torch.float32


def yacs(*overrides):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "CenterNet"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_deconvolution_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.DEVICE = "cpu"
    cfg.merge_from_list([f"MODEL.CENTERNET.{x}" if i % 2 == 0 else x
                         for i, x in enumerate(overrides)])  # fmt: skip
    return cfg


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("COCO-Detection/centernet_R_18.py", []),
        ("COCO-Detection/centernet_R_18_dcn.py", ["NECK.DEFORMABLE", True]),
        ("ablations/centernet/qfl.py", ["HEAT_LOSS", "qfl"]),
        ("ablations/centernet/dfl.py", ["BOX", "general_dfl"]),
    ],
)
def test_yacs_is_the_lazy_config(name, overrides):
    ours = build_model(yacs(*overrides))
    lazy = instantiate(model_zoo.get_config(name).model)
    assert isinstance(lazy.backbone, DeconvolutionNeck)
    lazy.load_state_dict(ours.state_dict(), strict=True)
    assert repr(lazy.box) == repr(ours.box) and repr(lazy.heat_loss) == repr(ours.heat_loss)
    assert lazy.postprocess.suppression.__dict__ == ours.postprocess.suppression.__dict__
    inputs = [make_input(64, 96, [BOX], [7])]
    a, b = lazy.train()(inputs), ours.train()(inputs)
    assert a == b and a.keys() == b.keys()


def test_yacs_numbers():
    model = build_model(
        yacs("QFL_BETA", 1.5, "HEAT_LOSS", "qfl", "BOX", "general_dfl", "REG_MAX", 8)
    )
    assert model.heat_loss.qfl_beta == 1.5 and model.box.branches == {"sides": 36}
    model = build_model(yacs("RADIUS", "centernet", "FLIP_TEST", True, "NUM_CLASSES", 4))
    assert model.radius is centernet_radius and model.test_flip and model.num_classes == 4
    with pytest.raises(ValueError, match="CENTERNET.QFL_BETA is 1.5, and with .* nothing reads it"):
        build_model(yacs("QFL_BETA", 1.5))
    with pytest.raises(ValueError, match="MODEL.CENTERNET.BOX is 'corner'; expected one of"):
        build_model(yacs("BOX", "corner"))
    with pytest.raises(ValueError, match="MODEL.CENTERNET.SCORE_THRESH_TEST is 2.0; expected"):
        build_model(yacs("SCORE_THRESH_TEST", 2.0))
    with pytest.raises(ValueError, match="IN_FEATURE is 'p3'; expected a map of the backbone"):
        build_model(yacs("IN_FEATURE", "p3"))


@pytest.mark.parametrize("name", ["centernet_R_18", "centernet_R_18_dcn"])
def test_weights_of_mmdetection(name):
    """Every weight has a name there and comes back."""
    cfg = model_zoo.get_config(f"COCO-Detection/{name}.py")
    with torch.device("meta"):
        state_dict = instantiate(cfg.model).state_dict()
    theirs = to_mmdet_state_dict(state_dict)
    assert "neck.deconv_layers.5.bn.running_var" in theirs
    assert "bbox_head.heatmap_head.2.bias" in theirs
    offset = "neck.deconv_layers.4.conv.conv_offset.bias"
    assert (offset in theirs) == name.endswith("dcn")
    back = convert_mmdet_state_dict(theirs)
    assert back.keys() == {x for x in state_dict if not x.endswith("num_batches_tracked")}
    assert all(back[x].shape == state_dict[x].shape for x in back)
