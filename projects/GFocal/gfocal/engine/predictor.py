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

from ..config import Config, augmented, config_settings, resolve_device
from ..data.mapper import without_empty_resize
from ..export import fast_dtype, optimize_for_inference
from ..weights.checkpointers import StrictCheckpointer, check_weights


class Predictor:
    """Applies a trained detector to single images.

    Attributes:
        model: the model, in eval mode, on the config's device (cuda if there is one, else cpu).
        augmented: the model with the config's test-time augmentation, or None. A call uses it.
        metadata: of the first test dataset, with the class names; None without that dataset.

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
        if self.input_format not in ("RGB", "BGR"):
            raise ValueError(f"the model's image format is {self.input_format!r}, not RGB or BGR")
        known = bool(names) and names[0] in MetadataCatalog.list()
        self.metadata = MetadataCatalog.get(names[0]) if known else None
        StrictCheckpointer(self.model).load(weights)
        self.model.eval()
        if fast:
            optimize_for_inference(self.model, dtype=fast_dtype(device))
        self.augmented = augmented(cfg, self.model)

    def preprocess(self, image: np.ndarray) -> dict[str, Any]:
        """Turns an image into the model's input: resized as for testing, channels reordered.

        Args:
            image: (H, W, 3) uint8, BGR.

        Returns:
            "image" (3, H', W') float32, and the "height" H and "width" W of the output.

        Raises:
            TypeError: not a uint8 array.
            ValueError: not of that shape, or empty.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            got = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
            raise TypeError(f"expected a uint8 array (H, W, 3) in BGR order, got {got}")
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"expected an image (H, W, 3) in BGR order, got shape {image.shape}")
        height, width = image.shape[:2]
        if self.input_format == "RGB":
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
            return (self.augmented or self.model)([self.preprocess(image)])[0]


def _registered_names(cfg: DictConfig) -> Sequence[str]:
    """Names of a LazyConfig's test datasets, after the LazyCalls that register them."""
    try:
        names = instantiate(OmegaConf.select(cfg, "dataloader.test.dataset.names", default=[]))
    except (OSError, ValueError) as error:
        # Prediction needs no dataset. Only the class names are lost.
        logging.getLogger(__name__).warning(f"The test dataset's class names are unknown: {error}")
        return []
    return [names] if isinstance(names, str) else names
