"""The yacs side: the same detector as the LazyConfig's, and names looked up in one table."""

import re
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.data.detection_utils import build_augmentation
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer

from gfocal import model_zoo
from gfocal.config import add_gfocal_config, apply_overrides, check_config
from gfocal.data.pipelines import yacs_augmentations
from gfocal.modeling import recipes
from gfocal.modeling.criterion import one_more_an_image
from gfocal.modeling.quality import NoQuality, matched_quality, uniform
from gfocal.modeling.suppression import HardNMS
from gfocal.modeling.terms import GaussianNLLLoss, QualityFocalLoss

CONFIGS = Path(__file__).parents[2] / "configs"


TWINS = [f"{name}_R_50_FPN_{schedule}" for name in ("gfl", "gflv2") for schedule in ("1x", "ms_2x")]
TWINS += ["fovea_R_50_FPN_1x", "fovea_align_R_50_FPN_gn_2x", "fovea_align_R_50_FPN_gn_ms_2x"]


def yacs(name, *overrides):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "COCO-Detection" / f"{name}.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *overrides])
    return cfg


@pytest.mark.parametrize("name", TWINS)
def test_twins_are_the_same_detector(name):
    twin = build_model(yacs(name))
    lazy = LazyConfig.load(str(CONFIGS / "COCO-Detection" / f"{name}.py")).model
    model = instantiate(lazy)
    assert str(model) == str(twin)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in twin.state_dict().items()
    }
    for attribute in (
        "head_in_features",
        "num_classes",
        "test_score_thresh",
        "test_topk_candidates",
        "test_nms_thresh",
        "test_clip_margin",
        "ignore_padding",
        "max_detections_per_image",
        "input_format",
    ):
        assert getattr(model, attribute) == getattr(twin, attribute), attribute
    assert model.anchor_generator.strides == twin.anchor_generator.strides
    assert repr(model.matcher) == repr(twin.matcher)
    assert torch.equal(model.pixel_mean, twin.pixel_mean)
    assert torch.equal(model.pixel_std, twin.pixel_std)
    for cell, twin_cell in zip(
        model.anchor_generator.cell_anchors, twin.anchor_generator.cell_anchors
    ):
        assert torch.equal(cell, twin_cell)
    assert model.criterion.box_weight is twin.criterion.box_weight
    assert model.criterion.cls_divisor is twin.criterion.cls_divisor
    assert model.backbone.top_block.in_feature == twin.backbone.top_block.in_feature
    assert model.anchor_generator.offset == twin.anchor_generator.offset
    for term, twin_term in zip(model.criterion.children(), twin.criterion.children()):
        for number in ("weight", "beta", "alpha", "gamma"):
            assert vars(term).get(number) == vars(twin_term).get(number), number


@pytest.mark.parametrize("name", TWINS)
def test_twins_are_trained_alike(name):
    twin = yacs(name)
    lazy = LazyConfig.load(str(CONFIGS / "COCO-Detection" / f"{name}.py"))
    assert twin.MODEL.WEIGHTS == lazy.train.init_checkpoint
    assert twin.SOLVER.MAX_ITER == lazy.train.max_iter
    assert twin.SOLVER.IMS_PER_BATCH == lazy.dataloader.train.total_batch_size
    assert (twin.DATASETS.TRAIN[0], twin.DATASETS.TEST[0]) == (
        lazy.dataloader.train.dataset.names,
        lazy.dataloader.test.dataset.names,
    )
    for is_train, mapper in (
        (True, lazy.dataloader.train.mapper),
        (False, lazy.dataloader.test.mapper),
    ):
        assert mapper.image_format == twin.INPUT.FORMAT
        # apply both to the same images, as random as they are alike
        for augmentation, twin_augmentation in zip(
            mapper.augmentations, build_augmentation(twin, is_train), strict=True
        ):
            for shape in ((480, 640, 3), (640, 480, 3), (300, 900, 3)):
                image = np.random.randint(0, 256, shape, dtype=np.uint8)
                results = []
                for x in (instantiate(augmentation), twin_augmentation):
                    np.random.seed(0)
                    results.append(x.get_transform(image).apply_image(image))
                assert np.array_equal(*results)

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3))
    lazy.optimizer.params.model = model
    optimizers = build_optimizer(twin, model), instantiate(lazy.optimizer)
    settings = [
        {(g["lr"], g["momentum"], g["weight_decay"]) for g in optimizer.param_groups}
        for optimizer in optimizers
    ]
    assert settings[0] == settings[1] == {(0.01, 0.9, 1e-4)}
    theirs = build_lr_scheduler(twin, optimizers[0])
    multiplier = instantiate(lazy.lr_multiplier)
    max_iter = lazy.train.max_iter
    steps = [*twin.SOLVER.STEPS, *(step - 1 for step in twin.SOLVER.STEPS)]
    for iteration in (0, 100, 499, 500, *steps, max_iter - 1):
        assert multiplier(iteration / max_iter) == pytest.approx(
            theirs._multiplier(iteration / max_iter), rel=1e-6
        )


