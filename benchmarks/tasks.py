"""The timed tasks: one function each, which hands its rows to the benchmark."""

import copy
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gfocal.export import export_model, fast_dtype, optimize_for_inference
from gfocal.export.formats import FORMATS
from gfocal.modeling.structures import DenseAnchors, DenseTargets, GroundTruth, Matches

from . import inputs as make
from . import ours, straightforward
from .harness import Benchmark

__all__ = ["TASKS", "TEST", "Settings"]

TEST = {
    "score_thresh": 0.05,
    "topk_candidates": 1000,
    "nms_thresh": 0.6,
    "max_detections": 100,
}


class Settings(NamedTuple):
    """
    Args:
        batch: images; None: 1 for inference, 2 for train-step and teacher, 8 for ssd. Other tasks
            have their own.
        amp: train-step in mixed precision.
        compile: inference with torch.compile too.
    """

    batch: int | None = None
    amp: bool = False
    compile: bool = False


def matcher(bench: Benchmark, settings: Settings) -> None:
    anchors = make.make_anchors(bench.device)
    for num_boxes in (100, 300, 1000, 3000):
        boxes = [make.make_boxes(num_boxes, bench.device)]
        bench.compare(
            f"ATSS, {num_boxes} boxes",
            lambda boxes=boxes: ours.atss(anchors, boxes),
            lambda boxes=boxes: straightforward.atss(anchors, boxes),
        )
    predictions = make.make_predictions(anchors, 1, True)
    for num_boxes in (100, 3000):
        boxes = [make.make_boxes(num_boxes, bench.device)]
        truth = GroundTruth(boxes, [torch.arange(num_boxes, device=bench.device) % 80])
        bench.compare(
            f"TOOD, {num_boxes} boxes",
            lambda truth=truth: ours.task_aligned(anchors, predictions, truth),
            lambda truth=truth: straightforward.task_aligned(anchors, predictions, truth),
        )


def losses(bench: Benchmark, settings: Settings) -> None:
    anchors = make.make_anchors(bench.device)
    gt_boxes = [make.make_boxes(30, bench.device, seed) for seed in range(2)]
    truth = GroundTruth(gt_boxes, [torch.arange(30, device=bench.device) for _ in range(2)])
    for name, with_quality in (("GFLV1", False), ("GFLV2", True)):
        predictions = make.make_predictions(anchors, 2, with_quality)
        inputs = [x.requires_grad_() for x in predictions.tensors]

        def step(formulation, predictions=predictions, inputs=inputs):
            matches = Matches(formulation.atss(anchors, gt_boxes))
            targets = DenseTargets.from_matches(matches, truth, make.NUM_CLASSES)
            values = formulation.losses(anchors, predictions, targets)
            return torch.autograd.grad(list(values.values()), inputs)  # of their sum

        bench.compare(
            f"targets, losses and backward, batch 2 x 30 boxes, {name}",
            lambda step=step: step(ours),
            lambda step=step: step(straightforward),
        )


def heatmaps(bench: Benchmark, settings: Settings) -> None:
    objects = make.make_objects(500, bench.device)
    bench.compare(
        "heat maps, 500 objects",
        lambda: ours.painted_heatmaps(*objects),
        lambda: straightforward.painted_heatmaps(*objects),
    )


@torch.no_grad()
def pairing(bench: Benchmark, settings: Settings) -> None:
    for batch in (1, 8):
        arguments = (*make.make_corners(batch, bench.device), 1000)
        bench.compare(
            f"pairs of 100 x 100 corners, batch {batch}",
            lambda arguments=arguments: ours.pair_corners(*arguments),
            lambda arguments=arguments: straightforward.pair_corners(*arguments),
        )


def ssd(bench: Benchmark, settings: Settings) -> None:
    """SSD512's targets and the loss of its classes, with backward."""
    batch = settings.batch or 8
    priors, truth, logits = make.make_ssd_batch(batch, 30, bench.device)
    logits.requires_grad_()

    def loss(formulation):
        return formulation.ssd_loss(logits, formulation.ssd_labels(priors, truth))

    def grad(formulation):
        return torch.autograd.grad(loss(formulation), logits)

    for what, function in (
        ("SSD matching", lambda formulation: formulation.ssd_labels(priors, truth)),
        ("SSD matching and hard negatives", torch.no_grad()(loss)),
        ("the same and backward", grad),
    ):
        bench.compare(
            f"{what}, batch {batch} x 30 boxes",
            functools.partial(function, ours),
            functools.partial(function, straightforward),
        )


