"""Random detectors on random batches: what holds for any shapes, boxes and weights.

The examples are the same in each run. For a long run with new ones:

    GFOCAL_FUZZ_EXAMPLES=5000 pytest tests/scenarios/test_fuzz.py
"""

import math
import os
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import box_iou

import gfocal
from gfocal.detectors.gfl import GFL
from gfocal.modeling import recipes
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.head import GFLHead
from gfocal.modeling.matchers import (
    BACKGROUND,
    IGNORED,
    ATSSMatcher,
    DynamicATSSMatcher,
    FCOSMatcher,
    FoveaMatcher,
    SimOTAMatcher,
    TaskAlignedMatcher,
)
from gfocal.modeling.quality import DistributionGuidedQualityPredictor, QualityBranch
from gfocal.modeling.representations import GeneralDistribution
from tests.helpers.detectors import (
    DETECTORS,
    KEEPS_ITS_BOXES,
    each_detector,
    losses_of,
    on_predictions,
)
from tests.helpers.tiny import make_input

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLES = os.environ.get("GFOCAL_FUZZ_EXAMPLES")
FUZZ = settings(
    max_examples=int(EXAMPLES or 200),
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
STRIDES = [3, 4, 5, 8, 12, 16, 27, 32, 64, 128]
# Of the finest level, and class logits: fine strides and 1203 classes come with small images.
MAX_LOCATIONS, MAX_LOGITS = 20_000, 1_000_000
MATCHERS = {
    "atss": ATSSMatcher(),
    "atss, topk 1": ATSSMatcher(topk=1),
    "atss, every box": ATSSMatcher(match_every_box=True),
    "fcos": FCOSMatcher(),
    "fcos, whole box": FCOSMatcher(center_sampling_radius=0),
    "fovea": FoveaMatcher(),
    "task aligned": TaskAlignedMatcher(),
    "atss, dynamic": DynamicATSSMatcher(),
    "simota": SimOTAMatcher(),
}


class PoolingBackbone(Backbone):
    """A 1x1 convolution, then average pooling to any strides; a last cell may be incomplete."""

    def __init__(self, strides, channels, size_divisibility):
        super().__init__()
        self.strides = {f"p{i}": stride for i, stride in enumerate(strides)}
        self.channels = channels
        self.conv = nn.Conv2d(3, channels, 1)
        self._size_divisibility = size_divisibility

    @property
    def size_divisibility(self):
        return self._size_divisibility

    def forward(self, x):
        x = self.conv(x)
        return {
            name: nn.functional.avg_pool2d(x, stride, ceil_mode=True)
            for name, stride in self.strides.items()
        }

    def output_shape(self):
        return {
            name: ShapeSpec(channels=self.channels, stride=stride)
            for name, stride in self.strides.items()
        }


@dataclass(frozen=True)
class Case:
    """A detector and a batch; ``seed`` is of its weights, pixels and boxes."""

    seed: int
    image_sizes: list[tuple[int, int]]  # (height, width)
    num_boxes: list[int]
    num_regions: int  # of each image, to ignore
    strides: list[int]
    size_divisibility: int
    num_classes: int
    quality: str
    box: str
    reg_max: int
    bin_width: float
    matcher: str
    norm: str
    weights: str

    def model(self, **kwargs) -> GFL:
        torch.manual_seed(self.seed)
        width = 64 if self.norm else 8  # group norm: two channels a group, for maps of one cell
        parts = {
            "quality_loss": None,
            **recipes.pick(recipes.QUALITY, self.quality, "quality"),
            **recipes.pick(recipes.BOX, self.box, "box"),
        }
        predictor, representation = parts.pop("quality_predictor"), parts.pop("box_representation")
        if predictor["_target_"] is QualityBranch:
            predictor.in_channels = width
        if predictor["_target_"] is DistributionGuidedQualityPredictor:
            predictor.topk = min(4, self.reg_max + 1)
        if representation["_target_"] is GeneralDistribution:
            representation.reg_max, representation.bin_width = self.reg_max, self.bin_width
        backbone = PoolingBackbone(self.strides, width, self.size_divisibility)
        head = GFLHead(
            in_channels=width,
            num_levels=len(self.strides),
            num_classes=self.num_classes,
            conv_dims=[width],
            norm=self.norm,
            box_representation=instantiate(representation),
            quality_predictor=instantiate(predictor),
        )
        set_weights(head, self.weights)
        return GFL(
            backbone=backbone,
            head=head,
            head_in_features=list(backbone.strides),
            anchor_generator=DefaultAnchorGenerator(
                sizes=[[8 * stride] for stride in self.strides],
                aspect_ratios=[1.0],
                strides=self.strides,
                offset=0.0 if self.matcher.startswith("atss") else 0.5,
            ),
            matcher=MATCHERS[self.matcher],
            criterion=GFLCriterion(
                **{name: part and instantiate(part) for name, part in parts.items()}
            ),
            num_classes=self.num_classes,
            pixel_mean=[123.675, 116.28, 103.53],
            pixel_std=[58.395, 57.12, 57.375],
            **{"statistics_period": 1, **kwargs},
        )

    def batch(self) -> list[dict]:
        torch.manual_seed(self.seed)
        rng = np.random.default_rng(self.seed)
        return [
            make_input(
                *size,
                random_boxes(rng, count, *size),
                rng.integers(0, self.num_classes, count).tolist(),
                ignore_regions=Boxes(random_boxes(rng, self.num_regions, *size)),
            )
            for size, count in zip(self.image_sizes, self.num_boxes)
        ]


def set_weights(head, kind):
    """As they start; all zero; or such that the largest logit of a level is 50 or 10000 in size
    (or each is, with one sign)."""
    if kind == "start":
        return
    if kind == "zero":
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
        return
    quality = head.quality_predictor
    last = [getattr(quality, name) for name in ("conv", "fc2") if hasattr(quality, name)]
    for layer in (head.cls_logits, head.box_logits, *last):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias, std=0.1)
        layer.register_forward_hook(amplify(kind))


