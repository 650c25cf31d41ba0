"""Times the package beside the straightforward formulation of the papers, in one run.

    python tools/benchmark.py matcher|losses|postprocess|inference|train-step
        [--device cpu|cuda] [--json FILE]

The straightforward formulation is tests/straightforward.py: every box with every anchor, dense
labels, everything decoded. Images are 800 x 1344 px with 80 classes, networks have ResNet-50;
medians of --repeat runs. MB are the tensors that a call holds at its peak beyond its inputs.
"""

import argparse
import copy
import gc
import importlib.util
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.config import instantiate
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from gfocal import model_zoo, optimize_for_inference
from gfocal.box_distribution import GeneralDistribution
from gfocal.criterion import DistributionFocalLoss, GFLCriterion, GIoULoss, QualityFocalLoss
from gfocal.matcher import ATSSMatcher
from gfocal.optimize import fast_dtype
from gfocal.postprocess import detections
from gfocal.structures import DenseAnchors, DensePredictions, DenseTargets

HEIGHT, WIDTH, NUM_CLASSES = 800, 1344, 80
STRIDES = [8, 16, 32, 64, 128]
TEST = {
    "score_thresh": 0.05,
    "topk_candidates": 1000,
    "nms_thresh": 0.6,
    "max_detections": 100,
}


