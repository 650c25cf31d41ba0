"""Names of the version before work: in saved configs, and in imports."""

import importlib
import subprocess
import sys
import warnings

import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.utils.registry import locate
from omegaconf import OmegaConf

import gfocal
from gfocal._moved import MOVED
from tests.helpers.import_graph import FLOORS

# Every callable of this package that the configs of version 0.1 were saved with, and others that
# its pages named.
OLD_NAMES = [
    "gfocal.backbone.DeepStem",
    "gfocal.backbone.LinearP6P7",
    "gfocal.backbone.make_res2net_stages",
    "gfocal.backbone.make_resnet_stages",
    "gfocal.backbone.DeformBottleneckBlock",
    "gfocal.box_distribution.DiracDistance",
    "gfocal.box_distribution.GaussianDistance",
    "gfocal.box_distribution.GeneralDistribution",
    "gfocal.box_distribution.aligned_iou",
    "gfocal.box_distribution.distances_to_boxes",
    "gfocal.box_distribution.at_least_float32",
    "gfocal.criterion.DistributionFocalLoss",
    "gfocal.criterion.FocalLoss",
    "gfocal.criterion.GFLCriterion",
    "gfocal.criterion.GIoULoss",
    "gfocal.criterion.GaussianNLLLoss",
    "gfocal.criterion.QualityBranchLoss",
    "gfocal.criterion.QualityFocalLoss",
    "gfocal.criterion.LossInputs",
    "gfocal.data.coco.coco_evaluator",
    "gfocal.data.coco.coco_num_classes",
    "gfocal.data.coco.detection_dataset_dicts",
    "gfocal.data.coco.register_coco_json",
    "gfocal.data.coco.read_coco_json",
    "gfocal.data.loader.build_train_loader",
    "gfocal.data.mapper.DetectionMapper",
    "gfocal.data.mapper.read_image",
    "gfocal.data.shapes.register_shapes",
    "gfocal.head.GFLHead",
    "gfocal.matcher.ATSSMatcher",
    "gfocal.matcher.FCOSMatcher",
    "gfocal.matcher.BACKGROUND",
    "gfocal.meta_arch.GFL",
    "gfocal.quality.DistributionGuidedQualityPredictor",
    "gfocal.quality.NoQuality",
    "gfocal.quality.QualityBranch",
    "gfocal.quality.centerness",
    "gfocal.quality.localization_iou",
    "gfocal.quality.max_class_score",
    "gfocal.quality.uniform",
    "gfocal.quality.joint_logits",
    "gfocal.retinanet.QFLRetinaNet",
    "gfocal.solver.AdamW",
    "gfocal.solver.SGD",
    "gfocal.losses.quality_focal_loss",
    "gfocal.losses.sparse_quality_focal_loss",
    "gfocal.checkpoint.convert_mmdet_state_dict",
    "gfocal.checkpoint.GFLCheckpointer",
    "gfocal.model_zoo.get_config",
    "gfocal.optimize.optimize_for_inference",
    "gfocal.recipes.use",
    "gfocal.config.add_gfocal_config",
    "gfocal.statistics.TargetStatistics",
    "gfocal.structures.DenseAnchors",
    "gfocal.visualization.draw_detections",
    "gfocal.visualization.detect_with_distributions",
    "gfocal.rng.rng_state",
    "gfocal.workers.sum_over_workers",
    "gfocal.engine.base.AutocastTrainer",
    "gfocal.engine.base.set_seed",
    "gfocal.engine.base.train_options",
    "gfocal.engine.hooks.EMAHook",
    "gfocal.engine.hooks.BestMetric",
    "gfocal.engine.hooks.validation_losses",
    "gfocal.engine.config_io.load_config",
    "gfocal.engine.config_io.all_keys",
    "gfocal.engine.config_io.unknown_key",
    "gfocal.engine.config_checks.check_config",
    "gfocal.engine.checkpointing.StrictCheckpointer",
    "gfocal.engine.checkpointing.TrainingCheckpointer",
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", OLD_NAMES)
def test_an_old_name_is_found(name):
    found = locate(name)
    assert found is not None
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(module), attribute) is found


