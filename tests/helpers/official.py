"""Access to tests/fixtures: what the official GFocalV2 code answers, in float64.

The weights behind the detector answers are a function of their names (``seeded_parameter``), so
that numbers alone need to be stored.
"""

import zlib
from pathlib import Path

import numpy as np
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.backbone.resnet import ResNet
from detectron2.structures import Boxes, Instances

from gfocal.quality import NoQuality
from gfocal.weights import convert_mmdet_state_dict

FIXTURES = Path(__file__).parents[1] / "fixtures"
MODEL_CONFIG = Path(__file__).parents[2] / "configs/common/models/gfl.py"


def load(name):
    with np.load(FIXTURES / f"{name}.npz") as data:
        return {key: data[key] for key in data.files}


def seeded_parameter(name, shape, seed):
    """float64 values of the official parameter ``name``, the same on every machine."""
    rng = np.random.RandomState((zlib.crc32(name.encode()) + 7919 * seed) % 2**32)
    kind = name.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return np.zeros(shape)
    if kind == "project":
        return np.arange(shape[0], dtype=np.float64)
    if kind == "scale":
        return rng.uniform(0.8, 1.2, size=shape)
    if kind == "running_mean":
        return rng.normal(0, 0.1, size=shape)
    if kind == "running_var":
        return rng.uniform(0.5, 1.5, size=shape)
    if name.endswith("conv_offset.weight"):  # offsets of about 1 px, not 0
        return rng.normal(0, 0.35 / np.sqrt(np.prod(shape[1:])), size=shape)
    if len(shape) >= 2:
        return rng.normal(0, np.sqrt(2.0 / np.prod(shape[1:])), size=shape)
    if name.endswith("gfl_cls.bias"):
        return rng.normal(-4.5, 0.5, size=shape)
    if kind == "bias":
        return rng.normal(0, 0.1, size=shape)
    if ".bn3.weight" in name or (".bn2.weight" in name and "layer" in name) or ".bns." in name:
        return rng.uniform(0.2, 0.5, size=shape)
    return rng.uniform(0.8, 1.2, size=shape)


def named_shapes(names, shapes):
    """{name: shape} of a fixture's arrays of names and of shapes such as "64,3,7,7"."""
    return {str(n): tuple(int(k) for k in str(s).split(",") if k) for n, s in zip(names, shapes)}


def seeded_state_dict(name_to_shape, seed):
    return {
        name: torch.from_numpy(np.asarray(seeded_parameter(name, shape, seed)))
        for name, shape in name_to_shape.items()
    }


def state_dict(fixture):
    """The official state dict of a detector fixture."""
    names = named_shapes(fixture["param_names"], fixture["param_shapes"])
    return seeded_state_dict(names, int(fixture["seed"]))


def zoo_image():
    """The input (1, 3, 72, 104) of the zoo's backbones: odd sizes from stride 8 on, float64."""
    return torch.from_numpy(np.random.RandomState(0).normal(size=(1, 3, 72, 104)))


def sample(values, count=2000):
    """``count`` values of a feature map, from the same places on every machine."""
    return values.flatten()[np.random.RandomState(0).choice(values.size, count, replace=False)]


def detector(fixture):
    """The fixture's detector, in float64, with the official weights converted."""
    model = LazyConfig.load(str(MODEL_CONFIG)).model
    model.num_classes = int(fixture["num_classes"])
    bottom_up = model.backbone.bottom_up
    bottom_up.freeze_at = 0  # so that every parameter has a gradient to compare
    bottom_up.stem.norm = "BN"
    bottom_up.stages = L(ResNet.make_default_stages)(depth=int(fixture["depth"]), norm="BN")
    if bottom_up.stages.depth >= 50:
        bottom_up.stages.stride_in_1x1 = False
    if fixture["kind"] == "v1":
        model.head.quality_predictor = L(NoQuality)()
    # The official code takes the top 1000 locations of a level and then all their classes, we (as
    # Detectron2 and mmdetection 3) the top 1000 pairs. With room for all candidates they agree.
    model.test_topk_candidates = int(fixture["max_candidates_per_level"])
    model = instantiate(model).double()
    result = model.load_state_dict(convert_mmdet_state_dict(state_dict(fixture)), strict=False)
    assert not result.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in result.missing_keys)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True: None  # statistics stay as loaded (norm_eval)
    return model


def detector_inputs():
    """Two images of different sizes with their boxes, float64."""
    data = load("detector_inputs")
    inputs = []
    for i in range(2):
        image = torch.from_numpy(data[f"image_{i}"]).permute(2, 0, 1).double()
        instances = Instances(tuple(image.shape[1:]))
        instances.gt_boxes = Boxes(torch.zeros(0, 4))
        instances.gt_boxes.tensor = torch.from_numpy(data[f"gt_boxes_{i}"])  # Boxes() is float32
        instances.gt_classes = torch.from_numpy(data[f"gt_classes_{i}"])
        inputs.append({"image": image, "instances": instances})
    return inputs