def amplify(kind):
    def hook(_module, _inputs, output):
        if kind.startswith("+-"):
            return output * (float(kind[2:]) / output.detach().abs().amax().clamp(min=1e-4))
        return output * 0.0 + float(kind)

    return hook


def random_boxes(rng, count, height, width):
    """``count`` boxes of sides of 0.1 px to three times the image; some stick out of it or lie
    outside, some are there twice, some touch the one before."""
    size = np.array([width, height])
    sides = np.exp(rng.uniform(math.log(0.1), math.log(3 * max(height, width)), (count, 2)))
    low = rng.uniform(-0.3, 1.1, (count, 2)) * size
    boxes = np.concatenate([low, low + sides], axis=1).astype(np.float32)
    for i in range(1, count):
        kind = rng.integers(0, 5)
        if kind == 0:
            boxes[i] = boxes[i - 1]
        elif kind == 1:
            boxes[i] = boxes[i - 1, [2, 1, 2, 3]]
            boxes[i, 2] += sides[i, 0]
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    return boxes.tolist()


@st.composite
def cases(draw):
    side = st.integers(1, 40) | st.integers(1, 320) | st.sampled_from([1, 2, 640])
    sizes = draw(st.lists(st.tuples(side, side), min_size=1, max_size=3))
    counts = st.integers(0, 4) | st.integers(0, 60) | st.sampled_from([0, 500])
    num_pixels = len(sizes) * math.prod(max(sides) for sides in zip(*sizes))
    strides = [s for s in STRIDES if num_pixels / s**2 <= MAX_LOCATIONS]
    strides = draw(st.lists(st.sampled_from(strides), min_size=1, max_size=5, unique=True))
    strides.sort()
    most_classes = int(MAX_LOGITS / (1.5 * num_pixels / strides[0] ** 2 + 10))
    box = draw(st.sampled_from(sorted(recipes.BOX)))
    return Case(
        seed=draw(st.integers(0, 2**31)),
        image_sizes=sizes,
        num_boxes=[draw(counts) for _ in sizes],
        num_regions=draw(st.sampled_from([0, 0, 1, 10])),
        strides=strides,
        size_divisibility=draw(st.sampled_from([0, 32, strides[-1]])),
        num_classes=min(draw(st.sampled_from([1, 2, 3, 20, 80, 1203])), most_classes),
        quality=draw(
            st.sampled_from(
                sorted(
                    name
                    for name in recipes.QUALITY
                    if box.startswith("general") or not name.startswith("dgqp")  # reads bins
                )
            )
        ),
        box=box,
        reg_max=draw(st.sampled_from([1, 8, 16, 32])),
        bin_width=draw(st.sampled_from([0.5, 1.0, 2.0])),
        matcher=draw(st.sampled_from(sorted(MATCHERS))),
        norm=draw(st.sampled_from(["", "GN"])),
        weights=draw(st.sampled_from(["start", "zero", "+-50", "+50", "-50", "+-10000"])),
    )