def test_keys_reach_their_parts():
    model = build_model(
        yacs(
            "gflv2_R_50_FPN_1x",
            "MODEL.GFL.NUM_CLASSES", 7,
            "MODEL.GFL.REG_MAX", 8,
            "MODEL.GFL.BIN_WIDTH", 2.0,
            "MODEL.GFL.DGQP.TOPK", 3,
            "MODEL.GFL.DGQP.ADD_MEAN", False,
            "MODEL.GFL.DGQP.HIDDEN_DIM", 16,
            "MODEL.GFL.ATSS_TOPK", 5,
            "MODEL.GFL.QFL_BETA", 1.5,
            "MODEL.GFL.LOSS_CLS_WEIGHT", 3.0,
            "MODEL.GFL.LOSS_BOX_REG_WEIGHT", 4.0,
            "MODEL.GFL.LOSS_DFL_WEIGHT", 5.0,
            "MODEL.GFL.NUM_CONVS", 1,
            "MODEL.GFL.CONV_DIM", 32,
            "MODEL.GFL.ANCHOR_OFFSET", 0.5,
            "MODEL.GFL.NMS_THRESH_TEST", 0.7,
            "MODEL.GFL.CLIP_MARGIN_TEST", 1.0,
            "MODEL.GFL.LEVEL_SCALES", False,
        )
    )  # fmt: skip
    assert model.num_classes == model.head.num_classes == 7
    assert model.head.box_representation.reg_max == 8
    assert model.head.box_representation.bin_width == 2.0
    assert model.head.quality_predictor.fc1.weight.shape == (16, 12)
    assert model.matcher.topk == 5
    assert model.criterion.cls_loss.beta == 1.5
    assert model.criterion.cls_loss.weight == 3.0
    assert model.criterion.box_loss.weight == 4.0
    assert model.criterion.dist_loss.weight == 5.0
    assert len(model.head.cls_tower) == 1 and model.head.cls_tower[0].out_channels == 32
    assert model.anchor_generator.offset == 0.5
    assert model.test_nms_thresh == 0.7 and model.test_clip_margin == 1.0
    assert len(model.head.scales) == 0


def test_the_map_that_p6_is_made_of():
    for name, channels in (("p5", 256), ("res5", 2048)):
        top = build_model(yacs("gfl_R_50_FPN_1x", "MODEL.FPN.TOP_IN_FEATURE", name)).backbone
        assert top.top_block.in_feature == name
        assert top.top_block.p6.in_channels == channels
    with pytest.raises(ValueError, match=r"^MODEL.FPN.TOP_IN_FEATURE is 'p4'; expected 'p5' or"):
        build_model(yacs("gfl_R_50_FPN_1x", "MODEL.FPN.TOP_IN_FEATURE", "p4"))


# Each name of a table, and each pair of a quality and a matcher, which meet in the criterion.
CHOICES = [
    *((quality, "general_dfl", m) for quality in recipes.QUALITY for m in recipes.MATCHER),
    *(("qfl", box, "atss") for box in recipes.BOX),
]


