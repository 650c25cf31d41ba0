"""FoveaBox is GFL with other parts: losses by hand, no boxes, padding, FeatureAlign, yacs."""

import math

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage

from gfocal import model_zoo
from gfocal.backbones import DeformConv2d
from gfocal.export.exporting import export_model
from gfocal.export.parity import LIMITS
from gfocal.modeling import recipes
from gfocal.modeling.criterion import GFLCriterion, at_least_one_an_image, one_more_an_image
from gfocal.modeling.feature_align import FeatureAlign
from gfocal.modeling.head import GFLHead
from gfocal.modeling.matchers import FoveaMatcher
from gfocal.modeling.quality import NoQuality, uniform
from gfocal.modeling.representations import DiracDistance, GeneralDistribution, LogDistance
from gfocal.modeling.structures import DenseAnchors, DensePredictions, DenseTargets
from gfocal.modeling.terms import DistributionFocalLoss, FocalLoss, LogSmoothL1Loss
from gfocal.weights import convert_mmdet_state_dict, to_mmdet_state_dict
from tests.helpers.spread import spread
from tests.helpers.tiny import make_input
from tests.helpers.tiny_fovea import make_fovea

SHAPES = "quick_start/shapes_fovea.py"


def test_log_distance_is_its_own_inverse():
    representation = LogDistance()
    # exp(0) units of 2 strides; ln 4 is 8 strides
    logits = torch.tensor([[0.0], [math.log(4)], [-1.0], [2.0]])
    distances = representation(logits)
    assert distances[:2].tolist() == pytest.approx([2.0, 8.0])
    torch.testing.assert_close(representation.to_logits(distances), logits[:, 0])
    assert representation(torch.tensor([[1e4]])).isfinite().all()
    assert representation(torch.zeros(1, 1, dtype=torch.bfloat16)).dtype == torch.float32
    with pytest.raises(ValueError, match="unit is 0; expected a positive number"):
        LogDistance(unit=0)


def one_location(box):
    """Stride 8, the location (12, 12), class 0 of one, and a background one; all channels 0."""
    anchors = DenseAnchors(
        boxes=torch.tensor([[-20.0, -20, 44, 44], [-12, -20, 52, 44]]),
        strides=torch.tensor([8.0, 8.0]),
        level_shapes=[(1, 2)],
    )
    predictions = DensePredictions(
        torch.zeros(1, 2, 1, requires_grad=True),
        torch.zeros(1, 2, 4, 1, requires_grad=True),
        box_representation=LogDistance(),
    )
    targets = DenseTargets(
        labels=torch.tensor([[0, 1]]), boxes=torch.tensor([[box, [0.0, 0, 0, 0]]])
    )
    return anchors, predictions, targets


def make_criterion(**kwargs):
    terms = {
        "cls_loss": FocalLoss(alpha=0.4, gamma=1.5),
        "box_loss": LogSmoothL1Loss(),
        "box_weight": uniform,
        "cls_divisor": one_more_an_image,
    }
    return GFLCriterion(**{**terms, **kwargs})


def test_losses_by_hand():
    # Sides of 16, 16, 32 and 16.8 px are 1, 1, 2 and 1.05 units of 2 * 8 px. The errors of the
    # channels, all 0, are 0, 0, ln 2 > beta and ln 1.05 < beta.
    batch = one_location([-4.0, -4.0, 44.0, 28.8])
    losses = make_criterion()(*batch)
    small = math.log(1.05)
    expected = (math.log(2) - 0.11 / 2) + 0.5 * small**2 / 0.11
    assert losses["loss_box_reg"].item() == pytest.approx(expected, rel=1e-5)
    # Scores of 1/2: alpha (1/2)^1.5 ln 2 for the positive, 1 - alpha for the other; together
    # (1/2)^1.5 ln 2. The divisor is one positive and one image.
    assert losses["loss_cls"].item() == pytest.approx(0.5**1.5 * math.log(2) / 2, rel=1e-6)
    losses = make_criterion(cls_divisor=at_least_one_an_image)(*batch)
    assert losses["loss_cls"].item() == pytest.approx(0.5**1.5 * math.log(2), rel=1e-6)


@pytest.mark.parametrize(
    ("left", "units"),
    [
        (11.0, 1 / 16),
        (13.0, 1 / 16),
        (12.0, 1 / 16),
        (12 - 16 * 15.0, 15.0),
        (12 - 16 * 17.0, 16.0),
    ],
)
def test_targets_are_clipped(left, units):
    """A side of 1 px is 1/16 unit; a location may lie outside of its box, or on its side."""
    anchors, predictions, targets = one_location([left, -4.0, 28.0, 28.0])
    with torch.no_grad():
        predictions.box_logits[0, 0, 0] = math.log(units)
    loss = make_criterion()(anchors, predictions, targets)["loss_box_reg"]
    assert loss.item() == pytest.approx(0.0, abs=1e-9)


