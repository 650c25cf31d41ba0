"""The smallest detectors that are no GFL, with what a detector needs for exports."""

from typing import NamedTuple

import torch
from torch import nn

from gfocal.modeling.decoded import Decoded
from gfocal.modeling.detector import Detector
from gfocal.modeling.postprocess import postprocess_of
from tests.helpers.tiny import TinyBackbone


class BlockPredictions(NamedTuple):
    """Class logits (N, R, K + 1), the last of the background, and sides (N, R, 4) in pixels."""

    logits: torch.Tensor
    sides: torch.Tensor
    level_sizes: list

    def detach(self):
        return BlockPredictions(self.logits.detach(), self.sides.detach(), self.level_sizes)


class Blocks(Detector):
    """One box a cell of two levels, softmax scores; as SSD. Its sides lie around the cell's top
    left corner."""

    def __init__(self, num_classes=3, suppression=None, **settings):
        super().__init__(
            backbone=TinyBackbone(),
            num_classes=num_classes,
            pixel_mean=[123.675, 116.28, 103.53],
            pixel_std=[58.395, 57.12, 57.375],
        )
        if suppression is None:
            settings = {"test_nms_thresh": 0.45, **settings}
        else:
            settings["suppression"] = suppression
        self.postprocess = postprocess_of(None, num_classes, **settings)
        self.head = nn.ModuleDict({name: nn.Conv2d(8, num_classes + 5, 1) for name in ("p3", "p4")})

    def maps(self, images):
        features = self.backbone(images)
        return {name: self.head[name](features[name]) for name in ("p3", "p4")}

    def raw(self, images):
        return {f"map_{name}": x for name, x in self.maps(images).items()}

    def predict(self, images):
        maps = list(self.maps(images).values())
        flat = torch.cat([x.flatten(2) for x in maps], dim=2).transpose(1, 2)
        logits, sides = flat.split([self.num_classes + 1, 4], dim=-1)
        sizes = [x.shape[-2] * x.shape[-1] for x in maps]
        corners = [self.corners(x, stride) for x, stride in zip(maps, (8, 16))]
        logits = logits + self.ramp(torch.cat(corners), logits)
        outward = sides.new_tensor([-1.0, -1, 1, 1])
        scales = torch.cat([s * torch.ones_like(x[:, :1]) for x, s in zip(corners, (8, 16))])
        boxes = torch.cat(corners).repeat(1, 2) + sides.exp() * scales * outward
        return (BlockPredictions(logits, boxes, sizes),)

    @staticmethod
    def ramp(corners, logits):
        """Logits of each place and class: on padding, places would have equal scores."""
        places = corners @ corners.new_tensor([37, 101]) * 1e-5
        return places[:, None] * torch.arange(1, logits.shape[-1] + 1)

    @staticmethod
    def corners(x, stride):
        rows, columns = (torch.arange(n) * stride for n in x.shape[-2:])
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return torch.stack([x, y], dim=-1).flatten(0, 1)

    def scores(self, predictions):
        return predictions.logits.softmax(dim=-1)[..., :-1]

    def losses(self, predictions, truth, batched_inputs):
        return {"loss": predictions.logits.square().mean() + predictions.sides.square().mean()}

    def inference(self, predictions, image_sizes):
        return self.postprocess.of_scores(*self._candidates(predictions), image_sizes)

    def _candidates(self, predictions):
        def decode(images, locations):
            return predictions.sides[images, locations]

        return self.scores(predictions), predictions.level_sizes, decode

    def candidates(self, batched_inputs):
        images = self.preprocess_image(batched_inputs)
        (predictions,) = self.predict(images.tensor)
        of_scores = self._candidates(predictions)
        return self.postprocess.candidates_of_scores(*of_scores, images.image_sizes)

    def suppress(self, image_size, candidates):
        return self.postprocess.suppress(image_size, candidates)

    def decode(self, images):
        return self.decode_levels(images)[:2]

    def decode_levels(self, images):
        (predictions,) = self.predict(images)
        return Decoded(predictions.sides, self.scores(predictions), predictions.level_sizes)


class Points(Blocks):
    """One level, peaks alone, no NMS, boxes as they are; as CenterNet. Half of the widths are
    negative."""

    clips_boxes = False
    candidates = suppress = None
    decode_levels = Detector.decode_levels

    def __init__(self, num_classes=3, **settings):
        defaults = {"test_score_thresh": 0.0, "test_topk_candidates": 30, "test_nms_thresh": 1.0}
        super().__init__(num_classes, **{**defaults, **settings})

    def maps(self, images):
        return {"p3": super().maps(images)["p3"]}

    def predict(self, images):
        x = self.maps(images)["p3"]
        heat, sides = x.split([self.num_classes + 1, 4], dim=1)
        corners = self.corners(x, 8)
        flat = heat[:, :-1].flatten(2).transpose(1, 2)
        flat = (flat + self.ramp(corners, flat)).sigmoid()
        heat = flat.transpose(1, 2).unflatten(2, x.shape[-2:])
        heat = torch.where(heat == nn.functional.max_pool2d(heat, 3, 1, 1), heat, 0.0)
        boxes = corners.repeat(1, 2) + 40 * sides.flatten(2).transpose(1, 2)
        return (BlockPredictions(heat.flatten(2).transpose(1, 2), boxes, [boxes.shape[1]]),)

    def scores(self, predictions):
        return predictions.logits

    def inference(self, predictions, image_sizes):
        return self.postprocess.of_scores(*self._candidates(predictions), image_sizes, clip=False)

    def in_output(self, result, inputs, image_size):
        height, width = inputs.get("content_size", image_size)
        top, left = inputs.get("border", (0, 0))
        size = inputs.get("height", height), inputs.get("width", width)
        scale = torch.tensor([size[1] / width, size[0] / height] * 2)
        boxes = (result.pred_boxes.tensor - torch.tensor([left, top] * 2)) * scale
        result.pred_boxes.tensor = boxes
        result._image_size = size
        return result

    def decode(self, images):
        (predictions,) = self.predict(images)
        return predictions.sides, predictions.logits


def make_spread(cls, **kwargs):
    """A detector whose scores differ from each other, see tests/helpers/spread.py."""
    model = cls(**kwargs).eval()
    with torch.no_grad():
        for conv in model.head.values():
            conv.weight.mul_(4)
    return model