@pytest.mark.parametrize(("quality", "box", "matcher"), dict.fromkeys(CHOICES))
def test_recipes_by_name(quality, box, matcher):
    keys = {"QUALITY": quality, "BOX_REPRESENTATION": box, "MATCHER": matcher, "CONV_DIM": 32}
    cfg = yacs("gfl_R_50_FPN_1x", *(x for k, v in keys.items() for x in (f"MODEL.GFL.{k}", v)))
    parts = recipes.from_yacs(cfg.MODEL.GFL)
    criterion, qualities, boxes = parts["criterion"], recipes.QUALITY[quality], recipes.BOX[box]
    for part, recipe in (
        (criterion.cls_loss, qualities["cls_loss"]),
        (criterion.quality_loss, qualities.get("quality_loss")),
        (criterion.box_loss, boxes["box_loss"]),
        (criterion.dist_loss, boxes["dist_loss"]),
        (parts["quality_predictor"], qualities["quality_predictor"]),
        (parts["box_representation"], boxes["box_representation"]),
        (parts["matcher"], recipes.MATCHER[matcher]["matcher"]),
    ):
        target = type(None) if recipe is None else recipe["_target_"]
        assert type(part) is getattr(target, "__self__", target)  # of a constructor, its class
    if matcher == "task_aligned" and isinstance(criterion.cls_loss, QualityFocalLoss):
        assert criterion.box_weight is criterion.cls_loss.measure is matched_quality
        assert criterion.cls_divisor is None
    else:
        assert criterion.box_weight is qualities["box_weight"]
        assert criterion.cls_divisor is not None
    if "branch" in quality and quality != "dgqp_branch":
        assert parts["quality_predictor"].conv.in_channels == 32


def test_use_leaves_what_is_not_named():
    cfg = model_zoo.get_config("COCO-Detection/gflv2_R_50_FPN_1x.py").model
    cfg.head.box_representation.reg_max = 24
    cfg.criterion.cls_loss.beta = 1.5
    before = cfg.head.quality_predictor
    recipes.use(cfg, box="dirac")
    assert cfg.criterion.cls_loss.beta == 1.5 and cfg.head.quality_predictor == before
    assert cfg.criterion.dist_loss is None
    recipes.use(cfg, quality="centerness_branch", matcher="fcos")
    assert cfg.matcher._target_ is recipes.MATCHER["fcos"]["matcher"]._target_
    assert cfg.criterion.quality_loss is not None
    recipes.use(cfg, quality="qfl")
    assert cfg.criterion.quality_loss is None
    assert "ignore_padding" not in cfg and "cls_divisor" not in cfg.criterion
    recipes.use(cfg, matcher="fovea")
    assert cfg.ignore_padding is False and cfg.criterion.cls_divisor is one_more_an_image
    recipes.use(cfg, matcher="atss")
    assert "ignore_padding" not in cfg and "cls_divisor" not in cfg.criterion
    with pytest.raises(ValueError, match="quality is 'best'"):
        recipes.use(cfg, quality="best")


def test_a_recipe_in_a_model():
    keys = ["MODEL.GFL.BOX_REPRESENTATION", "gaussian", "MODEL.GFL.QUALITY", "iou_branch"]
    model = build_model(yacs("gfl_R_50_FPN_1x", *keys))
    assert model.head.box_logits.out_channels == 4 * 2
    assert type(model.criterion.box_loss) is GaussianNLLLoss


@pytest.mark.parametrize("key", ["QUALITY", "BOX_REPRESENTATION", "MATCHER"])
def test_unknown_names_list_the_valid_ones(key):
    with pytest.raises(ValueError, match=f"MODEL.GFL.{key} is 'best'; expected one of '"):
        build_model(yacs("gflv2_R_50_FPN_1x", f"MODEL.GFL.{key}", "best"))


def test_picked_recipes_are_copies():
    part = recipes.pick(recipes.MATCHER, "atss", "key")
    part["matcher"].topk = 1
    assert "topk" not in recipes.MATCHER["atss"]["matcher"]


def test_numbers_reach_a_recipe_that_leaves_them_at_their_defaults(monkeypatch):
    mine = {"quality_predictor": L(NoQuality)(), "cls_loss": L(QualityFocalLoss)()}
    monkeypatch.setitem(recipes.QUALITY, "mine", mine)
    parts = recipes.from_yacs(
        yacs("gfl_R_50_FPN_1x", "MODEL.GFL.QUALITY", "mine", "MODEL.GFL.QFL_BETA", 1.0).MODEL.GFL
    )
    assert parts["criterion"].cls_loss.beta == 1.0


