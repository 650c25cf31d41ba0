"""Generalized Focal Loss v1 and v2 for Detectron2.

Importing it registers the architectures and backbones for Detectron2's yacs configs. The names in
``__all__`` are the public face. Their modules are imported when a name is first used. Where PyTorch
or Detectron2 is not installed, nothing is registered. The names that need them then say so, and
:class:`gfocal.export.OnnxPredictor` works.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from . import _installed, _lazy, _moved
from ._version import __version__ as __version__

if _installed.absent():
    _installed.explain_absent()
else:
    with warnings.catch_warnings():  # Detectron2 and fvcore script functions when imported
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
        from . import backbones, detectors  # noqa: F401  (they register their names)

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
        ScoreLoss as ScoreLoss,
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
    ".config": "add_gfocal_config apply_overrides check_config load_config model_zoo",
    ".data": (
        "DetectionMapper build_train_loader coco_evaluator coco_num_classes "
        "detection_dataset_dicts read_image register_coco_json register_shapes"
    ),
    ".detectors": "GFL QFLRetinaNet",
    ".engine": "LazyTrainer Predictor Trainer",
    ".export": "optimize_for_inference",
    ".inspect": "detect_with_distributions draw_box_distributions draw_detections",
    ".modeling": (
        "ATSSMatcher DenseAnchors DensePredictions DiracDistance DistributionFocalLoss "
        "DistributionGuidedQualityPredictor FCOSMatcher FocalLoss GaussianDistance "
        "GaussianNLLLoss GeneralDistribution GFLCriterion GFLHead GIoULoss GroundTruth "
        "LossInputs Matches NMSPostProcess NoQuality QualityBranch QualityBranchLoss "
        "QualityFocalLoss ScoreLoss aligned_iou boxes_to_distances centerness "
        "distances_to_boxes distribution_focal_loss generalized_focal_loss generalized_iou_loss "
        "localization_iou matched_quality quality_focal_loss sparse_quality_focal_loss"
    ),
    ".weights": "convert_checkpoint_to_mmdet convert_mmdet_checkpoint convert_mmdet_state_dict",
}
_LAZY = _lazy.names_of(_PUBLIC)
__all__ = list(_LAZY)
# Parts of the package that are imported when they are first used.
_WINGS = (
    "backbones",
    "benchmarks",
    "cli",
    "config",
    "data",
    "detectors",
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
_old = [name.removeprefix("gfocal.") for name in _moved.MOVED if name.count(".") == 1]
__getattr__, __dir__ = _lazy.lazy_names(__name__, _LAZY, _WINGS, hidden=_old)
