"""An ONNX file in the place of a model, for an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from omegaconf import OmegaConf
from torch import nn

from ..config import Config, config_settings, train_options
from ..data.batching import plan_batches
from ..export.runtime import OnnxPredictor
from ..weights.description import KEY, description_of
from .classes import classes_of, warn_if_others
from .evaluation import record_results, verify_expected_results

__all__ = ["ExportedDetector", "evaluate_exported"]


class ExportedDetector(nn.Module):
    """Calls an ONNX file as Detectron2 calls a model in inference.

    Args:
        predictor: of the file.
    """

    def __init__(self, predictor: OnnxPredictor):
        super().__init__()
        self.predictor = predictor
        # What evaluators read of a model.
        self.num_classes = predictor.num_classes
        self.max_detections_per_image = predictor.card.max_detections

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """
        Args:
            batched_inputs: one dict an image, as Detectron2's ``DatasetMapper`` makes them: "image"
                (C, H, W), and "height" and "width" of the output.

        Returns:
            One ``{"instances": Instances}`` an image.
        """
        images = [x["image"].numpy().astype(np.float32) for x in batched_inputs]
        inputs = [
            {
                "image": image,
                "height": x.get("height", image.shape[1]),
                "width": x.get("width", image.shape[2]),
                **{name: x[name] for name in ("border", "content_size") if name in x},
            }
            for x, image in zip(batched_inputs, images)
        ]
        sizes = [self.predictor.padded((image.shape[1], image.shape[2])) for image in images]
        outputs: list[Any] = [None] * len(inputs)
        for batch in plan_batches(sizes, len(inputs)):
            found = self.predictor.detect([inputs[i] for i in batch])
            for index, output in zip(batch, found):
                outputs[index] = {"instances": output["instances"].to_instances()}
        return outputs


def evaluate_exported(
    trainer: type[DefaultTrainer], cfg: Config, predictor: OnnxPredictor
) -> dict[str, Any]:
    """Evaluates an ONNX file on the test datasets of a config.

    Args:
        trainer: its ``test`` is called.
        cfg: the config. Of its model nothing is read.
        predictor: of the file.

    Raises:
        ValueError: the config asks for test-time augmentation, or reads images in another format
            than the file takes them.
    """
    model = ExportedDetector(predictor)
    _check_format(cfg, predictor)
    if train_options(cfg).test_augmentation.enabled:
        raise ValueError(
            "the config asks for test-time augmentation, which an ONNX file has not: set "
            "train.test_augmentation.enabled=false (TEST.AUG.ENABLED False)"
        )
    description = description_of({KEY: predictor.card.description or None}, predictor.weights)
    warn_if_others(
        description,
        predictor.weights,
        "the test dataset",
        predictor.num_classes,
        classes_of(cfg).names,
    )
    results = trainer.test(cfg, model) or {}
    record_results(config_settings(cfg).output_dir, results)
    verify_expected_results(cfg, results)
    return results


def _check_format(cfg: Config, predictor: OnnxPredictor) -> None:
    lazy = "dataloader.test.mapper.image_format"
    is_yacs = isinstance(cfg, CfgNode)
    found = cfg.INPUT.FORMAT if is_yacs else OmegaConf.select(cfg, lazy)
    if found is not None and found != predictor.card.input_format:  # a mapper may have none
        raise ValueError(
            f"{'INPUT.FORMAT' if is_yacs else lazy} is {found!r}; {predictor.weights} takes "
            f"{predictor.card.input_format!r}"
        )
