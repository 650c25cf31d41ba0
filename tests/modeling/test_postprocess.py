"""From dense predictions to detections."""

import pytest
import torch

from gfocal.modeling.postprocess import NMSPostProcess
from gfocal.modeling.representations import DiracDistance, GeneralDistribution
from gfocal.modeling.structures import DenseAnchors, DensePredictions


def two_levels():
    """4 locations of stride 8 at x = 0, 8, 16, 24 and 1 of stride 16 at 0; y = 0."""
    centers = torch.tensor([[0.0, 0], [8, 0], [16, 0], [24, 0], [0, 0]])
    return DenseAnchors(
        boxes=torch.cat([centers - 32, centers + 32], dim=1),
        strides=torch.tensor([8.0, 8, 8, 8, 16]),
        level_shapes=[(1, 4), (1, 1)],
    )


def predictions_of(scores, distances):
    """Scores (R, K) and integer distances (R, 4) in bins, as one image's predictions."""
    box_logits = torch.zeros(1, len(scores), 4, 17)
    box_logits.scatter_(-1, torch.tensor(distances).view(1, -1, 4, 1), 1e4)
    return DensePredictions(
        torch.logit(torch.tensor(scores))[None], box_logits, None, GeneralDistribution()
    )


def run(predictions, image_size=(100, 100), **settings):
    (result,) = NMSPostProcess(**settings)(two_levels(), predictions, [image_size])
    return result


def test_by_hand():
    scores = [[0.01, 0.9], [0.01, 0.01], [0.3, 0.01], [0.01, 0.01], [0.01, 0.2]]
    # location 0: 2 strides right and down of 8 px; location 2: 1 left, 3 right and down; location 4
    # (stride 16): 1 stride right and down, which is the same box as location 0's, of the same class
    distances = [[0, 0, 2, 2], [0] * 4, [1, 0, 3, 3], [0] * 4, [0, 0, 1, 1]]
    result = run(predictions_of(scores, distances))
    assert result.pred_classes.tolist() == [1, 0]
    torch.testing.assert_close(result.scores, torch.tensor([0.9, 0.3]))
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 16, 16], [8, 0, 40, 24]]
    assert result.anchor_idxs.tolist() == [0, 2]


def test_nms_keeps_classes_apart():
    scores = [[0.9, 0.8]] + [[0.01, 0.01]] * 4
    result = run(predictions_of(scores, [[0, 0, 2, 2]] * 5))
    assert result.pred_classes.tolist() == [0, 1]


def test_nms_is_the_same_for_each_class():
    """The last of 1203 classes, in a large image, keeps what the first does."""
    boxes = torch.rand(300, 2) * 60 + 3000
    anchors = DenseAnchors(torch.cat([boxes, boxes], dim=1), torch.ones(300), [(10, 30)])
    logits = torch.full((1, 300, 1203), -100.0)
    logits[..., 0] = logits[..., -1] = torch.randn(300)
    predictions = DensePredictions(logits, torch.rand(1, 300, 4, 1) * 2, None, DiracDistance())
    postprocess = NMSPostProcess(nms_thresh=0.3, max_detections=1000)
    (result,) = postprocess(anchors, predictions, [(4000, 4000)])
    first, last = (result.anchor_idxs[result.pred_classes == k].tolist() for k in (0, 1202))
    assert len(first) > 100
    assert first == last


def test_boxes_are_clipped_to_the_image():
    scores = [[0.9, 0.01]] + [[0.01, 0.01]] * 4
    result = run(predictions_of(scores, [[4, 4, 4, 4]] * 5), image_size=(20, 10))
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 10, 20]]
    assert result.image_size == (20, 10)


def test_boxes_end_before_the_margin_of_the_image():
    scores = predictions_of([[0.9, 0.01]] + [[0.01, 0.01]] * 4, [[4, 4, 4, 4]] * 5)
    result = run(scores, image_size=(20, 10), clip_margin=1.0)
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 9, 19]]
    with pytest.raises(ValueError, match="clip_margin is -1; expected a number of pixels"):
        NMSPostProcess(clip_margin=-1)


def test_topk_is_a_level():
    scores = [[0.9, 0.1], [0.8, 0.1], [0.7, 0.1], [0.6, 0.1], [0.06, 0.07]]
    distances = [[0, 0, 1, 1]] * 5
    result = run(predictions_of(scores, distances), topk_candidates=2, nms_thresh=1.0)
    # the best two of the first level and both of the second
    assert result.anchor_idxs.tolist() == [0, 1, 4, 4]
    assert result.pred_classes.tolist() == [0, 0, 1, 0]


def test_max_detections_keeps_the_best():
    scores = [[0.6, 0.01], [0.8, 0.01], [0.7, 0.01], [0.9, 0.01], [0.01, 0.01]]
    result = run(predictions_of(scores, [[0, 0, 1, 1]] * 5), max_detections=2)
    torch.testing.assert_close(result.scores, torch.tensor([0.9, 0.8]))


def test_nothing_above_the_threshold():
    result = run(predictions_of([[0.05 - 1e-4, 0.01]] * 5, [[0, 0, 1, 1]] * 5))
    assert len(result) == 0
    assert result.pred_boxes.tensor.shape == (0, 4)


def test_quality_takes_part_in_the_score():
    predictions = predictions_of([[0.5, 0.4]] * 5, [[0, 0, 1, 1]] * 5)
    predictions = predictions._replace(quality_logits=torch.logit(torch.full((1, 5, 1), 0.5)))
    result = run(predictions, nms_thresh=0.99)
    torch.testing.assert_close(result.scores.unique(), torch.tensor([0.2, 0.25]))


def test_detections_of_scores():
    """Two images, two levels of two and one locations, two classes. By hand: the best pair of each
    level and image, then those above the threshold."""
    scores = torch.tensor(
        [[[0.9, 0.2], [0.8, 0.0], [0.3, 0.6]], [[0.0, 0.0], [0.0, 0.05], [0.7, 0.0]]]
    )
    boxes = torch.arange(6.0)[:, None] * 10 + torch.tensor([-5.0, 0.0, 25.0, 5.0])

    def decode(image_idxs, location_idxs):
        return boxes[3 * image_idxs + location_idxs]

    part = NMSPostProcess(score_thresh=0.1, topk_candidates=1)
    first, second = part.of_scores(scores, [2, 1], decode, [(100, 40), (100, 70)])
    assert first.scores.tolist() == pytest.approx([0.9, 0.6])
    assert first.pred_classes.tolist() == [0, 1] and first.anchor_idxs.tolist() == [0, 2]
    assert first.pred_boxes.tensor.tolist() == [[0, 0, 25, 5], [15, 20, 40, 25]]
    assert second.scores.tolist() == pytest.approx([0.7])
    assert second.pred_boxes.tensor.tolist() == [[45, 50, 70, 55]]
    whole = part.of_scores(scores, [2, 1], decode, [(100, 40)], clip=False)
    assert whole[0].pred_boxes.tensor.tolist() == [[-5, 0, 25, 5], [15, 20, 45, 25]]
    by_class = NMSPostProcess(score_thresh=[0.95, 0.1], nms_thresh=1.0)
    (found, _) = by_class.of_scores(scores, [3], decode, [(100, 100)] * 2)
    assert found.scores.tolist() == pytest.approx([0.6, 0.2])
