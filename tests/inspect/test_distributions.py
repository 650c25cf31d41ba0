"""Distributions that belong to detections."""

from types import SimpleNamespace

import pytest
import torch

from gfocal.inspect import detect_with_distributions
from gfocal.modeling.representations import GeneralDistribution
from tests.helpers.tiny import make_gfl, make_head
from tests.helpers.tiny_ssd import make_ssd


@pytest.fixture
def detector():
    head = make_head()
    head.box_representation = GeneralDistribution(bin_width=0.5)
    torch.nn.init.normal_(head.box_logits.weight, std=1.0)  # distributions that differ
    return make_gfl(head=head, test_score_thresh=0.0).eval()


@pytest.fixture
def inputs():
    return [
        {"image": torch.rand(3, 96, 128) * 255, "height": 192, "width": 384},
        {"image": torch.rand(3, 64, 64) * 255},
    ]


def test_distributions_belong_to_the_detections_of_the_model(detector, inputs):
    with torch.no_grad():
        expected = detector(inputs)
    outputs = detect_with_distributions(detector, inputs)
    assert [x["instances"].image_size for x in outputs] == [(192, 384), (64, 64)]
    for output, model_output, factors in zip(outputs, expected, ([3, 2, 3, 2], [1, 1, 1, 1])):
        instances, reference = output["instances"], model_output["instances"]
        assert len(instances) == len(reference) > 20
        assert torch.equal(instances.scores, reference.scores)
        boxes = instances.pred_boxes.tensor
        torch.testing.assert_close(boxes, reference.pred_boxes.tensor)
        probs, edges = instances.pred_box_distributions, instances.bin_edges
        assert probs.shape == edges.shape == (len(boxes), 4, 17)
        torch.testing.assert_close(probs.sum(-1), torch.ones(len(boxes), 4))
        # A side is the mean of its bins' positions, which is what makes the picture true:
        # the position is linear in the bin, so E[position] = position(E[bin]).
        height, width = instances.image_size
        sides = (probs * edges).sum(-1)
        limits = torch.tensor([width, height, width, height])
        clipped = torch.minimum(sides.clamp(min=0), limits)
        torch.testing.assert_close(clipped, boxes, rtol=1e-4, atol=1e-2)
        # Bins start at the anchor's centre and go outwards, half a stride each (bin_width).
        assert torch.equal(edges[:, :2, 0], edges[:, 2:, 0])
        steps = edges.diff(dim=-1) / torch.tensor(factors)[:, None]
        assert (steps[:, :2] < 0).all()
        assert (steps[:, 2:] > 0).all()
        strides = {round(float(step) * 2) for step in steps[:, 2, 0]}
        assert strides == {8, 16}
        torch.testing.assert_close(steps, steps[:, :, :1].expand_as(steps), rtol=1e-3, atol=1e-3)


def test_distributions_need_eval_mode_and_bins(detector, inputs):
    detector.train()
    with pytest.raises(ValueError, match="eval mode"):
        detect_with_distributions(detector, inputs)
    detector.eval()
    other = SimpleNamespace(training=False, box_representation=torch.nn.Identity())
    with pytest.raises(TypeError, match="a SimpleNamespace with Identity has no distributions"):
        detect_with_distributions(other, inputs)
    with pytest.raises(TypeError, match="a SSD has no distributions; a General"):
        detect_with_distributions(make_ssd().eval(), inputs)
