"""Generalized Focal Loss v1 and v2 for Detectron2.

Importing it registers the architectures and backbones for Detectron2's yacs configs. The names in
``__all__`` are the public face. Their modules are imported when a name is first used.
"""

import difflib
import importlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import detectron2  # noqa: F401
except ImportError as error:
    raise ImportError(
        "gfocal extends Detectron2, which is not installed: install the official build, or run "
        "tools/install_detectron2.py for a pure-Python one"
    ) from error

with warnings.catch_warnings():  # Detectron2 and fvcore script functions when they are imported
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    from . import _moved, backbones, detectors  # noqa: F401  (the last two register their names)
from ._version import __version__ as __version__

# isort: off
if TYPE_CHECKING:  # what the table below says, for type checkers and editors
    from .config import (
        add_gfocal_config as add_gfocal_config,
        apply_overrides as apply_overrides,
        check_config as check_config,
        load_config as load_config,
        model_zoo as model_zoo,
    )
    from .data import (
        DetectionMapper as DetectionMapper,
        build_train_loader as build_train_loader,
        coco_evaluator as coco_evaluator,
        coco_num_classes as coco_num_classes,
        detection_dataset_dicts as detection_dataset_dicts,
        read_image as read_image,
        register_coco_json as register_coco_json,
        register_shapes as register_shapes,
    )
    from .detectors import (
        GFL as GFL,
        QFLRetinaNet as QFLRetinaNet,
    )
    from .engine import (
        LazyTrainer as LazyTrainer,
        Predictor as Predictor,
        Trainer as Trainer,
    )
    from .export import (
        optimize_for_inference as optimize_for_inference,
    )
    from .inspect import (
        detect_with_distributions as detect_with_distributions,
        draw_box_distributions as draw_box_distributions,
        draw_detections as draw_detections,
    )
    from .modeling import (
        ATSSMatcher as ATSSMatcher,
        DenseAnchors as DenseAnchors,
        DensePredictions as DensePredictions,
        DiracDistance as DiracDistance,
        DistributionFocalLoss as DistributionFocalLoss,
        DistributionGuidedQualityPredictor as DistributionGuidedQualityPredictor,
        FCOSMatcher as FCOSMatcher,
        FocalLoss as FocalLoss,
        GaussianDistance as GaussianDistance,
        GaussianNLLLoss as GaussianNLLLoss,
        GeneralDistribution as GeneralDistribution,
        GFLCriterion as GFLCriterion,
        GFLHead as GFLHead,
        GIoULoss as GIoULoss,
        GroundTruth as GroundTruth,
        LossInputs as LossInputs,
        Matches as Matches,
        NMSPostProcess as NMSPostProcess,
        NoQuality as NoQuality,
        QualityBranch as QualityBranch,
        QualityBranchLoss as QualityBranchLoss,
        QualityFocalLoss as QualityFocalLoss,
        aligned_iou as aligned_iou,
        boxes_to_distances as boxes_to_distances,
        centerness as centerness,
        distances_to_boxes as distances_to_boxes,
        distribution_focal_loss as distribution_focal_loss,
        generalized_focal_loss as generalized_focal_loss,
        generalized_iou_loss as generalized_iou_loss,
        localization_iou as localization_iou,
        matched_quality as matched_quality,
        quality_focal_loss as quality_focal_loss,
        sparse_quality_focal_loss as sparse_quality_focal_loss,
    )
    from .weights import (
        convert_checkpoint_to_mmdet as convert_checkpoint_to_mmdet,
        convert_mmdet_checkpoint as convert_mmdet_checkpoint,
        convert_mmdet_state_dict as convert_mmdet_state_dict,
    )
# isort: on

# The public names of each wing.
_PUBLIC = {
    "config": "add_gfocal_config apply_overrides check_config load_config model_zoo",
    "data": (
        "DetectionMapper build_train_loader coco_evaluator coco_num_classes "
        "detection_dataset_dicts read_image register_coco_json register_shapes"
    ),
    "detectors": "GFL QFLRetinaNet",
    "engine": "LazyTrainer Predictor Trainer",
    "export": "optimize_for_inference",
    "inspect": "detect_with_distributions draw_box_distributions draw_detections",
    "modeling": (
        "ATSSMatcher DenseAnchors DensePredictions DiracDistance DistributionFocalLoss "
        "DistributionGuidedQualityPredictor FCOSMatcher FocalLoss GaussianDistance "
        "GaussianNLLLoss GeneralDistribution GFLCriterion GFLHead GIoULoss GroundTruth "
        "LossInputs Matches NMSPostProcess NoQuality QualityBranch QualityBranchLoss "
        "QualityFocalLoss aligned_iou boxes_to_distances centerness distances_to_boxes "
        "distribution_focal_loss generalized_focal_loss generalized_iou_loss localization_iou "
        "matched_quality quality_focal_loss sparse_quality_focal_loss"
    ),
    "weights": "convert_checkpoint_to_mmdet convert_mmdet_checkpoint convert_mmdet_state_dict",
}
_LAZY = {name: wing for wing, names in _PUBLIC.items() for name in names.split()}
__all__ = list(_LAZY)
# Parts of the package that are imported when they are first used.
_WINGS = (
    "benchmarks",
    "cli",
    "config",
    "data",
    "engine",
    "export",
    "inspect",
    "modeling",
    "process",
    "solver",
    "weights",
)

_moved.install()
# gfocal.benchmarks is a folder of the installed package, or at the top of this file's checkout.
_top = Path(__path__[0], "../../..").resolve()
if (_top / "benchmarks" / "straightforward.py").is_file():
    __path__.append(str(_top))


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    if name in _WINGS or f"{__name__}.{name}" in _moved.MOVED:
        return importlib.import_module(f"{__name__}.{name}")
    nearest = [] if name.startswith("_") else difflib.get_close_matches(name, __dir__(), n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    own = {name for name in globals() if name.startswith("__")}
    return sorted({*own, *__all__, *_WINGS, "backbones", "detectors"})
