"""One image in, its detections out: Detectron2's DefaultPredictor for both kinds of config."""

import os
from collections.abc import Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.modeling import build_model
from fvcore.transforms.transform import NoOpTransform
from omegaconf import OmegaConf

from .._padding import Padding
from ..config import Config, augmented, check_model, config_settings, resolve_device
from ..config.levels import channels_of
from ..data.batching import ImagePredictor, Size, format_to_read
from ..data.mapper import prepared
from ..data.pipelines import yacs_augmentations
from ..data.placement import CenterPadTransform, content_of
from ..export.optimize import fast_dtype, optimize_for_inference
from ..process.builders import built_here
from ..weights.checkpointers import StrictCheckpointer
from ..weights.description import calibration_of, find_config, num_classes_of
from .classes import post_processing, test_metadata, warn_if_others


class Predictor(ImagePredictor):
    """Applies a trained detector to single images.

    Attributes:
        weights: the file.
        model: the model, in eval mode, on the config's device (cuda if there is one, else cpu).
        augmented: the model with the config's test-time augmentation, or None. A call uses it.
        class_names: of the K classes, in the order of ``pred_classes``; None if neither the test
            dataset nor the weights know them.
        metadata: of the first test dataset, or of the weights, with the class names; None without
            both.
        read_format: the format in which :func:`gfocal.data.read_image` reads an image for it: "BGR"
            for a model of colour images, else the model's own.
        channels: of an image, 3 for colours.

    Examples:
        ```python
        predictor = Predictor("output/model_final.pth")
        instances = predictor(gfocal.data.read_image("input.jpg", "BGR"))["instances"]
        names = [predictor.class_names[i] for i in instances.pred_classes]
        ```
    """

    def __init__(
        self,
        cfg: Config | str | os.PathLike,
        weights: str | os.PathLike | None = None,
        *,
        fast: bool = False,
        calibrated: bool = False,
        distributions: bool = False,
        overrides: Sequence[str] = (),
        trusted_packages: Sequence[str] = (),
    ):
        """
        Args:
            cfg: a LazyConfig or a yacs config, or the path of one; or weights that carry their
                config, as a training leaves them.
            weights: a file that DetectionCheckpointer reads; by default the config's.
            fast: :func:`gfocal.optimize_for_inference`, in half precision where the device has it.
            calibrated: scores and standard deviations as ``gfocal calibrate`` found them for these
                weights. Thresholds of the config are of the scores before.
            distributions: detections have `pred_box_distributions` and `bin_edges`, see
                :mod:`gfocal.modeling.sides`.
            overrides: changes of the config, ``key=value``.
            trusted_packages: packages whose classes and functions the config in a weight file may
                name, beside those of gfocal, detectron2, fvcore, torch and torchvision.

        Raises:
            FileNotFoundError: no such weight file.
            TypeError: ``distributions`` of a detector that has none.
            ValueError: no weights, weights of another model, weights without a config where none
                is given, a config in them that names other code, a device that is not there, or a
                LazyConfig without `dataloader.test.mapper.augmentations`; ``calibrated`` of weights
                without a calibration; or ``distributions`` with test-time augmentation.
        """
        cfg, description = find_config(cfg, weights, overrides, trusted_packages)
        check_model(cfg)
        settings = config_settings(cfg)
        weights = self.weights = settings.weights
        if not weights:
            raise ValueError(
                "Predictor has no weights: pass the file, or set train.init_checkpoint "
                "(LazyConfig) or MODEL.WEIGHTS (yacs)"
            )
        device = resolve_device(settings.device)
        if isinstance(cfg, CfgNode):
            cfg.MODEL.DEVICE = str(device)
            with built_here():
                self.model = build_model(cfg)
            augmentations = yacs_augmentations(cfg, is_train=False)
            self.input_format = cfg.INPUT.FORMAT
        else:
            self.model = instantiate(cfg.model).to(device)
            mapper = OmegaConf.select(cfg, "dataloader.test.mapper", default={})
            if "augmentations" not in mapper:
                raise ValueError("Predictor needs dataloader.test.mapper.augmentations in a config")
            augmentations = [instantiate(augmentation) for augmentation in mapper.augmentations]
            self.input_format = mapper.get("image_format") or self.model.input_format
        self.augmentations = T.AugmentationList(prepared(augmentations))
        self.channels = len(getattr(self.model, "pixel_mean", (0, 0, 0)))
        if channels_of(self.input_format) not in (None, self.channels):
            raise ValueError(
                f"the image format is {self.input_format!r}, but the model's pixel_mean is for "
                f"{self.channels} channels; expected as many (null for files of other channels)"
            )
        self.read_format = format_to_read(self.channels, self.input_format)
        self.metadata = test_metadata(cfg, description)
        names = self.metadata.get("thing_classes", None) if self.metadata is not None else None
        self.class_names = names and list(names)
        num_classes = num_classes_of(self.model)
        warn_if_others(description, weights, "the config", num_classes, names or ())
        StrictCheckpointer(self.model).load(weights)
        self.model.eval()
        if fast:
            optimize_for_inference(self.model, dtype=fast_dtype(device))
        self.augmented = augmented(cfg, self.model)
        if calibrated:
            part = post_processing(self.model, "calibration")
            part.calibrate(calibration_of(description, weights), weights)
        if distributions:
            part = post_processing(self.model, "distributions")
            self.model.check_distributions()
            part.distributions = True
            if self.augmented is not None:
                raise ValueError("distributions have no test-time augmentation; switch one off")

    def preprocess(self, image: np.ndarray) -> dict[str, Any]:
        """Turns an image into the model's input: resized as for testing, channels reordered.

        Args:
            image: (H, W, 3) uint8, BGR. If the model's images are not colours, (H, W, channels) in
                its own format.

        Returns:
            "image" (C, H', W') float32, and the "height" H and "width" W of the output. After a
            CenterPad also its "border" and "content_size", see
            :func:`gfocal.data.placement.content_of`.

        Raises:
            TypeError: not a uint8 array.
            ValueError: not of that shape, or empty.
        """
        self.check_image(image)
        height, width = image.shape[:2]
        if self.input_format == "RGB" and self.read_format == "BGR":
            image = image[:, :, ::-1]
        augmented = T.AugInput(image)
        transforms = self.augmentations(augmented)
        array = np.ascontiguousarray(augmented.image.astype("float32").transpose(2, 0, 1))
        size = {"height": height, "width": width}
        return {"image": torch.from_numpy(array), **size, **content_of(transforms)}

    def detect(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The model's outputs for one batch of inputs, without gradients."""
        self.model.eval()
        with torch.no_grad():
            return (self.augmented or self.model)(inputs)

    def resized(self, size: Size) -> Size | None:
        """The size of an image after the augmentations, without any pixels; None if one of them is
        neither a resizing nor a CenterPad."""
        for augmentation in self.augmentations.augs:
            transform = augmentation.get_transform(np.broadcast_to(np.uint8(0), (*size, 3)))
            if isinstance(transform, T.ResizeTransform):
                size = (int(transform.new_h), int(transform.new_w))
            elif isinstance(transform, CenterPadTransform):
                size = transform.size
            elif not isinstance(transform, NoOpTransform):
                return None
        return size

    def padded(self, size: Size) -> Size:
        """A size with the backbone's padding."""
        return Padding.of(getattr(self.model, "backbone", None)).size(size)

    @property
    def num_classes(self) -> int:
        known = num_classes_of(self.model)
        known = len(self.class_names or ()) if known is None else known
        if not known:
            raise ValueError(
                f"the classes of a {type(self.model).__name__} are not known; expected a test "
                "dataset with thing_classes, or a model with num_classes"
            )
        return known

    @property
    def category_ids(self) -> list[int] | None:
        known = getattr(self.metadata, "thing_dataset_id_to_contiguous_id", None)
        return sorted(known, key=known.get) if known else None