@pytest.mark.parametrize(("matcher", "offset"), [("atss", 0.0), ("fcos", 0.5), ("fovea", 0.5)])
def test_a_matcher_brings_its_offset(matcher, offset):
    cfg = model_zoo.get_config("COCO-Detection/gflv2_R_50_FPN_1x.py").model
    cfg.anchor_generator.offset = 0.25
    recipes.use(cfg, quality="qfl")
    assert cfg.anchor_generator.offset == 0.25
    recipes.use(cfg, matcher=matcher)
    assert cfg.anchor_generator.offset == offset
    keys = ["MODEL.GFL.MATCHER", matcher]
    assert build_model(yacs("gfl_R_50_FPN_1x", *keys)).anchor_generator.offset == offset
    for own in (0.0, 0.25, 0.5):  # a number in a config wins
        model = build_model(yacs("gfl_R_50_FPN_1x", *keys, "MODEL.GFL.ANCHOR_OFFSET", own))
        assert model.anchor_generator.offset == own


@pytest.mark.parametrize("value", ["left", True, [0.5], 1.0, -0.5])
def test_an_offset_that_is_none(value):
    cfg = yacs("gfl_R_50_FPN_1x", "MODEL.GFL.ANCHOR_OFFSET", value)
    message = rf"^MODEL.GFL.ANCHOR_OFFSET is {re.escape(repr(value))}; expected a number of strides"
    with pytest.raises(ValueError, match=message):
        recipes.from_yacs(cfg.MODEL.GFL)


def test_a_head_without_towers():
    cfg = model_zoo.get_config("quick_start/shapes_gflv2.py")
    recipes.use(cfg.model, quality="iou_branch")
    apply_overrides(cfg, ["model.head.conv_dims=[]"])
    with pytest.raises(ValueError, match=r"^conv_dims is \[\]; expected at least one width$"):
        instantiate(cfg.model)


@pytest.mark.parametrize(
    ("key", "value", "choices", "message"),
    [
        (
            "QFL_BETA",
            7.5,
            {"QUALITY": "iou_branch"},
            "expected 2.0, or a QUALITY .*: 'qfl', 'dgqp'",
        ),
        (
            "DGQP.TOPK",
            5,
            {"QUALITY": "qfl"},
            "QUALITY 'qfl' nothing reads it; expected 4, .*'dgqp'",
        ),
        ("DGQP.ADD_MEAN", False, {"QUALITY": "none"}, "expected True, .*'dgqp', 'dgqp_branch'$"),
        (
            "REG_MAX",
            99,
            {"BOX_REPRESENTATION": "dirac"},
            "expected 16, .*'general', 'general_dfl', 'geometric_dfl'$",
        ),
        ("BIN_WIDTH", 2.0, {"BOX_REPRESENTATION": "gaussian"}, "expected 1.0, .*'general'"),
        (
            "LOSS_DFL_WEIGHT",
            1.0,
            {"BOX_REPRESENTATION": "general"},
            "reads it: 'general_dfl', 'geometric_dfl', 'signed_dfl'$",
        ),
        ("ATSS_TOPK", 5, {"MATCHER": "fcos"}, "nothing reads it; .*: 'atss', 'dynamic_atss'$"),
        ("ATSS_TOPK", 5, {"MATCHER": "task_aligned"}, "MATCHER 'task_aligned' nothing reads it; "),
        ("TAL.TOPK", 9, {"MATCHER": "atss"}, "nothing reads it; .*: 'task_aligned'$"),
        ("TAL.ALPHA", 0.5, {"MATCHER": "dynamic_atss"}, "nothing reads it; .*: 'task_aligned'$"),
        ("DYNAMIC_ATSS_ALPHA", 0.5, {"MATCHER": "task_aligned"}, ".*: 'dynamic_atss'$"),
        ("TAL.WARMUP_ITERS", 9, {"MATCHER": "simota"}, "expected 0, .*: 'task_aligned'$"),
        ("SIMOTA.CENTER_RADIUS", 1.5, {"MATCHER": "fcos"}, "expected 2.5, .*: 'simota'$"),
        ("FOVEA_SIGMA", 0.3, {"MATCHER": "fcos"}, "nothing reads it; expected 0.4, .*: 'fovea'$"),
        ("FOCAL_ALPHA", 0.4, {"QUALITY": "qfl"}, "expected 0.25, or a QUALITY .*: 'none', "),
        ("FOCAL_GAMMA", 1.5, {"QUALITY": "dgqp"}, "expected 2.0, or a QUALITY .*: 'none', "),
        ("ATSS_MATCH_EVERY_BOX", True, {"MATCHER": "fcos"}, "expected False, .*: 'atss'$"),
    ],
)
def test_a_number_that_no_chosen_part_reads(key, value, choices, message):
    names = {"QUALITY": "qfl", **choices}
    keys = [x for name, choice in names.items() for x in (f"MODEL.GFL.{name}", choice)]
    cfg = yacs("gfl_R_50_FPN_1x", *keys)
    recipes.from_yacs(cfg.MODEL.GFL)
    cfg.merge_from_list([f"MODEL.GFL.{key}", value])
    with pytest.raises(ValueError, match=f"^MODEL.GFL.{key} is {value}, .*{message}"):
        build_model(cfg)


