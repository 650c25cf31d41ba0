"""SimOTA: each box takes the locations of least cost, as many as its predictions deserve."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..boxes import aligned_iou
from ..numerics import at_least_float32
from ..settings import COUNT, NOT_NEGATIVE, check_setting, check_settings
from ..structures import BACKGROUND, DenseAnchors, DensePredictions, GroundTruth, Matches
from .batch import Objects
from .common import nothing_matched
from .grids import Grids, Pairs, centers_of

__all__ = ["SimOTAMatcher"]

# Cost of a location that is not both inside a box and near its centre: only a box with too few
# others takes it.
_FAR = 1e5


class SimOTAMatcher:
    """SimOTA (YOLOX, https://arxiv.org/abs/2107.08430, Sec. 2.1), as mmdetection has it.

    The locations of an image that lie inside a box, or by less than ``center_radius`` strides (in x
    and in y) from a box's centre, are candidates of all its boxes. The cost of a candidate is

        cls_weight * BCE(scores, box's class) - iou_weight * log(u + 1e-7) + far

    The cross entropy is summed over all classes, of joint scores. u is the IoU of the predicted box
    with the box. far is 100000 unless the location lies both inside that box and near its centre. A
    box takes the k candidates of least cost, of equal ones the first. k is the sum of its
    ``candidate_topk`` largest u, rounded down, and at least 1. A location that several boxes take
    goes to the box of least cost among all, or to the first of equal ones.

    The quality is u. So every box of an image with a candidate claims a location, which may lie
    outside of it, where no such location is free of far.

    u and cost are matrices of boxes and candidates, one image at a time: about 40 bytes a pair at
    the peak in float32, 40 MB for 100 boxes and 10000 candidates. (The cross entropies of all
    classes need no further dimension: only the logit of the box's class depends on the box.) It
    waits for a GPU several times an image.

    YOLOX takes the square root of its score, which is a product of two that are trained apart. It
    centres the cells for matching, but not for boxes. Here both have the anchors' centres.

    Args:
        center_radius: in strides.
        candidate_topk: the most locations that a box takes.
        cls_weight, iou_weight: of the costs.

    Raises:
        ValueError: if ``candidate_topk`` is no positive integer, or another is no finite number of
            at least 0.
    """

    def __init__(
        self,
        center_radius: float = 2.5,
        candidate_topk: int = 10,
        cls_weight: float = 1.0,
        iou_weight: float = 3.0,
    ):
        check_setting("candidate_topk", candidate_topk, COUNT)
        check_settings(
            NOT_NEGATIVE,
            center_radius=center_radius,
            cls_weight=cls_weight,
            iou_weight=iou_weight,
        )
        self.center_radius = center_radius
        self.candidate_topk = candidate_topk
        self.cls_weight = cls_weight
        self.iou_weight = iou_weight

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(center_radius={self.center_radius}, "
            f"candidate_topk={self.candidate_topk}, cls_weight={self.cls_weight}, "
            f"iou_weight={self.iou_weight})"
        )

    @torch.no_grad()
    def __call__(
        self, anchors: DenseAnchors, truth: GroundTruth, predictions: DensePredictions
    ) -> Matches:
        """See :meth:`TaskAlignedMatcher.__call__`."""
        matched = nothing_matched(anchors, truth)
        dtype = torch.promote_types(predictions.cls_logits.dtype, torch.float32)
        quality = torch.zeros_like(matched, dtype=dtype)
        if sum(truth.counts) == 0:
            return Matches(matched, quality)
        objects = Objects.of(truth)
        candidates, near = self._places(anchors, objects, truth)
        firsts = [sum(truth.counts[:i]) for i in range(len(truth.counts))]
        for image, (first, count) in enumerate(zip(firsts, truth.counts)):
            (locations,) = candidates[image].nonzero(as_tuple=True)
            if count == 0 or len(locations) == 0:
                continue
            mine = slice(first, first + count)
            costs, ious = self._costs(
                anchors,
                predictions,
                (torch.full_like(locations, image), locations),
                truth.classes[image].long(),
                objects.boxes[mine].to(dtype),
            )
            # (count, locations) cheap pairs, from a list of the whole batch
            columns = candidates[image].cumsum(0) - 1
            of_image = (near.boxes >= first) & (near.boxes < first + count)
            is_near = torch.zeros_like(costs, dtype=torch.bool)
            is_near[near.boxes[of_image] - first, columns[near.locations[of_image]]] = True
            owners, best = self._assign(costs.add_(_FAR * ~is_near), ious)
            matched[image, locations] = owners
            quality[image, locations] = best
        return Matches(matched, quality)

    def _places(
        self, anchors: DenseAnchors, objects: Objects, truth: GroundTruth
    ) -> tuple[Tensor, Pairs]:
        """(N, R) which locations are candidates; the pairs of a box and a location both inside it
        and near its centre."""
        grids = Grids.of(anchors, objects, truth.image_sizes)
        sides, centers = objects.boxes[:, None], centers_of(objects.boxes)[:, None]
        reach = self.center_radius * grids.strides
        inside = grids.inside(sides[..., :2], sides[..., 2:])
        around = grids.inside(centers - reach, centers + reach)
        shape = (len(truth.boxes), len(anchors.boxes))
        candidates = torch.zeros(shape, dtype=torch.bool, device=sides.device)
        for windows in (inside, around):
            pairs = Pairs.of(grids, windows)
            candidates[objects.images[pairs.boxes], pairs.locations] = True
        return candidates, Pairs.of(grids, inside & around)

    def _costs(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        places: tuple[Tensor, Tensor],
        classes: Tensor,
        boxes: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(G, V) costs but for far, and IoUs, of boxes (G, 4) and V locations of an image.

        As with :func:`.batch.predicted_scores_and_ious`, predictions that are not finite count as
        perfect ones.
        """
        logits = at_least_float32(predictions.joint_logits(places))  # (V, K)
        box_logits = at_least_float32(predictions.box_logits[places])
        predicted = anchors.decode(predictions.distances_of(box_logits), places[1])
        ious = aligned_iou(predicted, boxes[:, None])
        ious = torch.where(predicted.isfinite().all(dim=1), ious, 1.0)
        # -log(1 - p) of all classes. For the box's own it becomes -log(p): the logit less.
        of_class = softplus(logits).sum(dim=1) - logits.t()[classes]
        costs = of_class.nan_to_num_(nan=0.0).mul_(self.cls_weight)
        return costs.sub_((ious + 1e-7).log_().mul_(self.iou_weight)), ious

    def _assign(self, costs: Tensor, ious: Tensor) -> tuple[Tensor, Tensor]:
        """(V,) index of the box of each location or BACKGROUND, and (V,) its IoU, else 0."""
        most = min(self.candidate_topk, costs.shape[1])
        counts = ious.topk(most, dim=1).values.sum(dim=1, keepdim=True).long().clamp_(min=1)
        last = costs.topk(most, dim=1, largest=False).values.gather(1, counts - 1)
        taken, equal = costs < last, costs == last
        rest = counts - taken.sum(dim=1, keepdim=True)
        taken |= equal & (equal.cumsum(dim=1, dtype=torch.int32) <= rest)
        times = taken.sum(dim=0)
        owners = torch.where(times > 1, costs.argmin(dim=0), taken.to(torch.uint8).argmax(dim=0))
        best = ious.gather(0, owners[None])[0]
        return torch.where(times > 0, owners, BACKGROUND), torch.where(times > 0, best, 0.0)
