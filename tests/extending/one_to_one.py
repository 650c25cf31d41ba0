"""POTO (https://arxiv.org/abs/2012.03544, Sec. 3.2) as the ``matcher``: one location for each box,
for a detector that needs no NMS."""

from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from gfocal.modeling.boxes import boxes_to_distances
from gfocal.modeling.matchers import BACKGROUND, nothing_matched
from gfocal.modeling.structures import DenseAnchors, DensePredictions, GroundTruth, Matches


class OneToOneMatcher:
    """The boxes take locations inside them so that the sum of score^(1 - alpha) * IoU^alpha is the
    largest."""

    def __init__(self, alpha: float = 0.8):
        self.alpha = alpha

    def __call__(
        self, anchors: DenseAnchors, truth: GroundTruth, predictions: DensePredictions
    ) -> Matches:
        idxs, scores = nothing_matched(anchors, truth), predictions.joint_logits().sigmoid()
        predicted = anchors.decode(predictions.distances_of(predictions.box_logits))
        for i, (boxes, classes) in enumerate(zip(truth.boxes, truth.classes)):
            ious = box_iou(boxes.tensor, predicted[i])  # (G, R)
            sides = boxes_to_distances(anchors.centers, boxes.tensor[:, None])
            free = (sides.amin(dim=-1) > 0) & (idxs[i] == BACKGROUND)
            quality = scores[i].T[classes] ** (1 - self.alpha) * ious**self.alpha * free
            for g, location in zip(*linear_sum_assignment(quality.cpu(), maximize=True)):
                if quality[g, location] > 0:
                    idxs[i, location] = int(g)
        return Matches(idxs)