def test_numbers_of_yacs_are_those_of_the_lazy_config():
    """Each default is what the part of gflv2 has: the tables cannot drift apart."""
    cfg = get_cfg()
    add_gfocal_config(cfg)
    for number in recipes.NUMBERS:
        assert attrgetter(number.key)(cfg.MODEL.GFL) == number.default
    lazy = model_zoo.get_config("COCO-Detection/gflv2_R_50_FPN_1x.py").model
    parts = {**lazy.criterion, **lazy.head, "matcher": lazy.matcher}
    parts["suppression"] = vars(HardNMS())
    for number in recipes.NUMBERS:
        if number.argument in parts[number.slot] and "atss" in (number.names or ("atss",)):
            assert parts[number.slot][number.argument] == number.default
    for name, recipe in recipes.MATCHER.items():
        matcher = vars(instantiate(recipe["matcher"]))
        for number in recipes.NUMBERS:
            if number.slot == "matcher" and number.argument in matcher:
                read = name in (number.names or (name,))
                assert not read or matcher[number.argument] == number.default


def test_numbers_of_a_matcher_reach_it_alone():
    keys = {"TAL.TOPK": 5, "TAL.ALPHA": 0.5, "TAL.BETA": 4.0, "TAL.WARMUP_ITERS": 7}
    keys = [x for key, value in keys.items() for x in (f"MODEL.GFL.{key}", value)]
    cfg = yacs("gfl_R_50_FPN_1x", "MODEL.GFL.MATCHER", "task_aligned", *keys)
    matcher = recipes.from_yacs(cfg.MODEL.GFL)["matcher"]
    assert repr(matcher) == (
        "TaskAlignedMatcher(topk=5, alpha=0.5, beta=4.0, warmup_iters=7, "
        "warmup=ATSSMatcher(topk=9))"
    )
    keys = ["MODEL.GFL.MATCHER", "dynamic_atss", "MODEL.GFL.DYNAMIC_ATSS_ALPHA", 0.5]
    cfg = yacs("gfl_R_50_FPN_1x", *keys, "MODEL.GFL.ATSS_TOPK", 4)
    assert repr(recipes.from_yacs(cfg.MODEL.GFL)["matcher"]) == (
        "DynamicATSSMatcher(topk=4, alpha=0.5)"
    )


def test_labels_of_a_matcher_in_any_order():
    def used(*calls):
        model = model_zoo.get_config("COCO-Detection/gflv2_R_50_FPN_1x.py").model
        for call in calls:
            recipes.use(model, **call)
        return model

    aligned, qfl = {"matcher": "task_aligned"}, {"quality": "qfl_uniform"}
    for model in (used(aligned, qfl), used(qfl, aligned), used({**qfl, **aligned})):
        criterion = model.criterion
        assert criterion.box_weight is criterion.cls_loss.measure is matched_quality
        assert criterion.cls_divisor is None
    focal = {"quality": "none"}
    for model in (used(aligned, focal), used(focal, aligned), used(qfl, aligned, focal)):
        assert model.criterion.box_weight is uniform
        assert "measure" not in model.criterion.cls_loss and "cls_divisor" not in model.criterion
    again = used(aligned, {"quality": "qfl_uniform", "matcher": "atss"})
    assert again == used(qfl, {"matcher": "atss"})
    with pytest.raises(ValueError, match=r"come from its matcher, and 'simota' gives none; expect"):
        used(aligned, {"matcher": "simota"})


