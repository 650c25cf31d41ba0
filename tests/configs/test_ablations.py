"""Every row of the ablations trains and detects, and is the row that its name says."""

import copy

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from torch import nn

from gfocal import model_zoo
from gfocal.inspect import ablations
from gfocal.modeling.matchers import ATSSMatcher, FCOSMatcher
from gfocal.modeling.quality import NoQuality, QualityBranch, centerness, localization_iou
from gfocal.modeling.representations import DiracDistance, GaussianDistance, GeneralDistribution
from gfocal.modeling.terms import DistributionFocalLoss, FocalLoss, QualityFocalLoss
from tests.helpers.tiny import make_input

ROWS = {
    f"{table}/{ablations.label(row)}": row
    for table in ablations.TABLES
    for row in ablations.rows(table)
}
BEST = "quick_start/shapes_best.py"
_DENSE = (x for x in ROWS.values() if "/table1b/" not in x and "/distillation/" not in x)
DENSE = dict.fromkeys([*_DENSE, BEST])


def small(row):
    """The row's model with the narrow backbone and head of the quick start."""
    cfg, shapes = model_zoo.get_config(row), model_zoo.get_config("quick_start/shapes_gflv2.py")
    cfg.model.backbone = shapes.model.backbone
    cfg.model.num_classes = 3
    if "head" in cfg.model and "conv_dims" in cfg.model.head:
        cfg.model.head.conv_dims = [64, 64]
    torch.manual_seed(0)
    return instantiate(cfg.model)


def test_all_rows_are_there():
    counts = {table: len(ablations.rows(table)) for table in ablations.TABLES}
    assert counts == {
        "1a": 12, "1b": 6, "1c": 5, "2a": 8, "2b": 4, "2c": 4, "3": 4, "v2": 7, "bins": 4,
        "quality_loss": 5, "assigner": 4, "distillation": 4,
    }  # fmt: skip
    for row in (row for row in ROWS.values() if "/table" in row):
        paper = model_zoo.get_config(row).paper
        lowest = 29 if "ssd512" in row else 35
        assert lowest < paper.AP < 41
        if "AP50" in paper:
            assert paper.AP75 < paper.AP50 and paper.AP < paper.AP50


@pytest.mark.parametrize("row", DENSE, ids=lambda row: row[:-3].removeprefix("ablations/"))
def test_trains_and_detects(row):
    model = small(row).train()
    with EventStorage(0):
        with_boxes = [
            make_input(64, 96, [[10, 10, 90, 60], [60, 20, 90, 50], [5, 5, 30, 25]], [0, 1, 2]),
            make_input(64, 64, [[20, 20, 52, 60]], [2]),
        ]
        losses = model(with_boxes)
        assert all(
            loss.isfinite() and loss >= 0 for k, loss in losses.items() if k != "loss_box_reg"
        )
        sum(losses.values()).backward()
        for name, parameter in model.head.named_parameters():
            assert parameter.grad.isfinite().all(), name
            if not name.startswith("scales."):  # a level without a positive box
                assert parameter.grad.abs().sum() > 0, name
        model.zero_grad()
        losses = model([make_input(64, 64), make_input(48, 64)])
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        for name, parameter in model.head.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    model.eval()
    model.test_score_thresh = 0.0
    with torch.no_grad():
        (result,) = model([make_input(64, 96)])
    assert 0 < len(result["instances"]) <= 100
    assert result["instances"].pred_boxes.tensor.isfinite().all()