def test_the_table_names_modules_that_are_there():
    for targets in MOVED.values():
        for target in targets:
            importlib.import_module(target)


def test_an_old_name_says_the_new_one():
    with pytest.warns(DeprecationWarning, match=r"ATSSMatcher is now gfocal.modeling.matchers.ATS"):
        from gfocal.matcher import ATSSMatcher

    from gfocal.modeling.matchers import ATSSMatcher as New

    assert ATSSMatcher is New
    with pytest.warns(DeprecationWarning, match=r"coco_evaluator is now gfocal.data.coco_evaluati"):
        from gfocal.data.coco import coco_evaluator  # noqa: F401


def test_the_model_zoo_is_still_public():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        import gfocal.model_zoo

        assert gfocal.model_zoo is importlib.import_module("gfocal.config.model_zoo")
        assert importlib.import_module("gfocal.model_zoo").get_config is not None


def test_modules_are_attributes_of_the_package():
    code = "import gfocal; print(gfocal.matcher.ATSSMatcher is gfocal.modeling.ATSSMatcher)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
    with pytest.raises(AttributeError, match="'gfocal' has no attribute 'nothing'"):
        gfocal.nothing  # noqa: B018
    wings = {name for name in FLOORS if not name.startswith("_")} - {"gfocal"}
    assert wings <= set(dir(gfocal))
    for name in [*wings, *(x.split(".")[1] for x in MOVED)]:
        assert gfocal.__getattr__(name).__name__ == f"gfocal.{name}"


def test_a_name_that_never_was():
    with pytest.raises(ImportError, match="cannot import name 'ATSS'"):
        from gfocal.matcher import ATSS  # noqa: F401
    with pytest.raises(AttributeError, match="'gfocal.data.coco' has no attribute 'nothing'"):
        gfocal.data.coco.nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("gfocal.nothing")


def test_the_package_itself_uses_no_old_name():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        for name in ("gfocal.engine", "gfocal.inspect", "gfocal.cli.train", "gfocal.weights"):
            importlib.import_module(name)
        gfocal.model_zoo.get_config("COCO-Detection/gflv2_R_50_FPN_1x.py")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_saved_config_with_old_names(tmp_path):
    """As version 0.1 saved it: a yaml of dotted names."""
    saved = """
model:
  _target_: gfocal.meta_arch.GFL
  num_classes: 3
  backbone:
    _target_: tests.helpers.tiny.TinyBackbone
  head:
    _target_: gfocal.head.GFLHead
    in_channels: 8
    num_levels: 2
    num_classes: ${..num_classes}
    conv_dims: [8]
    norm: ''
    box_representation: {_target_: gfocal.box_distribution.GeneralDistribution, reg_max: 8}
    quality_predictor: {_target_: gfocal.quality.DistributionGuidedQualityPredictor}
  head_in_features: [p3, p4]
  anchor_generator:
    _target_: detectron2.modeling.anchor_generator.DefaultAnchorGenerator
    sizes: [[64], [128]]
    aspect_ratios: [1.0]
    strides: [8, 16]
    offset: 0.0
  matcher: {_target_: gfocal.matcher.ATSSMatcher, topk: 7}
  criterion:
    _target_: gfocal.criterion.GFLCriterion
    cls_loss: {_target_: gfocal.criterion.QualityFocalLoss, beta: 1.5}
    box_loss: {_target_: gfocal.criterion.GIoULoss}
    dist_loss: {_target_: gfocal.criterion.DistributionFocalLoss}
  pixel_mean: [123.675, 116.28, 103.53]
  pixel_std: [58.395, 57.12, 57.375]
"""
    file = tmp_path / "config.yaml"
    file.write_text(saved)
    model = instantiate(LazyConfig.load(str(file)).model)
    assert type(model) is gfocal.detectors.GFL
    assert (model.matcher.topk, model.criterion.cls_loss.beta) == (7, 1.5)
    assert OmegaConf.create(saved).model.head._target_ == "gfocal.head.GFLHead"