@pytest.mark.parametrize("quality", ["iou_branch", "centerness_branch"])
def test_a_quality_branch_reads_the_last_width_of_the_tower(quality, tmp_path):
    cfg = model_zoo.get_config("quick_start/shapes_gflv2.py")
    recipes.use(cfg.model, quality=quality)
    assert instantiate(cfg.model).head.quality_predictor.conv.in_channels == 64
    apply_overrides(cfg, ["model.head.conv_dims=[64,32]"])
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    saved = LazyConfig.load(str(tmp_path / "saved.yaml"))
    for x in (cfg, saved):
        head = instantiate(x.model).head
        assert head.quality_predictor.conv.in_channels == 32
        predictions = head([torch.zeros(1, 64, 4, 4)] * 5)
        assert predictions.quality_logits.shape == (1, 5 * 16, 1)
    apply_overrides(cfg, ["model.head.quality_predictor.in_channels=32"])  # a number, as before
    assert instantiate(cfg.model).head.quality_predictor.conv.in_channels == 32
    keys = ["MODEL.GFL.QUALITY", quality, "MODEL.GFL.CONV_DIM", 32, "MODEL.GFL.NUM_CONVS", 2]
    head = build_model(yacs("gfl_R_50_FPN_1x", *keys)).head
    assert head.quality_predictor.conv.in_channels == 32


@pytest.mark.parametrize(
    "name",
    ["ssd512_VGG_16", "ssd300_VGG_16", "centernet_R_18", "centernet_R_18_dcn", "cornernet_HG_104"],
)
def test_twins_of_the_other_detectors(name):
    """The same network, inference, images and schedule; optimizers where Detectron2 has them."""
    cfg, lazy = yacs(name), LazyConfig.load(str(CONFIGS / "COCO-Detection" / f"{name}.py"))
    check_config(cfg)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        models = model, twin = instantiate(lazy.model), build_model(cfg)
    assert str(model) == str(twin)
    shapes = [{key: x.shape for key, x in m.state_dict().items()} for m in models]
    assert shapes[0] == shapes[1]
    settings = ("num_classes", "test_score_thresh", "test_topk_candidates", "test_nms_thresh")
    for attribute in (*settings, "max_detections_per_image", "input_format"):
        assert getattr(model, attribute, None) == getattr(twin, attribute, None), attribute
    assert repr(model.postprocess) == repr(twin.postprocess)
    assert lazy.model.pixel_std == cfg.MODEL.PIXEL_STD
    for is_train, loader in ((True, "train"), (False, "test")):
        mapper = instantiate(lazy.dataloader[loader].mapper)
        assert str(mapper.augmentations.augs) == str(yacs_augmentations(cfg, is_train))
        assert mapper.image_format == cfg.INPUT.FORMAT
    assert cfg.MODEL.WEIGHTS == lazy.train.init_checkpoint
    assert cfg.SOLVER.MAX_ITER == lazy.train.max_iter
    assert cfg.SOLVER.IMS_PER_BATCH == lazy.dataloader.train.total_batch_size
    optimizer = build_optimizer(cfg, torch.nn.Conv2d(3, 3, 1))
    if name != "cornernet_HG_104":
        (group, *_) = optimizer.param_groups
        expected = (lazy.optimizer.lr, lazy.optimizer.weight_decay)
        assert (group["lr"], group["weight_decay"]) == expected
    theirs = build_lr_scheduler(cfg, optimizer)
    ours, last = instantiate(lazy.lr_multiplier), cfg.SOLVER.MAX_ITER
    steps = [*cfg.SOLVER.STEPS, *(step - 1 for step in cfg.SOLVER.STEPS)]
    for iteration in (0, 400, 999, 1000, *steps, last - 1):
        expected = theirs._multiplier(iteration / last)
        assert ours(iteration / last) == pytest.approx(expected, rel=2e-3)
