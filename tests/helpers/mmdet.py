"""Detectors of mmdetection 3.3 in tests/fixtures: their weights and inputs, in float64."""

import torch
from detectron2.structures import Boxes, Instances

from tests.helpers import official


def state_dict(fixture):
    """mmdetection's seeded weights of a fixture."""
    ret = official.state_dict(fixture)
    low = {str(name) for name in fixture["low_bias"]}
    for name, value in ret.items():
        if value.dim() >= 2:
            value *= float(fixture["weight_scale"])
        if name in low:
            value -= 2.5 if "_heat" in name else 4.5
    return ret


def inputs(fixture):
    """The images of a fixture with their boxes."""
    ret = []
    for i in range(sum(name.startswith("image_") for name in fixture)):
        image = torch.from_numpy(fixture[f"image_{i}"]).permute(2, 0, 1).double()
        instances = Instances(tuple(image.shape[1:]))
        instances.gt_boxes = Boxes(torch.zeros(0, 4))
        instances.gt_boxes.tensor = torch.from_numpy(fixture[f"gt_boxes_{i}"])  # Boxes() is float32
        instances.gt_classes = torch.from_numpy(fixture[f"gt_classes_{i}"])
        ret.append({"image": image, "instances": instances})
    return ret


def freeze_batch_norm(model):
    """Statistics stay as they are loaded (mmdetection's norm_eval)."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True: None