def test_rows_are_what_their_names_say():
    model = {
        name: copy.copy(model_zoo.get_config(row).model) for name, row in ROWS.items()
        if "1b/" not in name and "/table" in row
    }  # fmt: skip
    for name, cfg in model.items():
        is_fcos = "/fcos_" in name
        assert cfg.matcher._target_ is (FCOSMatcher if is_fcos else ATSSMatcher)
        assert cfg.anchor_generator.offset == (0.5 if is_fcos else 0.0)
    for matcher in ("fcos", "atss"):
        for measure, function in (("centerness", centerness), ("iou", localization_iou)):
            cfg = model[f"1a/{matcher}_{measure}_branch"]
            assert cfg.criterion.quality_loss.measure is function
            assert cfg.head.quality_predictor._target_ is QualityBranch
            cfg = model[f"1a/{matcher}_{measure}_guided"]
            assert cfg.criterion.cls_loss.positive_weight is function
            assert cfg.head.quality_predictor._target_ is NoQuality
        for name, cls in (
            ("dirac", DiracDistance), ("gaussian", GaussianDistance),
            ("general", GeneralDistribution), ("general_dfl", GeneralDistribution),
        ):  # fmt: skip
            cfg = model[f"2a/{matcher}_{name}"]
            assert cfg.head.box_representation._target_ is cls
            assert (cfg.criterion.dist_loss is not None) == (name == "general_dfl")
        for quality, loss in (("none", FocalLoss), ("qfl", QualityFocalLoss)):
            cfg = model[f"1a/{matcher}_{quality}"]
            assert cfg.criterion.cls_loss._target_ is loss
            assert cfg.head.quality_predictor._target_ is NoQuality
            assert cfg.criterion.get("quality_loss") is None
    for name, cfg in model.items():
        if name[:2] in ("1a", "1c"):
            assert cfg.head.box_representation._target_ is DiracDistance
            assert cfg.criterion.dist_loss is None
        if name[:2] == "2a":
            assert cfg.criterion.quality_loss.measure is centerness
        if name[:2] in ("1c", "2b", "2c"):
            assert cfg.criterion.cls_loss._target_ is QualityFocalLoss
        if name[:2] in ("2b", "2c"):
            assert cfg.criterion.dist_loss._target_ is DistributionFocalLoss
    for beta in (0, 1, 2, 2.5, 4):
        cfg = model[f"1c/beta_{beta}".replace(".", "_")]
        assert instantiate(cfg.criterion.cls_loss).beta == beta
    for n in (12, 14, 16, 18):
        assert instantiate(model[f"2b/n_{n}"].head.box_representation).reg_max == n
    for delta in (0.5, 1, 2, 4):
        cfg = model[f"2c/delta_{delta}".replace(".", "_")]
        assert instantiate(cfg.head.box_representation).bin_width == delta
    for name, qfl, dfl in (("baseline", 0, 0), ("qfl", 1, 0), ("dfl", 0, 1), ("qfl_dfl", 1, 1)):
        criterion = model[f"3/{name}"].criterion
        representation = GeneralDistribution if dfl else DiracDistance
        assert model[f"3/{name}"].head.box_representation._target_ is representation
        assert (criterion.get("quality_loss") is None) == qfl
        assert (criterion.cls_loss._target_ is QualityFocalLoss) == qfl
        has_dfl = criterion.dist_loss is not None
        assert has_dfl == dfl
        assert not has_dfl or criterion.dist_loss._target_ is DistributionFocalLoss


def test_the_best_is_gflv2_with_two_rows_parts():
    best, gflv2 = (model_zoo.get_config(x) for x in (BEST, "quick_start/shapes_gflv2.py"))
    assigner, bins = (ROWS[x] for x in ("assigner/dynamic_atss", "bins/half"))
    assert best.model.matcher == model_zoo.get_config(assigner).model.matcher
    of_bins = model_zoo.get_config(bins).model.head.box_representation
    assert best.model.head.box_representation == of_bins
    for cfg in (best, gflv2):
        del cfg.model.matcher, cfg.model.head.box_representation, cfg.train.output_dir
    assert best == gflv2


class ContextQuality(nn.Module):
    """A quality of one's own: read off the mean feature around each location."""

    def __init__(self, in_channels):
        super().__init__()
        self.score = nn.Linear(in_channels, 1)

    def forward(self, box_features, box_logits):
        context = nn.functional.avg_pool2d(box_features, 5, stride=1, padding=2)
        return self.score(context.flatten(start_dim=2).transpose(1, 2))


def test_a_quality_estimate_from_outside():
    cfg = model_zoo.get_config("quick_start/shapes_gflv2.py")
    cfg.model.head.quality_predictor = L(ContextQuality)(in_channels="${..conv_dims.0}")
    model = instantiate(cfg.model).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs = [make_input(96, 96, [[10, 10, 70, 80]], [1])]
    values = []
    with EventStorage(0):
        for _ in range(8):
            losses = sum(model(inputs).values())
            optimizer.zero_grad()
            losses.backward()
            optimizer.step()
            values.append(losses.item())
    assert model.head.quality_predictor.score.weight.grad.abs().sum() > 0
    assert values[-1] < values[0]
