"""From the dicts of a data loader to the ``GroundTruth`` of a batch, checked."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances

from .._padding import NO_PADDING, Padding
from .numerics import has_false
from .structures import GroundTruth

__all__ = ["check_channels", "check_ground_truth", "ground_truth_of", "image_name"]


def check_channels(batched_inputs: Sequence[Mapping[str, Any]], channels: int) -> None:
    """Refuses images of other channels than a detector's ``pixel_mean`` has.

    Args:
        batched_inputs: a dict an image, with "image" (C, H, W).
        channels: of ``pixel_mean``.

    Raises:
        ValueError: an image has others, or there is none.
    """
    if not batched_inputs:
        raise ValueError("a batch without images; expected at least one")
    for x in batched_inputs:
        if len(x["image"]) != channels:
            raise ValueError(
                f"{x.get('file_name', 'the batch')}: an image of {len(x['image'])} channels; "
                f"pixel_mean has {channels} (model.pixel_mean and input_format, "
                "MODEL.PIXEL_MEAN and INPUT.FORMAT)"
            )


def ground_truth_of(
    batched_inputs: Sequence[Mapping[str, Any]],
    image_sizes: Sequence[tuple[int, int]],
    *,
    num_classes: int,
    padding: Padding = NO_PADDING,
    device: torch.device | str = "cpu",
) -> GroundTruth:
    """The objects of a batch, on a device, without waiting for a GPU.

    Args:
        batched_inputs: a dict an image, with "instances" (gt_boxes, gt_classes). It may also have
            "ignore_regions": ``Boxes`` with no background inside. They usually still lie on the
            CPU, where a check of them costs nothing.
        image_sizes: N (height, width) before padding, pixels.
        num_classes: K.
        padding: of the backbone. As in the official code, what fills an image up to it belongs to
            the image: its locations are background.
        device: of the result.

    Raises:
        ValueError: if an image has no "instances", or its boxes, classes or regions are not usable.
            The message names the image.
        TypeError: if boxes or "ignore_regions" are not ``Boxes``, or are ``RotatedBoxes``.
    """
    instances = [_checked_instances(i, x, num_classes) for i, x in enumerate(batched_inputs)]
    boxes = [copy.copy(x.gt_boxes) for x in instances]
    for of_image in boxes:  # Boxes.to would wait for a GPU
        of_image.tensor = of_image.tensor.to(device, non_blocking=True)
    return GroundTruth(
        boxes=boxes,
        classes=[x.gt_classes.to(device, non_blocking=True) for x in instances],
        image_sizes=[padding.size((int(h), int(w))) for h, w in image_sizes],
        ignore_regions=[_checked_regions(i, x) for i, x in enumerate(batched_inputs)],
    )


def check_ground_truth(truth: GroundTruth, num_images: int, num_classes: int) -> None:
    """Refuses a ground truth that would give boxes to other images or to classes that are not
    there. It does not wait for a GPU: there, a class out of range is an assertion of the device.

    Args:
        truth: of a batch.
        num_images: N.
        num_classes: K.

    Raises:
        ValueError: if it is of another number of images, an image has not one class a box, or a
            class is not in [0, K).
    """
    sizes = truth.image_sizes
    counts = [len(truth.boxes), len(truth.classes), num_images if sizes is None else len(sizes)]
    if counts != [num_images] * 3:
        raise ValueError(
            f"the ground truth has boxes, classes and sizes of {counts} images; expected "
            f"{num_images} of each, as the predictions"
        )
    for image, (boxes, classes) in enumerate(zip(truth.boxes, truth.classes)):
        if len(boxes) != len(classes):
            raise ValueError(
                f"image {image} of the batch has {len(boxes)} boxes and {len(classes)} classes"
            )
    classes = torch.cat([*truth.classes])
    good = (classes >= 0) & (classes < num_classes)
    if has_false(good):
        raise ValueError(
            f"the ground truth has class {classes[~good][0].item()}; expected 0..{num_classes - 1}"
        )


def image_name(index: int, inputs: Mapping[str, Any]) -> str:
    """The name of an image in messages: its id, or its place in the batch, and its file."""
    return f"image {inputs.get('image_id', index)} ({inputs.get('file_name', 'no file name')})"


def _checked_regions(index: int, inputs: Mapping[str, Any]) -> Boxes | None:
    """The regions without background of one image; None for none."""
    regions = inputs.get("ignore_regions")
    if regions is None:
        return None
    _check_boxes(regions, f'{image_name(index, inputs)} has "ignore_regions"')
    bad = ~torch.isfinite(regions.tensor).all(dim=1)
    if bad.any():
        raise ValueError(
            f"{image_name(index, inputs)} has a box {regions.tensor[bad][0].tolist()} in its "
            '"ignore_regions"; expected finite XYXY pixels'
        )
    return regions


def _check_boxes(boxes: Any, where: str) -> None:
    if not isinstance(boxes, Boxes) or boxes.tensor.shape[-1] != 4:  # RotatedBoxes are Boxes too
        raise TypeError(
            f"{where} of type {type(boxes).__name__}; expected Boxes, whose sides are parallel to "
            "those of the image (docs/other_projects.md says what rotated boxes need)"
        )


def _checked_instances(index: int, inputs: Mapping[str, Any], num_classes: int) -> Instances:
    where = image_name(index, inputs)
    instances = inputs.get("instances")
    if instances is None or not (instances.has("gt_boxes") and instances.has("gt_classes")):
        raise ValueError(f'{where} has no "instances" with gt_boxes and gt_classes to train on')
    boxes: Boxes = instances.gt_boxes
    _check_boxes(boxes, f"{where} has gt_boxes")
    bad = ~torch.isfinite(boxes.tensor).all(dim=1) | ~boxes.nonempty()
    if bad.any():
        box = boxes.tensor[bad][0].tolist()
        raise ValueError(
            f"{where} has a degenerate box {box}; expected finite XYXY pixels, x1 > x0, y1 > y0"
        )
    classes = instances.gt_classes
    bad = (classes < 0) | (classes >= num_classes)
    if bad.any():
        raise ValueError(
            f"{where} has class {int(classes[bad][0])}; expected 0..{num_classes - 1}, as "
            f"num_classes is {num_classes}"
        )
    return instances