def postprocess(bench: Benchmark, settings: Settings) -> None:
    anchors = make.make_anchors(bench.device)
    sizes = [(make.HEIGHT, make.WIDTH)]
    for name, with_quality in (("GFLV1", False), ("GFLV2", True)):
        predictions = make.make_predictions(anchors, 1, with_quality)
        arguments = (anchors, predictions, sizes)
        with torch.no_grad():
            bench.compare(
                f"post-processing, {name}",
                lambda arguments=arguments: ours.detections(*arguments, **TEST),
                lambda arguments=arguments: straightforward.detections(*arguments, **TEST),
            )
    _sides(bench, anchors)


@torch.no_grad()
def _sides(bench: Benchmark, anchors: DenseAnchors) -> None:
    """What standard deviations and distributions of the sides add."""
    for batch in (1, 8):
        arguments = (
            anchors,
            make.make_predictions(anchors, batch, True),
            [(make.HEIGHT, make.WIDTH)] * batch,
        )
        rows = bench.race(
            {
                f"post-processing, GFLV2, batch {batch}, {what}": functools.partial(
                    ours.detections, *arguments, **TEST, stds=stds, distributions=distributions
                )
                for what, stds, distributions in (
                    ("without sides", False, False),
                    ("with standard deviations", True, False),
                    ("with distributions", True, True),
                )
            }
        )
        first, *others = rows.values()
        for row in others:
            row["times as long"] = round(row["ms"] / first["ms"], 3)
            bench.report(f"{row['what']}: {row['times as long']} times as long as without")


@torch.no_grad()
def inference(bench: Benchmark, settings: Settings) -> None:
    inputs = make.make_inputs(settings.batch or 1)
    models = {}
    for name in ("gfl", "gflv2"):
        plain = make.make_model(name, bench.device).eval()
        models[f"{name} R-50, float32"] = plain
        for dtype in dict.fromkeys([None, fast_dtype(bench.device)]):
            kind = f"{name} R-50, {'float32' if dtype is None else str(dtype)[6:]}"
            for compiled in (False, True)[: 1 + settings.compile]:
                model = optimize_for_inference(copy.deepcopy(plain), dtype, compile=compiled)
                models[f"{kind}, {'compiled' if compiled else 'optimized'}"] = model
    rows = bench.race({what: functools.partial(model, inputs) for what, model in models.items()})
    for what, row in rows.items():
        if what.startswith("gflv2"):
            row["GFLV2 / GFLV1"] = round(row["ms"] / rows[what.replace("v2", "")]["ms"], 3)
            row["times faster"] = round(rows["gflv2 R-50, float32"]["ms"] / row["ms"], 2)
            bench.report(
                f"{what}: {row['times faster']} x as fast as float32, "
                f"takes {row['GFLV2 / GFLV1']} of GFLV1's time"
            )


