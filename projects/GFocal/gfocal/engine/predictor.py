"""One image in, its detections out: Detectron2's DefaultPredictor for both kinds of config."""

import logging
from collections.abc import Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import build_augmentation
from detectron2.modeling import build_model
from omegaconf import DictConfig, OmegaConf

from ..config import Config, config_settings, resolve_device
from ..config.levels import channels_of
from ..data.mapper import without_empty_resize
from ..export import fast_dtype, optimize_for_inference
from ..weights.checkpointers import StrictCheckpointer, check_weights


class Predictor:
    """Applies a trained detector to single images.

    Attributes:
        model: the model, in eval mode, on the config's device (cuda if there is one, else cpu).
        metadata: of the first test dataset, with the class names; None without that dataset.
        read_format: the format in which :func:`gfocal.data.read_image` reads an image for it: "BGR"
            for a model of colour images, else the model's own.
        channels: of an image, 3 for colours.

    Examples:
        ```python
        predictor = Predictor(load_config("config.py"), "output/model_final.pth")
        instances = predictor(gfocal.data.read_image("input.jpg", "BGR"))["instances"]
        ```
    """

    def __init__(self, cfg: Config, weights: str | None = None, *, fast: bool = False):
        """
        Args:
            cfg: a LazyConfig or a yacs config.
            weights: a file that DetectionCheckpointer reads; by default the config's.
            fast: :func:`gfocal.optimize_for_inference`, in half precision where the device has it.

        Raises:
            FileNotFoundError: no such weight file.
            ValueError: no weights, weights of another model, a device that is not there, or a
                LazyConfig without `dataloader.test.mapper.augmentations`.
        """
        settings = config_settings(cfg)
        weights = check_weights(settings.weights if weights is None else str(weights))
        if not weights:
            raise ValueError(
                "Predictor has no weights: pass the file, or set train.init_checkpoint "
                "(LazyConfig) or MODEL.WEIGHTS (yacs)"
            )
        device = resolve_device(settings.device)
        if isinstance(cfg, CfgNode):
            cfg = cfg.clone()  # from_config may change it
            cfg.MODEL.DEVICE = str(device)
            self.model = build_model(cfg)
            augmentations = build_augmentation(cfg, is_train=False)
            self.input_format = cfg.INPUT.FORMAT
            names = cfg.DATASETS.TEST
        else:
            self.model = instantiate(cfg.model).to(device)
            mapper = OmegaConf.select(cfg, "dataloader.test.mapper", default={})
            if "augmentations" not in mapper:
                raise ValueError("Predictor needs dataloader.test.mapper.augmentations in a config")
            augmentations = [instantiate(augmentation) for augmentation in mapper.augmentations]
            self.input_format = mapper.get("image_format") or self.model.input_format
            names = _registered_names(cfg)
        self.augmentations = T.AugmentationList(without_empty_resize(augmentations))
        self.channels = len(getattr(self.model, "pixel_mean", (0, 0, 0)))
        if channels_of(self.input_format) not in (None, self.channels):
            raise ValueError(
                f"the image format is {self.input_format!r}, but the model's pixel_mean is for "
                f"{self.channels} channels; expected as many (null for files of other channels)"
            )
        of_colours = self.channels == 3 and self.input_format in ("RGB", "BGR")
        self.read_format = "BGR" if of_colours else self.input_format
        known = bool(names) and names[0] in MetadataCatalog.list()
        self.metadata = MetadataCatalog.get(names[0]) if known else None
        StrictCheckpointer(self.model).load(weights)
        self.model.eval()
        if fast:
            optimize_for_inference(self.model, dtype=fast_dtype(device))

    def preprocess(self, image: np.ndarray) -> dict[str, Any]:
        """Turns an image into the model's input: resized as for testing, channels reordered.

        Args:
            image: (H, W, 3) uint8, BGR. If the model's images are not colours, (H, W, channels) in
                its own format.

        Returns:
            "image" (C, H', W') float32, and the "height" H and "width" W of the output.

        Raises:
            TypeError: not a uint8 array.
            ValueError: not of that shape, or empty.
        """
        order = f"{self.read_format} order" if self.read_format == "BGR" else "the model's format"
        expected = f"(H, W, {self.channels}) in {order}"
        kinds = (np.uint8,) if self.read_format == "BGR" else (np.uint8, np.float32)
        if not isinstance(image, np.ndarray) or image.dtype not in kinds:
            got = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
            raise TypeError(f"expected a uint8 array {expected}, got {got}")
        if image.ndim != 3 or image.shape[2] != self.channels or 0 in image.shape:
            raise ValueError(f"expected an image {expected}, got shape {image.shape}")
        height, width = image.shape[:2]
        if self.input_format == "RGB" and self.read_format == "BGR":
            image = image[:, :, ::-1]
        augmented = T.AugInput(image)
        self.augmentations(augmented)
        array = np.ascontiguousarray(augmented.image.astype("float32").transpose(2, 0, 1))
        return {"image": torch.from_numpy(array), "height": height, "width": width}

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """
        Args:
            image: (H, W, 3) uint8, BGR.

        Returns:
            the model's output for the image: "instances" in its pixels.
        """
        with torch.no_grad():
            return self.model([self.preprocess(image)])[0]


def _registered_names(cfg: DictConfig) -> Sequence[str]:
    """Names of a LazyConfig's test datasets, after the LazyCalls that register them."""
    try:
        names = instantiate(OmegaConf.select(cfg, "dataloader.test.dataset.names", default=[]))
    except (OSError, ValueError) as error:
        # Prediction needs no dataset. Only the class names are lost.
        logging.getLogger(__name__).warning(f"The test dataset's class names are unknown: {error}")
        return []
    return [names] if isinstance(names, str) else names