def test_one_more_an_image():
    assert one_more_an_image(torch.tensor([3, 0, 2])).item() == 8  # 5 positives, 3 images
    assert at_least_one_an_image(torch.tensor([3, 0, 2])).item() == 6


def test_terms_and_heads_that_do_not_fit():
    for representation in (DiracDistance(), GeneralDistribution()):
        model = {"head": tiny_head(representation)}
        with pytest.raises(ValueError, match=r"LogSmoothL1Loss needs .* to_logits.*LogDistance"):
            make_fovea(**model)
    with pytest.raises(ValueError, match=r"DistributionFocalLoss needs .* to_bins, .*LogDistance"):
        make_fovea(criterion=make_criterion(dist_loss=DistributionFocalLoss()))
    with pytest.raises(ValueError, match="beta is -1; expected"):
        LogSmoothL1Loss(beta=-1)


def tiny_head(representation=None, **kwargs):
    defaults = {
        "in_channels": 8,
        "num_levels": 2,
        "num_classes": 3,
        "conv_dims": [8],
        "norm": "",
        "box_representation": representation or LogDistance(),
        "quality_predictor": NoQuality(),
        "level_scales": False,
    }
    return GFLHead(**{**defaults, **kwargs})


def test_without_boxes_the_boxes_loss_is_zero_and_the_graph_alive():
    model = make_fovea().train()
    with EventStorage(0):
        losses = model([make_input(64, 96), make_input(48, 64)])
    assert losses["loss_box_reg"].item() == 0 and losses["loss_cls"].item() > 0
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert model.head.cls_logits.weight.grad.any()


def test_padding_is_background():
    """An image of 48 x 64 px in a batch of 64 x 96: all of its 96 + 24 locations have a label."""
    torch.manual_seed(0)
    model = make_fovea()
    inputs = [make_input(64, 96, [[10, 10, 90, 60]]), make_input(48, 64, [[8, 8, 50, 40]])]
    images, anchors, predictions = model.forward_dense(inputs)
    truth = model.ground_truth(inputs, images.image_sizes)
    labels = model.label_anchors(anchors, predictions, truth).labels
    assert (labels >= 0).all() and (labels == 0).any(dim=1).all()
    model.ignore_padding = True
    ignored = model.label_anchors(anchors, predictions, truth).labels == -1
    assert torch.equal(ignored, ~anchors.inside(images.image_sizes))
    assert ignored[1].any() and not ignored[0].any()


def test_a_head_without_scales():
    head = tiny_head()
    assert not any("scales" in name for name in head.state_dict())
    features = [torch.randn(1, 8, 2, 2), torch.randn(1, 8, 1, 1)]
    logits = head(features).box_logits
    scaled = tiny_head(level_scales=True)
    scaled.load_state_dict(head.state_dict(), strict=False)
    assert torch.equal(logits, scaled(features).box_logits)  # scales are 1 at first


def make_align(groups=2):
    conv = DeformConv2d(in_channels=8, out_channels=8, kernel_size=3, padding=1, bias=False)
    return FeatureAlign(conv=conv, groups=groups)


def test_feature_align_by_hand():
    """Without offsets it is a convolution. If each sample of group 1 moves down by the left
    distance, 1 at a box channel of 0, then that group sees the map one row further down."""
    torch.manual_seed(0)
    align = make_align()
    features = torch.randn(2, 8, 6, 7)
    boxes = torch.zeros(2, 4, 6, 7)
    with torch.no_grad():
        align.offset.weight.zero_()
        plain = torch.conv2d(features, align.conv.weight, padding=1).relu()
        torch.testing.assert_close(align(features, boxes), plain)
        align.offset.weight[18::2, 0] = 1.0  # dy of the 9 samples of the second group
        moved = features.clone()
        moved[:, 4:, :-1], moved[:, 4:, -1] = features[:, 4:, 1:], 0.0
        expected = torch.conv2d(moved, align.conv.weight, padding=1).relu()
        # In the first row the moved samples see a row that padding hides from the convolution.
        torch.testing.assert_close(align(features, boxes)[:, :, 1:-1], expected[:, :, 1:-1])
        assert align(features, boxes + 100).isfinite().all()
    with pytest.raises(ValueError, match="a side has 17 channels; FeatureAlign reads one"):
        tiny_head(GeneralDistribution(), feature_align=make_align())


def test_a_head_with_feature_align():
    head = tiny_head(feature_align=make_align(), cls_convs=[[16, 3], [12, 1]], norm="")
    assert [tuple(c.weight.shape) for c in head.cls_tower] == [(16, 8, 3, 3), (12, 16, 1, 1)]
    assert head.cls_logits.weight.shape == (3, 12, 3, 3)
    features = [torch.randn(1, 8, 4, 6), torch.randn(1, 8, 2, 3)]
    predictions = head(features)
    assert predictions.cls_logits.shape == (1, 30, 3)
    predictions.cls_logits.sum().backward()
    # The classes' gradient reaches the boxes through the offsets, as in the published code.
    assert head.box_logits.weight.grad.any() and head.feature_align.offset.weight.grad.any()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(features).cls_logits.dtype == torch.float32