def straightforward():
    """tests/straightforward.py, by its path: Detectron2 installs a package called tools too."""
    path = Path(__file__).parents[1] / "tests" / "straightforward.py"
    spec = importlib.util.spec_from_file_location("straightforward", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Benchmark:
    """Times functions and collects the rows of a table.

    Args:
        device: of everything.
        repeat: number of runs, after one to warm up.
    """

    def __init__(self, device: str, repeat: int):
        self.device = torch.device(device)
        self.repeat = repeat
        self.rows: list[dict] = []

    def race(self, functions: dict[str, Callable[[], object]]) -> dict[str, dict]:
        """A row each: median milliseconds, and MB of memory at the peak. They run in turn, so that
        a machine that gets slower does so for all."""
        times: dict[str, list[float]] = {what: [] for what in functions}
        for function in functions.values():
            function()
        for _ in range(self.repeat):
            for what, function in functions.items():
                self._synchronize()
                start = time.perf_counter()
                function()
                self._synchronize()
                times[what].append(1e3 * (time.perf_counter() - start))
        rows = {}
        for what, function in functions.items():
            milliseconds, memory = statistics.median(times[what]), self._memory(function)
            rows[what] = {"what": what, "ms": round(milliseconds, 2), "MB": memory}
            print(f"{what:70} {milliseconds:10.2f} ms {memory:8.1f} MB", flush=True)
        self.rows += rows.values()
        return rows

    def compare(self, what: str, ours: Callable, theirs: Callable) -> None:
        """Two rows, and how many times faster the first is."""
        # Not in turn: what one frees (up to 2 GB) would slow the other down.
        (a,) = self.race({f"{what}, ours": ours}).values()
        (b,) = self.race({f"{what}, straightforward": theirs}).values()
        a["times faster"] = round(b["ms"] / a["ms"], 1)
        print(f"{'':70} {a['times faster']:10.1f} times faster", flush=True)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _memory(self, function: Callable[[], object]) -> float:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            function()
            return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            function()
        with tempfile.TemporaryDirectory() as folder:
            trace = f"{folder}/trace.json"
            profiler.export_chrome_trace(trace)
            events = json.loads(Path(trace).read_text())["traceEvents"]
        events = [event for event in events if event["name"] == "[memory]"]
        events.sort(key=lambda event: event["ts"])
        now = peak = 0
        for event in events:
            now += event["args"]["Bytes"]
            peak = max(peak, now)
        return round(peak / 2**20, 1)


def make_anchors(device: torch.device) -> DenseAnchors:
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
    """Logits as a trained detector has them: nearly all scores are low; around each of some objects
    a few dozen locations score high for its class and agree about its box."""
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
    return DensePredictions(cls, box, quality)


def matcher(bench: Benchmark, args: argparse.Namespace) -> None:
    anchors, theirs, ours = make_anchors(bench.device), straightforward().atss, ATSSMatcher()
    for num_boxes in (100, 300, 1000, 3000):
        boxes = [make_boxes(num_boxes, bench.device)]
        bench.compare(
            f"ATSS, {num_boxes} boxes",
            lambda boxes=boxes: ours(anchors, boxes),
            lambda boxes=boxes: theirs(anchors, boxes),
        )


def losses(bench: Benchmark, args: argparse.Namespace) -> None:
    anchors, theirs, ours = make_anchors(bench.device), straightforward(), ATSSMatcher()
    criterion = GFLCriterion(
        cls_loss=QualityFocalLoss(), box_loss=GIoULoss(), dist_loss=DistributionFocalLoss()
    )
    representation = GeneralDistribution().to(bench.device)
    gt_boxes = [make_boxes(30, bench.device, seed) for seed in range(2)]
    gt_classes = [torch.arange(30, device=bench.device) for _ in range(2)]
    for name, with_quality in (("GFLV1", False), ("GFLV2", True)):
        predictions = make_predictions(anchors, 2, with_quality)
        inputs = [x.requires_grad_() for x in predictions if x is not None]

        def step(match, loss, predictions=predictions, inputs=inputs):
            targets = DenseTargets.from_matches(match(), gt_boxes, gt_classes, NUM_CLASSES)
            total = sum(loss(anchors, predictions, targets, representation).values())
            return torch.autograd.grad(total, inputs)

        bench.compare(
            f"targets, losses and backward, batch 2 x 30 boxes, {name}",
            lambda step=step: step(lambda: ours(anchors, gt_boxes), criterion),
            lambda step=step: step(lambda: theirs.atss(anchors, gt_boxes), theirs.losses),
        )


def postprocess(bench: Benchmark, args: argparse.Namespace) -> None:
    anchors, theirs = make_anchors(bench.device), straightforward()
    representation = GeneralDistribution().to(bench.device)
    sizes = [(HEIGHT, WIDTH)]
    for name, with_quality in (("GFLV1", False), ("GFLV2", True)):
        arguments = (anchors, make_predictions(anchors, 1, with_quality), sizes, representation)
        with torch.no_grad():
            bench.compare(
                f"post-processing, {name}",
                lambda arguments=arguments: detections(*arguments, **TEST),
                lambda arguments=arguments: theirs.detections(*arguments, **TEST),
            )


def make_model(name: str, device: torch.device) -> torch.nn.Module:
    """A published R-50 model, untrained."""
    torch.manual_seed(0)
    return instantiate(model_zoo.get_config(f"COCO-Detection/{name}_R_50_FPN_1x.py").model).to(
        device
    )


def make_inputs(batch: int, num_boxes: int = 30) -> list[dict]:
    inputs = []
    for seed in range(batch):
        instances = Instances((HEIGHT, WIDTH))
        instances.gt_boxes = make_boxes(num_boxes, torch.device("cpu"), seed)
        instances.gt_classes = torch.arange(num_boxes)
        image = torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8)
        inputs.append({"image": image, "instances": instances})
    return inputs


@torch.no_grad()
def inference(bench: Benchmark, args: argparse.Namespace) -> None:
    inputs = make_inputs(args.batch or 1)
    models = {}
    for name in ("gfl", "gflv2"):
        plain = make_model(name, bench.device).eval()
        models[f"{name} R-50, float32"] = plain
        for dtype in dict.fromkeys([None, fast_dtype(bench.device)]):
            kind = f"{name} R-50, {'float32' if dtype is None else str(dtype)[6:]}"
            for compiled in (False, True)[: 1 + args.compile]:
                model = optimize_for_inference(copy.deepcopy(plain), dtype, compile=compiled)
                models[f"{kind}, {'compiled' if compiled else 'optimized'}"] = model
    rows = bench.race({what: lambda m=model: m(inputs) for what, model in models.items()})
    for what, row in rows.items():
        if what.startswith("gflv2"):
            row["GFLV2 / GFLV1"] = round(row["ms"] / rows[what.replace("v2", "")]["ms"], 3)
            row["times faster"] = round(rows["gflv2 R-50, float32"]["ms"] / row["ms"], 2)
            print(f"{what}: {row['times faster']} x as fast as float32, ", end="")
            print(f"takes {row['GFLV2 / GFLV1']} of GFLV1's time", flush=True)