def on_padding(anchors, case):
    """(N, R) by a loop over the cells: is the corner of the cell beyond the image, whose size is
    rounded up to what the backbone asks for?"""
    divisor = case.size_divisibility or 1
    result = []
    for height, width in case.image_sizes:
        height, width = (math.ceil(side / divisor) * divisor for side in (height, width))
        result.append(
            [
                row * stride >= height or column * stride >= width
                for stride, (rows, columns) in zip(case.strides, anchors.level_shapes)
                for row in range(rows)
                for column in range(columns)
            ]
        )
    return torch.tensor(result)


@pytest.mark.slow
@FUZZ
@given(
    case=cases(),
    precision=st.sampled_from(["float32", "float64", "bfloat16 autocast"]),
    loss_scale=st.sampled_from([1.0, 2.0**16]),
)
def test_training(case, precision, loss_scale):
    """``loss_scale`` is what the gradient scaler of mixed precision starts with."""
    model, batch = case.model(), case.batch()
    if precision == "float64":
        model.double()
    seen = {}
    matcher = model.matcher

    def spy(anchors, truth, predictions):
        seen.update(anchors=anchors, matches=matcher(anchors, truth, predictions))
        return seen["matches"]

    model.matcher = spy
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16 autocast")
    with EventStorage() as storage, autocast:
        losses = model(batch)
    for name, loss in losses.items():
        assert loss.isfinite(), name
        assert loss.dtype in (torch.float32, torch.float64), name
        # A density may exceed 1, so that the logarithm of a likelihood may have either sign.
        if not (case.box == "gaussian" and name == "loss_box_reg"):
            assert loss >= 0, name

    (sum(losses.values()) * loss_scale).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name

    matched, anchors = seen["matches"].idxs, seen["anchors"]
    counts = torch.tensor(case.num_boxes)[:, None]
    assert matched.shape == (len(batch), len(anchors.boxes))
    assert ((matched >= IGNORED) & (matched < counts)).all()
    assert ((matched == BACKGROUND) | (matched >= 0))[~on_padding(anchors, case)].all()
    assert (matched == IGNORED)[on_padding(anchors, case)].all()

    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest["positives_per_image"] == (matched >= 0).sum() / len(batch)
    for name, value in latest.items():
        assert value >= 0, name
        assert value <= 1 + 1e-6 or name == "positives_per_image", name