def train_step(bench: Benchmark, settings: Settings) -> None:
    """A step of GFLV2, cut at the network's predictions, so that each part can be timed."""
    model = make.make_model("gflv2", bench.device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    inputs = make.make_inputs(settings.batch or 2)
    dtype = None
    if settings.amp:
        dtype = torch.bfloat16 if bench.device.type == "cpu" else torch.float16
    times: dict[str, list[float]] = {}

    def timed(name: str, function: Callable):
        result, milliseconds = bench.timed(function)
        times.setdefault(name, []).append(milliseconds)
        return result

    def network():
        with torch.autocast(bench.device.type, dtype=dtype, enabled=dtype is not None):
            return model.forward_dense(inputs)

    for _ in range(bench.repeat + 1):
        images, anchors, predictions = timed("backbone and head, forward", network)
        answers: list[Tensor] = list(predictions.tensors)
        leaves = [x.detach().requires_grad_() for x in answers]

        def supervise(images=images, anchors=anchors, predictions=predictions, leaves=leaves):
            truth = model.ground_truth(inputs, images.image_sizes)
            losses = model.losses(anchors, predictions.with_tensors(leaves), truth)
            return torch.autograd.grad(list(losses.values()), leaves)  # of their sum

        grads = timed("targets, losses and their backward", supervise)
        optimizer.zero_grad()
        timed(
            "backbone and head, backward",
            lambda a=answers, g=grads: torch.autograd.backward(a, g),
        )
        timed("optimizer", optimizer.step)
    _report_shares(bench, times)


def teacher(bench: Benchmark, settings: Settings) -> None:
    """What a teacher adds to the losses and their backward pass, beside its forward pass. On a CPU
    in its time, which other programs do not disturb."""
    if bench.device.type == "cpu":
        bench.clock = time.process_time
    inputs = make.make_inputs(settings.batch or 2)
    plain, student, of_student = make.make_student(bench.device)
    images = student.preprocess_image(inputs).tensor

    def step(model: torch.nn.Module) -> None:
        model.zero_grad()
        sum(model(inputs).values()).backward()

    @torch.no_grad()
    def forward() -> None:
        of_student.predictions(of_student.features(images))

    rows = bench.race(
        {
            "a step without a teacher": lambda: step(plain),
            "a step with a teacher": lambda: step(student),
            "the teacher's forward pass": forward,
        },
        memory=False,
    )
    without, with_teacher, alone = (row["ms"] for row in rows.values())
    cost = (with_teacher - without) / alone
    rows["a step with a teacher"]["added / forward pass"] = round(cost, 3)
    bench.report(f"the teacher adds {cost:.3f} of its forward pass")


def _report_shares(bench: Benchmark, times: dict[str, list[float]]) -> None:
    """A row for each part of a step, the median without its first run, and one for all parts
    outside the network."""
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    total = sum(medians.values())
    for name, value in medians.items():
        share = round(value / total, 4)
        bench.rows.append({"what": name, "ms": round(value, 1), "share": share})
        bench.report(f"{name:70} {value:10.1f} ms {100 * share:8.2f} %")
    outside = sum(value for name, value in medians.items() if "backbone" not in name) / total
    bench.rows.append({"what": "outside backbone and head", "share": round(outside, 4)})
    bench.report(f"outside backbone and head: {100 * outside:.2f} % of {total:.0f} ms")


@torch.no_grad()
def export(bench: Benchmark, settings: Settings) -> None:
    """One image in PyTorch, and in the files of `gfocal export`. (The calibration of the 8-bit file
    with noise says nothing of its detections, but its time is right.)"""
    images = [x["image"] for x in make.make_inputs(settings.batch or 1)]
    batch = torch.stack(images).float()
    functions: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in EXPORTED:
            plain = make.make_model(name, bench.device).eval()
            inputs = [{"image": image} for image in images]
            optimized = optimize_for_inference(copy.deepcopy(plain))
            functions[f"{name} R-50, PyTorch"] = functools.partial(plain, inputs)
            functions[f"{name} R-50, PyTorch, optimized"] = functools.partial(optimized, inputs)
            for kind, (format, calibration) in _FILES.items():
                path = f"{folder}/{name} {kind}{FORMATS[format].suffix}"
                noise = [batch[:1, :, :320, :320]] if calibration else None
                export_model(plain, path, format=format, calibration=noise)
                functions[f"{name} R-50, {kind}"] = functools.partial(
                    FORMATS[format].read(path), batch
                )
        bench.race(functions, memory=False)  # PyTorch does not see onnxruntime's


EXPORTED = ("gfl", "gflv2")
# Kinds of files: their format, and whether they are in 8 bits.
_FILES = {
    "onnxruntime": ("onnx", False),
    "onnxruntime, int8": ("onnx", True),
    "TorchScript": ("torchscript", False),
    "torch.export": ("torch_export", False),
}
TASKS: dict[str, Callable[[Benchmark, Settings], None]] = {
    "matcher": matcher,
    "losses": losses,
    "heatmaps": heatmaps,
    "pairing": pairing,
    "ssd": ssd,
    "postprocess": postprocess,
    "inference": inference,
    "train-step": train_step,
    "teacher": teacher,
    "export": export,
}