def train_step(bench: Benchmark, args: argparse.Namespace) -> None:
    """A step of GFLV2, cut where the network's answer is, so that each part can be timed."""
    model = make_model("gflv2", bench.device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    inputs = make_inputs(args.batch or 2)
    dtype = None
    if args.amp:
        dtype = torch.bfloat16 if bench.device.type == "cpu" else torch.float16
    parts: dict[str, list[float]] = {}

    def timed(name: str, function: Callable):
        bench._synchronize()
        start = time.perf_counter()
        result = function()
        bench._synchronize()
        parts.setdefault(name, []).append(1e3 * (time.perf_counter() - start))
        return result

    def network():
        with torch.autocast(bench.device.type, dtype=dtype, enabled=dtype is not None):
            return model.forward_dense(inputs)

    for _ in range(bench.repeat + 1):
        images, anchors, predictions = timed("backbone and head, forward", network)
        answers: list[Tensor] = [x for x in predictions if x is not None]
        leaves = [x.detach().requires_grad_() for x in answers]

        def supervise(images=images, anchors=anchors, leaves=leaves):
            losses = model._losses(inputs, images, anchors, DensePredictions(*leaves))
            return torch.autograd.grad(sum(losses.values()), leaves)

        grads = timed("targets, losses and their backward", supervise)
        optimizer.zero_grad()
        timed(
            "backbone and head, backward",
            lambda a=answers, g=grads: torch.autograd.backward(a, g),
        )
        timed("optimizer", optimizer.step)
    medians = {name: statistics.median(times[1:]) for name, times in parts.items()}
    total = sum(medians.values())
    for name, value in medians.items():
        row = {"what": name, "ms": round(value, 1), "share": round(value / total, 4)}
        bench.rows.append(row)
        print(f"{name:70} {value:10.1f} ms {100 * row['share']:8.2f} %")
    outside = sum(value for name, value in medians.items() if "backbone" not in name) / total
    bench.rows.append({"what": "outside backbone and head", "share": round(outside, 4)})
    print(f"outside backbone and head: {100 * outside:.2f} % of {total:.0f} ms", flush=True)


TASKS = {
    "matcher": matcher,
    "losses": losses,
    "postprocess": postprocess,
    "inference": inference,
    "train-step": train_step,
}


def machine(device: torch.device) -> str:
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":")[1].strip()
                break
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name()}, {name}"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--repeat", type=int, default=7, help="runs of each (default 7)")
    parser.add_argument("--batch", type=int, help="images of inference (1) and train-step (2)")
    parser.add_argument("--amp", action="store_true", help="train-step in mixed precision")
    parser.add_argument("--compile", action="store_true", help="inference with torch.compile too")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no CUDA device here")
    if args.repeat < 1 or (args.batch is not None and args.batch < 1):
        parser.error("--repeat and --batch: expected at least 1")
    return args


def main(args: argparse.Namespace) -> list[dict]:
    bench = Benchmark(args.device, args.repeat)
    print(machine(bench.device), flush=True)
    TASKS[args.task](bench, args)
    if args.json:
        content = {"machine": machine(bench.device), "task": args.task, "rows": bench.rows}
        Path(args.json).write_text(json.dumps(content, indent=1) + "\n")
    return bench.rows


if __name__ == "__main__":
    try:
        main(parse_args())
    except OSError as error:
        sys.exit(f"error: {error}")
