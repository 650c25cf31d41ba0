"""The inputs of the tasks: images of 800 x 1344 px with 80 classes, networks with ResNet-50.

Boxes are XYXY, in pixels.
"""

from typing import NamedTuple

import torch
from detectron2.config import instantiate
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, Instances
from torch import Tensor

from gfocal.config import model_zoo
from gfocal.detectors.gfl import GFL
from gfocal.modeling.corners import Corners
from gfocal.modeling.heatmaps import corner_radius
from gfocal.modeling.priors import PriorBoxes
from gfocal.modeling.representations import GeneralDistribution
from gfocal.modeling.structures import DenseAnchors, DensePredictions, GroundTruth

__all__ = [
    "make_anchors",
    "make_boxes",
    "make_corners",
    "make_inputs",
    "make_model",
    "make_objects",
    "make_predictions",
    "make_ssd_batch",
    "make_student",
]

HEIGHT, WIDTH, NUM_CLASSES = 800, 1344, 80
STRIDES = [8, 16, 32, 64, 128]


def make_anchors(device: torch.device) -> DenseAnchors:
    """The anchors of one image, as the released models have them."""
    shapes = [(-(-HEIGHT // s), -(-WIDTH // s)) for s in STRIDES]
    generator = DefaultAnchorGenerator(
        sizes=[[8 * s] for s in STRIDES], aspect_ratios=[1.0], strides=STRIDES, offset=0.0
    ).to(device)
    anchors = generator([torch.zeros(1, 1, *shape, device=device) for shape in shapes])
    return DenseAnchors.from_levels(anchors, shapes, STRIDES)


def make_boxes(num_boxes: int, device: torch.device, seed: int = 0) -> Boxes:
    """Sides from 8 to 400 px, evenly in their logarithm, anywhere in the image."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([WIDTH, HEIGHT])
    centers = torch.rand(num_boxes, 2, generator=generator) * size
    sides = 8 * 50 ** torch.rand(num_boxes, 2, generator=generator)
    boxes = Boxes(torch.cat([centers - sides / 2, centers + sides / 2], dim=1))
    boxes.clip((HEIGHT, WIDTH))
    return boxes.to(device)


def make_predictions(
    anchors: DenseAnchors, batch: int, with_quality: bool, num_objects: int = 20
) -> DensePredictions:
    """Logits like a trained detector's: nearly all scores are low. Around each of some objects a
    few dozen locations score high for its class and agree about its box."""
    device = anchors.boxes.device
    torch.manual_seed(0)
    num_locations = len(anchors.boxes)
    cls = torch.randn(batch, num_locations, NUM_CLASSES, device=device) - 7
    box = torch.randn(batch, num_locations, 4, 17, device=device)
    for image in range(batch):
        boxes = make_boxes(num_objects, device, seed=image).tensor
        distances = (anchors.boxes[:, :2] + anchors.boxes[:, 2:])[:, None] / 2 - (
            boxes[:, :2] + boxes[:, 2:]
        ) / 2
        fit = distances.square().sum(dim=-1).sqrt() / anchors.strides[:, None]
        locations, objects = (fit < 1.5).nonzero(as_tuple=True)
        cls[image, locations, objects % NUM_CLASSES] += 5.5
        box[image, locations, :, 4] += 5
    quality = torch.randn(batch, num_locations, 1, device=device) + 2 if with_quality else None
    return DensePredictions(cls, box, quality, GeneralDistribution().to(device))


def make_objects(
    num_objects: int, device: torch.device
) -> tuple[tuple[int, int, int, int], Tensor, Tensor, Tensor, Tensor]:
    """What is painted on the heat maps of one image at stride 4: their shape; image, class, cell
    (x, y) and radius of objects of the sizes of :func:`make_boxes`."""
    boxes = make_boxes(num_objects, device)
    widths, heights = (boxes.tensor[:, 2:] - boxes.tensor[:, :2]).unbind(dim=1)
    classes = torch.arange(num_objects, device=device) % NUM_CLASSES
    radii = corner_radius(widths / 4, heights / 4).long()
    shape = (1, NUM_CLASSES, HEIGHT // 4, WIDTH // 4)
    return shape, classes * 0, classes, (boxes.get_centers() / 4).long(), radii


def make_corners(
    batch: int, device: torch.device, num_objects: int = 20, count: int = 100
) -> tuple[Corners, Corners]:
    """The best corners of each kind of some images: those of objects, and others anywhere."""
    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([WIDTH, HEIGHT])
    boxes = torch.stack([make_boxes(num_objects, device, seed).tensor for seed in range(batch)])
    of_objects = torch.randint(NUM_CLASSES, (batch, num_objects), generator=generator)
    corners = []
    for points in boxes.split(2, dim=-1):
        scores = torch.rand(batch, count, generator=generator).sort(descending=True).values
        classes = torch.randint(NUM_CLASSES, (batch, count), generator=generator)
        embeddings = torch.randn(batch, count, generator=generator)
        places = torch.rand(batch, count, 2, generator=generator) * sides
        classes[:, :num_objects] = of_objects
        embeddings[:, :num_objects] = torch.arange(num_objects)
        places[:, :num_objects] = points.cpu()
        corners.append(Corners(*(x.to(device) for x in (scores, classes, embeddings, places))))
    return corners[0], corners[1]


def make_ssd_batch(
    batch: int, num_boxes: int, device: torch.device
) -> tuple[PriorBoxes, GroundTruth, torch.Tensor]:
    """The priors of SSD512, objects of the sizes of :func:`make_boxes` on 512 x 512 px, and class
    logits (N, R, K + 1) that are spread like those of a trained SSD: the background, the last,
    exceeds the best class by 12 on average, with a standard deviation of 4."""
    cfg = model_zoo.get_config("COCO-Detection/ssd512_VGG_16.py").model
    generator = instantiate(cfg.anchor_generator).to(device)
    priors = generator([torch.zeros(1, 1, n, n, device=device) for n in (64, 32, 16, 8, 4, 2, 1)])
    boxes = [make_boxes(num_boxes, device, seed) for seed in range(batch)]
    for of_image in boxes:
        of_image.scale(512 / WIDTH, 512 / HEIGHT)
    classes = [torch.arange(num_boxes, device=device) % NUM_CLASSES for _ in boxes]
    torch.manual_seed(0)
    logits = 2.75 * torch.randn(batch, len(priors.boxes), NUM_CLASSES + 1, device=device)
    logits[..., -1] = 18.5 + 4 * torch.randn(batch, len(priors.boxes), device=device)
    return priors, GroundTruth(boxes, classes), logits


def make_model(name: str, device: torch.device) -> GFL:
    """A published R-50 model, untrained."""
    torch.manual_seed(0)
    return instantiate(model_zoo.get_config(f"COCO-Detection/{name}_R_50_FPN_1x.py").model).to(
        device
    )


class _Given(NamedTuple):
    """A teacher that is there."""

    model: GFL

    def __call__(self, student: GFL) -> GFL:
        return self.model


def make_student(device: torch.device) -> tuple[GFL, GFL, GFL]:
    """GFLV1 R-50, the same with a teacher, and this teacher, GFLV1 R-101; all untrained."""
    teacher = instantiate(model_zoo.get_config("COCO-Detection/gfl_R_101_FPN_ms_2x.py").model)
    teacher = teacher.to(device).eval().requires_grad_(False)
    cfg = model_zoo.get_config("distillation/gfl_R_50_from_R_101_FPN_1x.py").model
    cfg.teacher = None
    student = instantiate(cfg).to(device)
    student.teacher = _Given(teacher)
    return make_model("gfl", device), student, teacher


def make_inputs(batch: int, num_boxes: int = 30) -> list[dict]:
    """A batch of noise with boxes, as a loader gives it."""
    inputs = []
    for seed in range(batch):
        instances = Instances((HEIGHT, WIDTH))
        instances.gt_boxes = make_boxes(num_boxes, torch.device("cpu"), seed)
        instances.gt_classes = torch.arange(num_boxes)
        image = torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8)
        inputs.append({"image": image, "instances": instances})
    return inputs
