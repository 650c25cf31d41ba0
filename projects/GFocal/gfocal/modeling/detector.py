"""What all detectors have in common: from the data loader's dicts to losses or detections.

A detector is a network, targets and losses for it, and a way to read its predictions. The rest is
here: images are normalized, padded and batched, the ground truth is checked, and detections get
into the pixels of the wanted output.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.modeling import Backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from .._padding import Padding
from ..process.builders import warn_of_keys_for_trainers
from ..process.sums import each_micro_batch_on_its_own, is_counting
from .decoded import Decoded
from .dense import refuse_to_be_traced
from .ground_truth import check_channels, ground_truth_of
from .observers import TrainingPictures
from .padding import padded_batch
from .postprocess import NMSPostProcess, postprocess_of
from .settings import DETECTOR, UNSET, ScoreThresh, check_setting, check_yacs, for_classes
from .sides import check_distributions, in_output, without_border
from .structures import GroundTruth
from .suppression import Suppression
from .yacs_keys import added_keys

__all__ = ["Detector"]


def _setting(place: str, name: str, key: str = "") -> property:
    """A setting of a part, as an attribute of the detector; checked if it has a ``key``."""

    def read(detector: "Detector"):
        return getattr(getattr(detector, place), name)

    def write(detector: "Detector", value) -> None:
        part: Any = getattr(detector, place)
        read(detector)  # what the part does not have it would not read
        if key:
            check_setting(key, value, DETECTOR[key])
        if name == "score_thresh":
            names = getattr(part, "class_names", None)
            for_classes(value, detector.num_classes, names)
        setattr(part, name, value)

    return property(read, write)


class Detector(nn.Module):
    """The base of the detectors. A subclass has ``predict``, ``losses`` and ``inference``.

    - ``predict(images)``: from normalized and padded images (N, C, H, W) to a tuple of outputs.
    - ``losses(*outputs, truth, batched_inputs)``: {name: scalar}.
    - ``inference(*outputs, image_sizes)``: ``Instances`` of each image, in pixels of the network's
      input; ``image_sizes`` are (height, width) without padding.
    - ``raw(images)``: the network's outputs, {name: tensor}; for exports and FLOPs.
    - ``decode(images)``: boxes (N, R, 4) XYXY pixels, not clipped, and scores (N, R, K) of all
      candidates, without a number that depends on what is on the images; for exports. A detector
      of several levels has ``decode_levels`` too.

    ``outputs`` are NamedTuples with ``detach()`` and, if they have a row an image, ``first()``.

    A subclass may take ``**shared`` beside arguments of its own: they are those below, and its
    signature has them by name.

    Args:
        backbone: a Detectron2 backbone.
        num_classes: K.
        test_score_thresh, test_topk_candidates, test_nms_thresh, max_detections_per_image: see
            :class:`gfocal.detectors.gfl.GFL`.
        suppression, class_names: see there.
        postprocess: an :class:`NMSPostProcess`. By default one with the arguments above and, where
            they are not given, the ``published()`` ones.
        pixel_mean, pixel_std: per channel, in the order of ``input_format``.
        input_format: order of the data loader's channels, "RGB" or "BGR". The configs' data loaders
            and the Predictor read it here; the model itself only draws with it.
        vis_period: iterations between training pictures in the event storage; 0 for none.
        draw_training: the function that draws them, see
            :class:`gfocal.modeling.observers.TrainingPictures`.
        observers: called after the losses of each step; see observers.py.

    Raises:
        ValueError: a setting of the inference is out of its range, or beside a ``postprocess``.
        TypeError: a ``postprocess`` that does not take scores and boxes.
    """

    SETTINGS = DETECTOR  # arguments whose values are checked
    yacs_arguments: Callable[[Any], dict[str, Any]]  # those that a yacs config's keys say

    backbone: Backbone
    num_classes: int
    observers: list[Callable[[Any, Any], None]]
    pixel_mean: Tensor
    pixel_std: Tensor

    # Detections are clipped to the image, and those without area dropped. Where it is False,
    # `inference` and `in_output` leave them as they are.
    clips_boxes = True
    # What reads distributions and standard deviations of the sides; None where there are none. (A
    # subclass has a property: a module that is set on the detector would be hidden by this.)
    box_representation: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = dict(inspect.signature(cls.__init__).parameters)
        if own.pop("shared", None) is not None:
            del own["self"]
            shared = dict(inspect.signature(Detector.__init__).parameters)
            del shared["self"]
            cls.__signature__ = inspect.Signature([*(shared | own).values()])  # type: ignore[attr-defined]

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_classes: int,
        test_score_thresh: ScoreThresh = UNSET,
        test_topk_candidates: int = UNSET,
        test_nms_thresh: float = UNSET,
        max_detections_per_image: int = UNSET,
        suppression: Suppression = UNSET,
        class_names: Sequence[str] = UNSET,
        postprocess: NMSPostProcess | None = None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "BGR",
        vis_period: int = 0,
        draw_training: Callable[..., np.ndarray] | str = "gfocal.inspect.draw_training_image",
        observers: Sequence[Callable[[Any, Any], None]] = (),
    ):
        super().__init__()
        self.num_classes = num_classes
        self.observers = list(observers)
        settings: dict[str, Any] = {
            "test_score_thresh": test_score_thresh,
            "test_topk_candidates": test_topk_candidates,
            "test_nms_thresh": test_nms_thresh,
            "max_detections_per_image": max_detections_per_image,
            "suppression": suppression,
            "class_names": class_names,
        }
        given = {name for name, value in settings.items() if value is not UNSET}
        if given & {"suppression", "test_nms_thresh"}:  # one takes the place of the other
            given |= {"suppression", "test_nms_thresh"}
        if postprocess is None:
            settings |= {k: x for k, x in self.published().items() if k not in given}
        elif not isinstance(postprocess, NMSPostProcess):
            raise TypeError(
                f"the postprocess is a {type(postprocess).__name__}; expected an NMSPostProcess, "
                "which takes scores and boxes"
            )
        self.postprocess: Any = postprocess_of(postprocess, num_classes, **settings)
        self._set_up(backbone, pixel_mean, pixel_std, input_format, vis_period, draw_training)

    def _set_up(
        self,
        backbone: Backbone,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str,
        vis_period: int,
        draw_training: Callable[..., np.ndarray] | str,
    ) -> None:
        self.backbone = backbone
        self.input_format = input_format
        self.pictures = TrainingPictures(vis_period, draw_training, input_format)
        self.observers.append(self.pictures)
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg) -> dict[str, Any]:
        """The yacs way in; the keys are those of ``add_gfocal_config``.

        Raises:
            ValueError: a key is missing, or the keys do not fit together.
        """
        warn_of_keys_for_trainers(cfg)
        check_yacs(cfg)
        with added_keys():
            return cls.yacs_arguments(cfg)

    def published(self) -> dict[str, Any]:
        """The settings of inference that were published; {} for NMSPostProcess's."""
        return {}

    # The numbers of the post-processing, by Detectron2's names.
    test_score_thresh = _setting("postprocess", "score_thresh", "test_score_thresh")
    test_topk_candidates = _setting("postprocess", "topk_candidates", "test_topk_candidates")
    test_nms_thresh = _setting("postprocess", "nms_thresh", "test_nms_thresh")
    test_clip_margin = _setting("postprocess", "clip_margin", "test_clip_margin")
    max_detections_per_image = _setting("postprocess", "max_detections", "max_detections_per_image")

    vis_period = _setting("pictures", "period")

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def networks(self) -> tuple[nn.Module, ...]:
        """Returns the parts that have weights."""
        with_weights = (x for x in self.children() if any(True for _ in x.parameters()))
        return tuple(with_weights)

    def cast_networks(self, dtype: torch.dtype) -> None:
        """Lets the networks compute in another precision; boxes and scores stay in float32."""
        for network in self.networks():
            network.to(dtype)

    def forward(self, batched_inputs: list[dict[str, Any]]):
        """
        Args:
            batched_inputs: one dict an image, as Detectron2's ``DatasetMapper`` makes them:
                "image" (C, H, W), "instances" with gt_boxes and gt_classes (in training),
                "height" and "width" of the wanted output (in inference).

        Returns:
            In training the dict of losses; in inference one ``{"instances": Instances}`` an image,
            in pixels of its "height" x "width".

        Raises:
            ValueError: in training, if an image has no "instances", or its boxes or classes are
                not usable; the message names the image.
            FloatingPointError: in inference, if a detection's box is infinite or NaN.
            RuntimeError: in inference, under a trace; see
                :func:`gfocal.modeling.dense.refuse_to_be_traced`.
        """
        if not self.training:
            refuse_to_be_traced()
        images = self.preprocess_image(batched_inputs)
        outputs = self.outputs(images)
        with torch.autocast(images.tensor.device.type, enabled=False):
            if self.training:
                truth = self.ground_truth(batched_inputs, images.image_sizes)
                return self.losses(*outputs, truth, batched_inputs)
            results = self.inference(*outputs, images.image_sizes)
        return [
            {"instances": self.in_output(result, inputs, size)}
            for result, inputs, size in zip(results, batched_inputs, images.image_sizes)
        ]

    def predict(self, images: Tensor) -> tuple[Any, ...]:
        raise NotImplementedError

    def outputs(self, images: ImageList) -> tuple[Any, ...]:
        """What ``predict`` answers. For a detector that asks for the images' sizes."""
        return self.predict(images.tensor)

    def losses(self, *outputs_truth_and_inputs: Any, **more: Any) -> dict[str, Tensor]:
        """The losses of a batch, {name: scalar}: of what ``predict`` answered, the ground truth,
        and the data loader's dicts, which the observers may draw."""
        raise NotImplementedError

    def inference(self, *outputs_and_sizes: Any) -> list[Instances]:
        raise NotImplementedError

    def raw(self, images: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def decode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def decode_levels(self, images: Tensor) -> Decoded:
        """As ``decode``, with what top-k and detections ask for beside. By default all candidates
        are of one level.

        Args:
            images: (N, C, H, W), normalized and padded.
        """
        boxes, scores = self.decode(images)
        return Decoded(boxes, scores, [boxes.shape[1]])

    def check_decode(self) -> None:
        """Refuses a detector with a part that ``decode`` does not know, so that its boxes would be
        other ones than those of ``inference``.

        Raises:
            TypeError: there is such a part.
        """

    def check_distributions(self) -> None:
        """
        Raises:
            TypeError: the sides have no distributions.
        """
        if self.box_representation is None:
            raise TypeError(
                f"distributions of a {type(self).__name__}: its sides have none; those with a "
                "GeneralDistribution have (docs/detectors.md: DFL)"
            )
        check_distributions(self.box_representation)

    def in_output(
        self, result: Instances, inputs: Mapping[str, Any], image_size: tuple[int, int]
    ) -> Instances:
        """Detections in pixels of the wanted output.

        Args:
            result: of ``inference``.
            inputs: the image's dict.
            image_size: (height, width) of the network's input without padding.
        """
        result = without_border(result, inputs, image_size)
        height, width = result.image_size
        return in_output(result, inputs.get("height", height), inputs.get("width", width))

    def observe(self, step: Any) -> None:
        """Calls the observers with a step of detached outputs."""
        if is_counting():
            return
        with each_micro_batch_on_its_own():
            for observer in self.observers:
                observer(self, step)

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalize, pad to one size and batch.

        Raises:
            ValueError: there is no image; or one has other channels than ``pixel_mean``, or is
                larger than the square that the backbone pads to.
        """
        check_channels(batched_inputs, len(self.pixel_mean))
        images = [x["image"].to(self.device, non_blocking=True) for x in batched_inputs]
        images = [(x - self.pixel_mean) / self.pixel_std for x in images]
        return padded_batch(images, batched_inputs, Padding.of(self.backbone))

    def ground_truth(
        self, batched_inputs: list[dict[str, Any]], image_sizes: Sequence[tuple[int, int]]
    ) -> GroundTruth:
        """The objects of a batch, see :func:`gfocal.modeling.ground_truth.ground_truth_of`.

        Args:
            batched_inputs: see :meth:`forward`.
            image_sizes: (height, width) of the images before padding, pixels.
        """
        return ground_truth_of(
            batched_inputs,
            image_sizes,
            num_classes=self.num_classes,
            padding=Padding.of(self.backbone),
            device=self.device,
        )
