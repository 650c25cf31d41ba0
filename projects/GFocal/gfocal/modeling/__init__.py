"""The paper: one idea a file. Nothing here knows of configs, datasets, trainings or files.

The parts and what flows between them, from the pixels of a batch to its losses or detections:

    head            features -> DensePredictions
    matchers        anchors, truth, predictions -> Matches -> DenseTargets
    criterion       anchors, predictions, targets -> LossInputs -> loss terms -> losses
    postprocess     anchors, predictions -> Instances
    dense           these together, without parameters
"""

from .boxes import aligned_iou, boxes_to_distances, distances_to_boxes
from .criterion import GFLCriterion
from .dense import DenseCore, DenseStep
from .feature_align import FeatureAlign
from .ground_truth import ground_truth_of
from .head import GFLHead
from .losses import (
    distribution_focal_loss,
    generalized_focal_loss,
    generalized_iou_loss,
    quality_focal_loss,
    sparse_quality_focal_loss,
)
from .matchers import ATSSMatcher, FCOSMatcher, FoveaMatcher
from .numerics import joint_logits
from .observers import TrainingPictures
from .postprocess import NMSPostProcess
from .quality import (
    DistributionGuidedQualityPredictor,
    NoQuality,
    QualityBranch,
    centerness,
    localization_iou,
    matched_quality,
    max_class_score,
    uniform,
)
from .representations import DiracDistance, GaussianDistance, GeneralDistribution, LogDistance
from .score_losses import sparse_score_loss
from .score_maps import (
    SCORE_MAPS,
    Focal,
    IoUAware,
    MatchabilityAware,
    NegativeWeight,
    QualityFocal,
    Varifocal,
)
from .statistics import TargetStatistics
from .structures import (
    BACKGROUND,
    IGNORED,
    DenseAnchors,
    DensePredictions,
    DenseTargets,
    GroundTruth,
    LossInputs,
    Matches,
)
from .terms import (
    DistributionFocalLoss,
    FocalLoss,
    GaussianNLLLoss,
    GIoULoss,
    LogSmoothL1Loss,
    QualityBranchLoss,
    QualityFocalLoss,
    ScoreLoss,
)

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "SCORE_MAPS",
    "ATSSMatcher",
    "DenseAnchors",
    "DenseCore",
    "DensePredictions",
    "DenseStep",
    "DenseTargets",
    "DiracDistance",
    "DistributionFocalLoss",
    "DistributionGuidedQualityPredictor",
    "FCOSMatcher",
    "FeatureAlign",
    "Focal",
    "FocalLoss",
    "FoveaMatcher",
    "GFLCriterion",
    "GFLHead",
    "GIoULoss",
    "GaussianDistance",
    "GaussianNLLLoss",
    "GeneralDistribution",
    "GroundTruth",
    "IoUAware",
    "LogDistance",
    "LogSmoothL1Loss",
    "LossInputs",
    "MatchabilityAware",
    "Matches",
    "NMSPostProcess",
    "NegativeWeight",
    "NoQuality",
    "QualityBranch",
    "QualityBranchLoss",
    "QualityFocal",
    "QualityFocalLoss",
    "ScoreLoss",
    "TargetStatistics",
    "TrainingPictures",
    "Varifocal",
    "aligned_iou",
    "boxes_to_distances",
    "centerness",
    "distances_to_boxes",
    "distribution_focal_loss",
    "generalized_focal_loss",
    "generalized_iou_loss",
    "ground_truth_of",
    "joint_logits",
    "localization_iou",
    "matched_quality",
    "max_class_score",
    "quality_focal_loss",
    "sparse_quality_focal_loss",
    "sparse_score_loss",
    "uniform",
]
