"""What Detectron2's own tests ask of its models (its tests/modeling/test_model_e2e.py), asked of
every architecture here: images without objects, tiny boxes, infinite numbers and NaN."""

import math

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage
from torch.utils._pytree import tree_map

from tests.helpers.detectors import DETECTORS, DETECTRON2S, on_predictions
from tests.helpers.tiny import make_input
from tests.helpers.tiny_fcos import make_gfl_fcos, needs_fcos
from tests.helpers.tiny_rcnn import cascade_heads, faster_heads, make_rcnn, mask_heads

pytestmark = pytest.mark.usefixtures("one_thread")
RCNNS = {
    "faster_rcnn": lambda: make_rcnn(faster_heads()),
    "mask_rcnn": lambda: make_rcnn(mask_heads()),
    "cascade_rcnn": lambda: make_rcnn(cascade_heads()),
}
ARCHITECTURES = {**DETECTORS, **RCNNS, "detectron2s_fcos": make_gfl_fcos}
each_architecture = pytest.mark.parametrize(
    "name",
    [
        *DETECTORS,
        *RCNNS,
        pytest.param("detectron2s_fcos", marks=needs_fcos),
    ],
)
each_number = pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
SIZES = [(200, 250), (200, 249)]


def image_of(size, boxes=()):
    """Noise, with objects that have masks of noise."""
    inputs = make_input(*size, boxes, list(range(len(boxes))))
    inputs["instances"].gt_masks = BitMasks(torch.rand(len(boxes), *size) > 0.5)
    return inputs


def tiny_boxes():
    """Three boxes in the corner of the image, with sides of less than a pixel."""
    boxes = torch.rand(3, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes.tolist()


@each_architecture
@pytest.mark.parametrize("boxes", [[], [0], [0, 1]], ids=["empty", "half empty", "tiny boxes"])
def test_a_step_and_an_inference(name, boxes):
    torch.manual_seed(43)
    model = ARCHITECTURES[name]()
    batch = [image_of(size, tiny_boxes() if i in boxes else ()) for i, size in enumerate(SIZES)]
    with torch.no_grad():
        found = model.eval()([{"image": x["image"]} for x in batch])
    assert [x["instances"].image_size for x in found] == SIZES
    with EventStorage():
        losses = model.train()(batch)
        sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key


def predict(model, name, number):
    """Lets the dense part of a model say ``number`` everywhere, with a gradient."""

    def change(x):
        return x * 0 + number

    if name in RCNNS:
        model.proposal_generator.head.register_forward_hook(
            lambda module, inputs, outputs: outputs.with_tensors(
                [change(x) for x in outputs.tensors]
            )
        )
    elif name == "detectron2s_fcos":
        model.head.register_forward_hook(lambda module, inputs, outputs: tree_map(change, outputs))
    else:
        on_predictions(model, change)


@each_architecture
@each_number
def test_a_training_that_diverges_ends(name, number):
    """Detectron2's trainer names the losses, before the step is taken."""
    torch.manual_seed(43)
    model = ARCHITECTURES[name]().train()
    predict(model, name, number)
    before = [x.detach().clone() for x in model.parameters()]
    batch = [image_of((64, 96), [[3.0, 2, 63, 58], [60, 5, 90, 60]])]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = SimpleTrainer(model, [batch], optimizer)
    with EventStorage(), pytest.raises(FloatingPointError, match="Loss became infinite or NaN"):
        trainer.run_step()
    assert all(map(torch.equal, before, model.parameters()))


@each_architecture
@each_number
def test_no_detection_is_infinite(name, number):
    """There is none, or a finite one of saturated scores and sides, or an error that says so."""
    torch.manual_seed(43)
    kwargs = {} if name in RCNNS else {"test_score_thresh": 0.0}
    model = ARCHITECTURES[name](**kwargs).eval()
    predict(model, name, number)
    batch = [{**image_of((64, 96)), "file_name": "a.jpg"}]
    try:
        with torch.no_grad():
            found = model(batch)[0]["instances"]
    except FloatingPointError as error:
        assert number == math.inf and "a.jpg: the network predicts boxes that are" in str(error)
    except AssertionError as error:  # Detectron2's own detectors
        assert name in DETECTRON2S | {"detectron2s_fcos"} and "infinite or NaN" in str(error)
    else:
        assert found.pred_boxes.tensor.isfinite().all() and found.scores.isfinite().all()
        assert number == math.inf or len(found) == 0
