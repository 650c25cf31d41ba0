"""What all detectors share, on the smallest detector that there can be."""

import inspect
from typing import NamedTuple

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from gfocal.detectors import SSD
from gfocal.modeling.detector import Detector
from gfocal.modeling.observers import TrainingStep
from gfocal.modeling.postprocess import NMSPostProcess
from gfocal.modeling.settings import UNSET
from gfocal.modeling.suppression import GaussianSoftNMS
from tests.helpers.tiny import TinyBackbone, make_input


class Brightness(NamedTuple):
    values: torch.Tensor  # (N,)

    def first(self):
        return Brightness(self.values[:1])

    def detach(self):
        return Brightness(self.values.detach())


class OneBox(Detector):
    """Finds the whole input, of the class 0, with the brightness of its map as score."""

    def __init__(self, **kwargs):
        defaults = {"backbone": TinyBackbone(), "num_classes": 2}
        defaults |= {"pixel_mean": [0.0] * 3, "pixel_std": [255.0] * 3}
        super().__init__(**{**defaults, **kwargs})

    def predict(self, images):
        return (Brightness(self.backbone(images)["p3"].mean(dim=(1, 2, 3)).sigmoid()),)

    def losses(self, predictions, truth, batched_inputs):
        assert predictions.values.dtype == torch.float32
        self.observe(TrainingStep((predictions.detach(),), truth, batched_inputs))
        return {"loss": (predictions.values * torch.tensor(truth.counts)).sum()}

    def inference(self, predictions, image_sizes):
        return [
            Instances(
                size,
                pred_boxes=Boxes(torch.tensor([[0.0, 0, size[1], size[0]]])),
                scores=score[None],
                pred_classes=torch.zeros(1, dtype=torch.int64),
            )
            for score, size in zip(predictions.values, image_sizes)
        ]


def test_a_detection_is_in_pixels_of_the_output():
    model = OneBox().eval()
    inputs = [{**make_input(48, 64), "height": 24, "width": 128}, make_input(32, 32)]
    first, second = model(inputs)
    assert first["instances"].pred_boxes.tensor.tolist() == [[0, 0, 128, 24]]
    assert second["instances"].pred_boxes.tensor.tolist() == [[0, 0, 32, 32]]


def test_observers_get_each_step_of_a_training():
    seen = []
    model = OneBox(observers=[lambda core, step: seen.append((core, step))])
    batch = [make_input(32, 32, [[1, 2, 9, 9]]), make_input(32, 48)]
    losses = model(batch)
    ((core, step),) = seen
    assert core is model and step.batched_inputs is batch and step.truth.counts == [1, 0]
    assert not step.outputs[0].values.requires_grad and losses["loss"].requires_grad
    assert step.first()[0].values.tolist() == step.outputs[0].values[:1].tolist()


def test_training_pictures_show_the_first_image():
    drawn = []

    def draw(inputs, result, input_format):
        drawn.append((inputs, len(result), input_format))
        return np.zeros((4, 6, 3), np.uint8)

    model = OneBox(vis_period=1, draw_training=draw, input_format="RGB")
    batch = [make_input(32, 32, [[1, 2, 9, 9]]), make_input(32, 48)]
    with EventStorage() as storage:
        model(batch)
    assert drawn == [(batch[0], 1, "RGB")] and len(storage._vis_data) == 1
    model.vis_period = 0
    model(batch)
    assert len(drawn) == 1


def test_settings_are_those_of_the_post_processing():
    model = OneBox()
    model.test_score_thresh = {"default": 0.3, 1: 0.2}
    assert model.postprocess.thresholds(2) == (0.3, 0.2)
    with pytest.raises(ValueError, match="test_score_thresh is 2; expected a number in"):
        model.test_score_thresh = 2
    with pytest.raises(ValueError, match="3"):
        model.test_score_thresh = [0.1, 0.1, 0.1]
    assert model.networks() == (model.backbone,)


def test_bad_input_names_the_image():
    model = OneBox()
    with pytest.raises(ValueError, match=r"a\.png: an image of 1 channels; pixel_mean has 3"):
        model([{"image": torch.zeros(1, 32, 32), "file_name": "a.png"}])
    with pytest.raises(ValueError, match=r"image 7 .* has a degenerate box"):
        model([make_input(32, 32, [[9, 2, 1, 9]], image_id=7)])
    with pytest.raises(ValueError, match="class 2; expected 0..1"):
        model([make_input(32, 32, [[1, 2, 9, 9]], [2])])


class WithShared(OneBox):
    def __init__(self, *, own=1, **shared):
        super().__init__(**shared)
        self.own = own

    def published(self):
        return {"test_score_thresh": 0.2, "test_nms_thresh": 0.3, "max_detections_per_image": 7}


def test_the_signature_has_the_shared_arguments_by_name():
    names = inspect.signature(WithShared).parameters
    assert {"own", "backbone", "num_classes", "test_nms_thresh", "observers"} <= names.keys()
    assert not {"shared", "self"} & names.keys()
    assert inspect.signature(SSD).parameters["test_score_thresh"].default is UNSET
    with pytest.raises(TypeError, match="test_nms_tresh"):
        WithShared(test_nms_tresh=0.5)


def test_published_settings_count_where_nothing_else_is_said():
    part = WithShared().postprocess
    assert (part.score_thresh, part.nms_thresh, part.max_detections) == (0.2, 0.3, 7)
    part = WithShared(test_score_thresh=0.0, suppression=GaussianSoftNMS()).postprocess
    assert part.score_thresh == 0 and isinstance(part.suppression, GaussianSoftNMS)
    assert WithShared(postprocess=NMSPostProcess()).postprocess.max_detections == 100
    with pytest.raises(ValueError, match="got a postprocess NMSPostProcess and also test_nms"):
        WithShared(postprocess=NMSPostProcess(), test_nms_thresh=0.5)
    with pytest.raises(TypeError, match="the postprocess is a function; expected an NMSPost"):
        WithShared(postprocess=lambda anchors, predictions, sizes: [])