@FUZZ
@given(
    case=cases(),
    precision=st.sampled_from(["float32", "float64", "autocast", "float16", "bfloat16"]),
    score_thresh=st.sampled_from([0.0, 0.01, 0.5]),
    topk=st.sampled_from([1, 10, 200]),
    nms_thresh=st.sampled_from([0.0, 0.6, 1.0]),
    max_detections=st.sampled_from([1, 7, 100]),
    output=st.sampled_from([None, 0.1, 0.37, 1.0, 3.0]),
)
def test_inference(case, precision, score_thresh, topk, nms_thresh, max_detections, output):
    """``output`` is the size of the wanted output, in sizes of the network's input."""
    model = case.model(
        test_score_thresh=score_thresh,
        test_topk_candidates=topk,
        test_nms_thresh=nms_thresh,
        max_detections_per_image=max_detections,
    ).eval()
    if precision == "float64":
        model.double()
    elif precision.endswith("float16"):
        gfocal.optimize_for_inference(model, dtype=getattr(torch, precision))
    batch = case.batch()
    sizes = case.image_sizes
    if output is not None:
        sizes = [tuple(max(1, round(output * side)) for side in size) for size in sizes]
        for inputs, (height, width) in zip(batch, sizes):
            inputs.update(height=height, width=width)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast")
    with torch.no_grad(), autocast:
        results = model(batch)
    assert len(results) == len(batch)
    for (height, width), result in zip(sizes, results):
        result = result["instances"]
        assert result.image_size == (height, width)
        boxes, scores, classes = result.pred_boxes.tensor, result.scores, result.pred_classes
        assert len(result) <= min(max_detections, topk * len(case.strides))
        assert boxes.isfinite().all() and (boxes >= 0).all()
        assert (boxes <= boxes.new_tensor([width, height, width, height])).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert ((scores > score_thresh) & (scores <= 1)).all()
        assert (scores[:-1] >= scores[1:]).all()
        assert ((classes >= 0) & (classes < case.num_classes)).all()
        # What non-maximum suppression is for, where the output is not stretched. Boxes of almost no
        # size have no IoU beside the places of others.
        if output in (None, 1.0):
            sized = (boxes[:, 2:] - boxes[:, :2] > 1e-3).all(dim=1)
            boxes, classes = boxes[sized].double(), classes[sized]
            ious = box_iou(boxes, boxes) * (classes[:, None] == classes).triu(diagonal=1)
            assert (ious <= nms_thresh + 1e-3).all()


@st.composite
def batches(draw):
    """Images and boxes for any detector: as (seed, sizes, numbers of boxes)."""
    side = st.integers(1, 40) | st.integers(1, 160)
    sizes = draw(st.lists(st.tuples(side, side), min_size=1, max_size=2))
    counts = st.integers(0, 3) | st.integers(0, 60)
    return draw(st.integers(0, 2**31)), sizes, [draw(counts) for _ in sizes]


@each_detector
@settings(FUZZ, max_examples=int(EXAMPLES or 20))
@given(
    batch=batches(),
    num_classes=st.sampled_from([1, 3, 20]),
    predictions=st.sampled_from(["start", "zero", "+-50", "+50", "-50", "+-10000"]),
    score_thresh=st.sampled_from([0.0, 0.01, 0.5]),
    max_detections=st.sampled_from([1, 7, 100]),
    output=st.sampled_from([None, 0.37, 3.0]),
)
def test_every_detector(
    name, batch, num_classes, predictions, score_thresh, max_detections, output
):
    """``predictions`` is the size of what the network says; ``output`` as in the test above."""
    seed, sizes, counts = batch
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = DETECTORS[name](
        num_classes,
        test_score_thresh=score_thresh,
        max_detections_per_image=max_detections,
    )
    if predictions != "start":
        hook = amplify("0" if predictions == "zero" else predictions)
        on_predictions(model, lambda x: hook(None, None, x))
    inputs = [
        make_input(
            *size, random_boxes(rng, count, *size), rng.integers(0, num_classes, count).tolist()
        )
        for size, count in zip(sizes, counts)
    ]
    losses = losses_of(model, inputs)
    for key, loss in losses.items():
        assert loss.isfinite() and loss >= 0, key
    sum(losses.values()).backward()
    for key, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad.isfinite().all(), key

    if output is not None:
        sizes = [tuple(max(1, round(output * side)) for side in size) for size in sizes]
        for image, (height, width) in zip(inputs, sizes):
            image.update(height=height, width=width)
    with torch.no_grad():
        results = [x["instances"] for x in model.eval()(inputs)]
    for (height, width), result in zip(sizes, results, strict=True):
        assert result.image_size == (height, width) and len(result) <= max_detections
        boxes, scores, classes = result.pred_boxes.tensor, result.scores, result.pred_classes
        assert ((scores > score_thresh) & (scores <= 1)).all()
        assert (scores[:-1] >= scores[1:]).all()
        assert ((classes >= 0) & (classes < num_classes)).all()
        assert boxes.isfinite().all()
        if name not in KEEPS_ITS_BOXES:
            assert (boxes >= 0).all() and (boxes[:, 2:] > boxes[:, :2]).all()
            assert (boxes <= boxes.new_tensor([width, height, width, height])).all()