@pytest.mark.parametrize("name", ["fovea_R_50_FPN_1x", "fovea_align_R_50_FPN_gn_2x"])
def test_weights_in_both_directions(name):
    with torch.device("meta"):
        ours = instantiate(model_zoo.get_config(f"COCO-Detection/{name}.py").model).state_dict()
    theirs = to_mmdet_state_dict(ours)
    assert {"bbox_head.conv_cls.bias", "bbox_head.conv_reg.weight"} <= theirs.keys()
    assert theirs["neck.fpn_convs.3.conv.weight"].shape == (256, 2048, 3, 3)  # P6 of C5
    align = "bbox_head.feature_adaption."
    shapes = {n.removeprefix(align): (*x.shape,) for n, x in theirs.items() if align in n}
    if "align" in name:
        assert shapes == {
            "conv_offset.weight": (72, 4, 1, 1),
            "conv_adaption.weight": (256, 256, 3, 3),
        }
        assert theirs["bbox_head.cls_convs.1.conv.weight"].shape == (1024, 1024, 1, 1)
        assert theirs["bbox_head.cls_convs.1.gn.bias"].shape == (1024,)
    else:
        assert not shapes and not any(".gn." in n for n in theirs)
        assert theirs["bbox_head.reg_convs.3.conv.bias"].shape == (256,)
    again = convert_mmdet_state_dict(theirs)
    assert {n: x.shape for n, x in again.items()} == {n: x.shape for n, x in ours.items()}


def test_the_rows_of_table_1b_differ_by_their_loss_alone():
    focal, qfl = (model_zoo.get_config(f"ablations/table1b/fovea_{x}.py") for x in ("focal", "qfl"))
    assert focal.model.criterion.cls_loss != qfl.model.criterion.cls_loss
    qfl.model.criterion.cls_loss = focal.model.criterion.cls_loss
    assert focal.paper != qfl.paper
    qfl.paper = focal.paper
    assert focal == qfl
    assert focal.model == model_zoo.get_config("COCO-Detection/fovea_R_50_FPN_1x.py").model
    recipe = model_zoo.get_config("COCO-Detection/fovea_R_50_FPN_1x.py").model
    recipes.use(recipe, quality="qfl_uniform")
    loss = instantiate(recipe.criterion.cls_loss)
    assert type(loss).__name__ == "QualityFocalLoss" and loss.beta == 2.0
    assert recipe.criterion.box_weight is uniform


@pytest.mark.parametrize("name", ["table1b/fovea_focal", "table1b/fovea_qfl", "fovea/dfl"])
def test_rows_train_and_detect(name):
    row = model_zoo.get_config(f"ablations/{name}.py").model
    cfg = model_zoo.get_config(SHAPES).model
    cfg.head.box_representation, cfg.criterion = row.head.box_representation, row.criterion
    torch.manual_seed(0)
    model = instantiate(cfg).train()
    inputs = [
        make_input(64, 96, [[10, 10, 90, 60], [60, 20, 90, 50], [5, 5, 30, 25]], [0, 1, 2]),
        make_input(64, 64, [[20, 20, 52, 60]], [5]),
    ]
    with EventStorage(0) as storage:
        losses = model(inputs)
    expected = {"loss_cls", "loss_box_reg"} | ({"loss_dfl"} if "dfl" in name else set())
    assert losses.keys() == expected
    sum(losses.values()).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), key
    assert storage.latest()["positives_per_image"][0] > 0
    assert storage.latest()["boxes_without_positive"][0] < 1
    model.eval().test_score_thresh = 0.0
    with torch.no_grad():
        found = model(inputs)[0]["instances"]
    assert 0 < len(found) <= 100 and found.pred_boxes.tensor.isfinite().all()
    assert found.has("pred_box_stds") == ("dfl" in name)
    if "dfl" in name:
        assert model.head.box_representation.bins[-1] == 32
    assert type(model.matcher) is FoveaMatcher


def test_pictures_of_training():
    model = make_fovea(vis_period=1).train()
    with EventStorage(0) as storage:
        model([make_input(64, 96, [[10, 10, 90, 60]])])
    assert len(storage._vis_data) == 1


@pytest.mark.usefixtures("one_thread")
def test_exported_files_find_the_same(tmp_path):
    model = spread(make_fovea())
    for format, level, suffix in (("onnx", "full", "onnx"), ("torchscript", "decoded", "ts")):
        rows = export_model(model, tmp_path / f"model.{suffix}", format=format, level=level)
        assert rows and all(row.found and row.passes(LIMITS["float32"]) for row in rows)
