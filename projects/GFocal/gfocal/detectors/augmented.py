"""Test-time augmentation: one detection of an image from several sizes of it and their mirrors.

The candidates of all augmentations are mapped back to the image, and then there is one NMS. Boxes
are XYXY in pixels.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.data.transforms import ResizeShortestEdge, ResizeTransform
from detectron2.layers import batched_nms
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..modeling.postprocess import Candidates
from ..modeling.settings import COUNT, FLAG, SIZES, check_setting
from ..modeling.sides import in_output

__all__ = ["AugmentedDetector"]


class AugmentedDetector(nn.Module):
    """A detector in inference, whose input is augmented. It is called as the detector is.

    Args:
        model: a RetinaNet, or a detector with ``candidates`` and ``suppress``: GFL, SSD, CornerNet.
        min_sizes: of the shorter side, pixels. Each image is resized to each of them.
        max_size: of the longer side, pixels.
        flip: also the mirror of each.

    Raises:
        TypeError: the model is another one.
        ValueError: there is no size, or one that is no positive integer.
    """

    def __init__(
        self, model: nn.Module, min_sizes: Sequence[int], max_size: int, flip: bool = True
    ):
        super().__init__()
        check_setting("min_sizes", min_sizes, SIZES)
        check_setting("max_size", max_size, COUNT)
        check_setting("flip", flip, FLAG)
        if hasattr(model, "roi_heads"):
            raise TypeError(
                "test-time augmentation merges boxes, and gives no masks and no second stage; the "
                f"model is a {type(model).__name__}"
            )
        if isinstance(model, RetinaNet):
            self.detector: Any = _RetinaNetCandidates(model)
        elif all(callable(getattr(model, name, None)) for name in ("candidates", "suppress")):
            self.detector = model
        else:
            own = "; it has a flip of its own, test_flip" if hasattr(model, "test_flip") else ""
            raise TypeError(
                "test-time augmentation is for GFL, SSD, CornerNet and RetinaNet; the model is a "
                f"{type(model).__name__}{own}"
            )
        self.min_sizes, self.max_size, self.flip = list(min_sizes), max_size, flip

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """
        Args:
            batched_inputs: as for the detector in inference.

        Returns:
            one ``{"instances": Instances}`` an image, as the detector's, without ``anchor_idxs``.

        Raises:
            ValueError: the detector is to give distributions: those of several sizes are not one.
        """
        if getattr(getattr(self.detector, "postprocess", None), "distributions", False):
            raise ValueError(
                "distributions have no test-time augmentation; switch one of them off "
                "(train.test_augmentation.enabled=false, TEST.AUG.ENABLED False)"
            )
        sizes = [(x["image"].shape[-2], x["image"].shape[-1]) for x in batched_inputs]
        found: list[list[Candidates]] = [[] for _ in sizes]
        for min_size in self.min_sizes:
            images = [_resized(x["image"], min_size, self.max_size) for x in batched_inputs]
            for flip in (False, True)[: 1 + self.flip]:
                turned = [{"image": x.flip(-1) if flip else x} for x in images]
                candidates = self.detector.candidates(turned)
                for own, image, size, one in zip(found, images, sizes, candidates):
                    own.append(_mapped_back(one, image.shape[-2:], size, flip))
        results = []
        for own, size, inputs in zip(found, sizes, batched_inputs):
            columns: Any = (None if x[0] is None else torch.cat(x) for x in zip(*own))
            merged = Candidates(*columns)
            result = self.detector.suppress(size, merged)
            if result.has("anchor_idxs"):
                result.remove("anchor_idxs")  # of several grids
            results.append({"instances": self.detector.in_output(result, inputs, size)})
        return results


class _RetinaNetCandidates(nn.Module):
    """What Detectron2's RetinaNet leaves to NMS."""

    def __init__(self, model: RetinaNet):
        super().__init__()
        self.model = model

    def candidates(self, batched_inputs: list[dict[str, Any]]) -> list[Candidates]:
        with self._without_nms() as found:
            self.model(batched_inputs)
        return [
            Candidates(x.pred_boxes.tensor, x.scores, x.pred_classes, x.pred_classes) for x in found
        ]

    def suppress(self, image_size: tuple[int, int], candidates: Candidates) -> Instances:
        boxes, scores, classes, idxs, _ = candidates
        keep = batched_nms(boxes, scores, classes, self.model.test_nms_thresh)
        keep = keep[: self.model.max_detections_per_image]
        return Instances(
            image_size,
            pred_boxes=Boxes(boxes[keep]),
            scores=scores[keep],
            pred_classes=classes[keep],
            anchor_idxs=idxs[keep],
        )

    def in_output(
        self, result: Instances, inputs: dict[str, Any], image_size: tuple[int, int]
    ) -> Instances:
        height, width = inputs.get("height", image_size[0]), inputs.get("width", image_size[1])
        return in_output(result, height, width)

    @contextlib.contextmanager
    def _without_nms(self) -> Iterator[list[Instances]]:
        """Records the answers of `inference_single_image`, which 0.5 and main both call. An IoU is
        never above 2."""
        model, found = self.model, []
        before = model.test_nms_thresh, model.max_detections_per_image
        single = model.inference_single_image

        def record(*args: Any) -> Instances:
            result = single(*args)
            found.append(result[:])  # a copy: what the model answers is then clipped in place
            return result

        model.inference_single_image = record
        model.test_nms_thresh, model.max_detections_per_image = 2.0, None
        try:
            yield found
        finally:
            del model.inference_single_image
            model.test_nms_thresh, model.max_detections_per_image = before


def _resized(image: Tensor, min_size: int, max_size: int) -> Tensor:
    """An image (C, H, W) in another size; itself, if that is its size. Pixels that are whole
    numbers are resized as a data loader does it."""
    array = image.permute(1, 2, 0).cpu().numpy()
    resize = ResizeShortestEdge(min_size, max_size).get_transform(array)
    if not isinstance(resize, ResizeTransform) or (resize.new_h, resize.new_w) == array.shape[:2]:
        return image
    whole = array.round().clip(0, 255).astype("uint8")
    if array.shape[2] <= 4 and (whole == array).all():
        array = whole
    resized = resize.apply_image(array.copy())
    return torch.from_numpy(resized.copy()).permute(2, 0, 1).to(image)


def _mapped_back(
    candidates: Candidates, size: Sequence[int], output: tuple[int, int], flip: bool
) -> Candidates:
    """Candidates on an augmented image of ``size`` (height, width), on the image of ``output``."""
    boxes, stds = candidates.boxes, candidates.stds
    if flip:
        x0, y0, x1, y1 = boxes.unbind(-1)
        boxes = torch.stack([size[1] - x1, y0, size[1] - x0, y1], dim=-1)
        stds = stds if stds is None else stds[:, [2, 1, 0, 3]]
    if tuple(size) != output:
        y, x = output[0] / size[0], output[1] / size[1]
        scale = boxes.new_tensor([x, y, x, y])
        boxes, stds = boxes * scale, stds if stds is None else stds * scale
    return candidates._replace(boxes=boxes, stds=stds)
