"""Detections with the distributions of their sides."""

from typing import Any

import torch
from detectron2.modeling import detector_postprocess
from detectron2.structures import Instances

from ..detectors.gfl import GFL

__all__ = ["detect_with_distributions"]


@torch.no_grad()
def detect_with_distributions(
    model: GFL, batched_inputs: list[dict[str, Any]]
) -> list[dict[str, Instances]]:
    """Detects, and keeps the distributions of the four sides of every detection.

    Args:
        model: a GFL in eval mode whose box representation has `probabilities` and `bins`.
        batched_inputs: as for the model.

    Returns:
        one {"instances"} an image, as the model's own output (D detections, pixels of the output
        image), with two more fields, sides in the order left, top, right, bottom:

        - `box_probs` (D, 4, C): probability of each bin.
        - `bin_edges` (D, 4, C): place of the side in the output image if it lies at that bin,
          pixels: an x for left and right, a y for top and bottom. Bin 0 is the anchor's centre.

    Raises:
        ValueError: the model is in training mode.
        TypeError: the model's box representation has no distributions.
    """
    if model.training:
        raise ValueError("detect_with_distributions needs a model in eval mode: call model.eval()")
    representation: Any = getattr(getattr(model, "head", None), "box_representation", None)
    if not hasattr(representation, "probabilities"):
        raise TypeError(
            f"{type(model).__name__} with box representation {type(representation).__name__} reads "
            "no distributions; GFL with GeneralDistribution does"
        )
    images, anchors, predictions = model.forward_dense(batched_inputs)
    results = model.inference(anchors, predictions, images.image_sizes)
    outputs = []
    for index, (result, inputs) in enumerate(zip(results, batched_inputs)):
        locations = result.anchor_idxs
        probs = representation.probabilities(predictions.box_logits[index, locations])
        centers, strides = anchors.centers[locations], anchors.strides[locations]
        offsets = strides[:, None, None] * representation.bins.to(strides)  # (D, 1, C) px
        outward = offsets.new_tensor([-1.0, -1.0, 1.0, 1.0])[:, None]
        edges = torch.cat([centers, centers], dim=1)[:, :, None] + outward * offsets

        height, width = result.image_size
        out_height, out_width = inputs.get("height", height), inputs.get("width", width)
        scale = edges.new_tensor([out_width / width, out_height / height] * 2)[:, None]
        result.box_probs, result.bin_edges = probs, edges * scale
        outputs.append({"instances": detector_postprocess(result, out_height, out_width)})
    return outputs
