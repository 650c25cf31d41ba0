"""A detector, a dataset and an evaluator that are as small as can be, for tests of the engine."""

import os

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from torch import nn

MetadataCatalog.get("toy_val").set(thing_classes=["square", "wide"])


@META_ARCH_REGISTRY.register()
class ToyDetector(nn.Module):
    """Finds one box an image, by a linear layer on an 8 x 8 thumbnail."""

    @configurable
    def __init__(self, *, num_classes: int, gain: float = 1.0, input_format: str = "RGB"):
        super().__init__()
        self.num_classes = num_classes
        self.gain = gain
        self.input_format = input_format
        self.pool = nn.AdaptiveAvgPool2d(8)
        self.linear = nn.Linear(3 * 64, 4 + num_classes)
        self.seen_dtype = None

    @classmethod
    def from_config(cls, cfg):
        return {"num_classes": cfg.MODEL.RETINANET.NUM_CLASSES, "input_format": cfg.INPUT.FORMAT}

    def forward(self, batched_inputs):
        device = self.linear.weight.device
        images = [x["image"].to(device).float() for x in batched_inputs]
        pooled = torch.stack([self.pool(image).flatten() for image in images]) / 255
        out = self.linear(pooled * self.gain)
        self.seen_dtype = out.dtype
        boxes, logits = out[:, :4].float().sigmoid(), out[:, 4:].float()
        if self.training:
            sizes = [i.shape[-1:-3:-1] * 2 for i in images]
            gt = [x["instances"].gt_boxes.tensor[0] for x in batched_inputs]
            gt = torch.stack([g / g.new_tensor(s) for g, s in zip(gt, sizes)]).to(device)
            classes = torch.stack([x["instances"].gt_classes[0] for x in batched_inputs])
            return {
                "loss_box": (boxes - gt).abs().mean(),
                "loss_cls": nn.functional.cross_entropy(logits, classes.to(device)),
            }
        results = []
        for x, box, scores in zip(batched_inputs, boxes, logits.softmax(1)):
            size = (x["height"], x["width"])
            corners = torch.stack(
                [torch.minimum(box[:2], box[2:]), torch.maximum(box[:2], box[2:])]
            )
            instances = Instances(
                size,
                pred_boxes=Boxes((corners * corners.new_tensor(size[::-1])).reshape(1, 4)),
                scores=scores.max()[None],
                pred_classes=scores.argmax()[None],
            )
            results.append({"instances": instances})
        return results


def toy_dataset(folder: str, names: str, num_images: int = 2) -> list[dict]:
    """Images with one bright box each, written to a folder on first use."""
    os.makedirs(folder, exist_ok=True)
    dicts = []
    for index in range(num_images):
        path = os.path.join(folder, f"{names}_{index}.png")
        x0, y0 = 4 + 6 * index, 6 + 4 * index
        x1, y1 = x0 + 20 + 10 * (index % 2), y0 + 20
        if not os.path.exists(path):
            image = np.full((48, 64, 3), 40, np.uint8)
            image[y0:y1, x0:x1] = (220, 120, 40)
            Image.fromarray(image).save(path)
        annotation = {
            "bbox": [x0, y0, x1, y1],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": index % 2,
            "iscrowd": 0,
        }
        dicts.append(
            {
                "file_name": path,
                "image_id": index,
                "height": 48,
                "width": 64,
                "annotations": [annotation],
            }
        )
    return dicts


class ToyEvaluator(DatasetEvaluator):
    """Counts the images, and remembers the name of the dataset."""

    def __init__(self, dataset_name: str = ""):
        self.dataset_name = dataset_name

    def reset(self):
        self.count = 0

    def process(self, inputs, outputs):
        self.count += len(outputs)

    def evaluate(self):
        return {"bbox": {"AP": 50.0, "images": float(self.count)}}
