"""Hard NMS of a batch, on tensors of fixed size, for each kind of graph.

In PyTorch's graphs it is torchvision's operator. ONNX has NonMaxSuppression. So for an ONNX file
the function is one operator of our own, which is translated as a whole.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

__all__ = ["KeptByNMS", "kept_by_nms", "onnx_operator", "onnx_translations"]

KeptByNMS = Callable[[Tensor, Tensor, Tensor, float, int, int], Tensor]


def kept_by_nms(
    boxes: Tensor, scores: Tensor, classes: Tensor, iou_thresh: float, num_classes: int, limit: int
) -> Tensor:
    """Which candidates survive NMS within their class and image.

    Args:
        boxes: (N, T, 4) XYXY pixels, none negative.
        scores: (N, T); below 0: no candidate.
        classes: (N, T) int64 in 0..num_classes-1.
        iou_thresh: a box is dropped if its IoU with a better one is above.
        num_classes: K.
        limit: so many of a class and image are enough; more may be marked.

    Returns:
        (N, T) bool.
    """
    # As Detectron2's batched NMS: boxes of other groups are moved away. In double precision, as in
    # HardNMS.
    images = torch.arange(scores.shape[0], device=scores.device)[:, None]
    groups = (images * num_classes + classes).flatten()
    flat, flat_scores = boxes.flatten(0, 1).double(), scores.flatten().double()
    moved = flat + (groups * (flat.amax() + 1))[:, None]
    valid = (flat_scores >= 0).nonzero().squeeze(1)
    # Two more boxes, far from all others: torch.export takes for granted that NMS keeps two.
    far = moved.new_tensor([[-2.0, -2, -1, -1], [-4, -4, -3, -3]])
    last = flat_scores.shape[0] + torch.arange(2, device=scores.device)
    kept = nms(
        torch.cat([moved[valid], far]),
        torch.cat([flat_scores[valid], far[:, 0]]),
        iou_thresh,
    )
    marks = torch.cat([torch.zeros_like(groups), torch.zeros_like(last)])
    marks = marks.scatter(0, torch.cat([valid, last])[kept], 1)
    return marks[:-2].bool().view_as(scores)


@functools.cache
def onnx_operator() -> KeptByNMS:
    """:func:`kept_by_nms` as one operator of PyTorch, ``gfocal::kept_by_nms``."""
    operator = torch.library.custom_op("gfocal::kept_by_nms", kept_by_nms, mutates_args=())
    operator.register_fake(lambda boxes, scores, *_: torch.empty_like(scores, dtype=torch.bool))
    return operator


@functools.cache
def onnx_translations() -> dict[Any, Callable]:
    """What `torch.onnx.export` makes of :func:`onnx_operator`: core operators."""
    from onnxscript import opset18

    op: Any = opset18

    def translated(boxes, scores, classes, iou_thresh, num_classes, limit) -> Any:
        # Each class has a row of scores (N, K, T), -1 where a candidate is of another class.
        ids = op.Constant(value_ints=list(range(num_classes)))
        one_class = op.Equal(
            op.Unsqueeze(classes, op.Constant(value_ints=[1])),
            op.Unsqueeze(ids, op.Constant(value_ints=[0, 2])),
        )
        rows = op.Where(
            one_class,
            op.Unsqueeze(scores, op.Constant(value_ints=[1])),
            op.Constant(value_float=-1.0),
        )
        selected = op.NonMaxSuppression(  # (S, 3): image, class, candidate
            boxes,
            rows,
            op.Constant(value_ints=[limit]),
            op.Constant(value_floats=[iou_thresh]),
            op.Constant(value_floats=[0.0]),
        )
        places = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
        ones = op.Expand(op.Constant(value_ints=[1]), op.Shape(places, start=0, end=1))
        zeros = op.Expand(op.Constant(value_ints=[0]), op.Shape(scores))
        return op.Cast(op.ScatterND(zeros, places, ones), to=9)  # 9: bool

    return {torch.ops.gfocal.kept_by_nms.default: translated}
