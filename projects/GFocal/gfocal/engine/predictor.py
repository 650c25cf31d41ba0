"""One image in, its detections out: Detectron2's DefaultPredictor for both kinds of config."""

import os
from collections.abc import Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data.detection_utils import build_augmentation
from detectron2.modeling import build_model
from omegaconf import OmegaConf

from ..config import Config, augmented, check_model, config_settings, resolve_device
from ..config.levels import channels_of
from ..data.images import as_array
from ..data.mapper import without_empty_resize
from ..export import fast_dtype, optimize_for_inference
from ..process.builders import built_here
from ..weights.checkpointers import StrictCheckpointer
from ..weights.description import find_config
from .batching import padded, plan_batches
from .classes import test_metadata, warn_if_others


class Predictor:
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
        overrides: Sequence[str] = (),
        trusted_packages: Sequence[str] = (),
    ):
        """
        Args:
            cfg: a LazyConfig or a yacs config, or the path of one; or weights that carry their
                config, as a training leaves them.
            weights: a file that DetectionCheckpointer reads; by default the config's.
            fast: :func:`gfocal.optimize_for_inference`, in half precision where the device has it.
            overrides: changes of the config, ``key=value``.
            trusted_packages: packages whose classes and functions the config in a weight file may
                name, beside those of gfocal, detectron2, fvcore, torch and torchvision.

        Raises:
            FileNotFoundError: no such weight file.
            ValueError: no weights, weights of another model, weights without a config where none
                is given, a config in them that names other code, a device that is not there, or a
                LazyConfig without `dataloader.test.mapper.augmentations`.
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
            augmentations = build_augmentation(cfg, is_train=False)
            self.input_format = cfg.INPUT.FORMAT
        else:
            self.model = instantiate(cfg.model).to(device)
            mapper = OmegaConf.select(cfg, "dataloader.test.mapper", default={})
            if "augmentations" not in mapper:
                raise ValueError("Predictor needs dataloader.test.mapper.augmentations in a config")
            augmentations = [instantiate(augmentation) for augmentation in mapper.augmentations]
            self.input_format = mapper.get("image_format") or self.model.input_format
        self.augmentations = T.AugmentationList(without_empty_resize(augmentations))
        self.channels = len(getattr(self.model, "pixel_mean", (0, 0, 0)))
        if channels_of(self.input_format) not in (None, self.channels):
            raise ValueError(
                f"the image format is {self.input_format!r}, but the model's pixel_mean is for "
                f"{self.channels} channels; expected as many (null for files of other channels)"
            )
        of_colours = self.channels == 3 and self.input_format in ("RGB", "BGR")
        self.read_format = "BGR" if of_colours else self.input_format
        self.metadata = test_metadata(cfg, description)
        names = self.metadata.get("thing_classes", None) if self.metadata is not None else None
        self.class_names = names and list(names)
        num_classes = getattr(self.model, "num_classes", None)
        warn_if_others(description, weights, "the config", num_classes, names or ())
        StrictCheckpointer(self.model).load(weights)
        self.model.eval()
        if fast:
            optimize_for_inference(self.model, dtype=fast_dtype(device))
        self.augmented = augmented(cfg, self.model)

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

    def __call__(self, image: Any, batch_size: int = 8) -> Any:
        """
        Args:
            image: an array (H, W, 3), uint8, BGR; a PIL image; or the path of a file. Or a list of
                these.
            batch_size: of a list, at most so many images at once. Only images of equal size in the
                network share a batch, see batching.py.

        Returns:
            the model's output for the image: "instances" in its pixels. A list for a list.

        Raises:
            TypeError, ValueError: not an image; of a list, with the index.
            FileNotFoundError: no such file.
        """
        if not isinstance(image, (list, tuple)):
            return self.predict([self.preprocess(as_array(image, self.read_format))], 1)[0]
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is {batch_size!r}; expected an integer of at least 1")
        outputs: list[Any] = [None] * len(image)
        for start in range(0, len(image), 4 * batch_size):  # bounds what waits in memory
            inputs = [
                self._numbered(index, image[index])
                for index in range(start, min(start + 4 * batch_size, len(image)))
            ]
            outputs[start : start + len(inputs)] = self.predict(inputs, batch_size)
        return outputs

    def predict(self, inputs: list[dict[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        """The model's outputs for inputs of :meth:`preprocess`, without gradients. Only inputs of
        equal size share a batch."""
        self.model.eval()
        outputs: list[Any] = [None] * len(inputs)
        sizes = [padded(tuple(x["image"].shape[-2:]), self.size_divisibility) for x in inputs]
        for batch in plan_batches(sizes, batch_size):
            with torch.no_grad():
                found = (self.augmented or self.model)([inputs[i] for i in batch])
            for index, output in zip(batch, found):
                outputs[index] = output
        return outputs

    @property
    def size_divisibility(self) -> int:
        """To multiples of this, pixels, a batch is padded."""
        return getattr(getattr(self.model, "backbone", None), "size_divisibility", 1)

    def _numbered(self, index: int, image: Any) -> dict[str, Any]:
        try:
            return self.preprocess(as_array(image, self.read_format))
        except (TypeError, ValueError) as error:
            raise type(error)(f"image {index}: {error}") from error
