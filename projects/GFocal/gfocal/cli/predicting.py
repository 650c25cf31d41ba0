"""What the commands share that predict many images: predict and audit.

It needs neither PyTorch nor Detectron2 for a file of gfocal export --format onnx.
"""

import argparse
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from .._installed import require
from ..data.batching import ImagePredictor
from ..export.runtime import OnnxPredictor
from .common import check_machines, exit_on_mistake, given_options

__all__ = [
    "Run",
    "add_reading",
    "category_ids",
    "check_reading",
    "check_weights",
    "give_distributions",
    "run_of",
]

# For a model of PyTorch alone.
_NOT_OF_ONNX = (
    *("--config-file", "--trust", "--fast", "--calibrated"),
    *("--num-gpus", "--num-machines", "--machine-rank", "--dist-url"),
)


class Run(NamedTuple):
    """What reads the images, a digest of its config, and arguments of predict_files."""

    predictor: ImagePredictor
    config: str
    options: dict[str, Any]


def add_reading(group: argparse._ArgumentGroup) -> None:
    """The options that say how images are read."""
    group.add_argument("--batch-size", type=int, default=8, metavar="N", help="(default 8)")
    group.add_argument(
        "--workers",
        type=int,
        default=2,
        metavar="N",
        help="processes or threads that read (default 2)",
    )


def check_reading(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the command if they are out of range."""
    for name, least in (("batch_size", 1), ("workers", 0)):
        if getattr(args, name) < least:
            option = f"--{name.replace('_', '-')}"
            parser.error(f"{option} is {getattr(args, name)}; expected at least {least}")


def check_weights(
    parser: argparse.ArgumentParser, args: argparse.Namespace, argv: list[str] | None
) -> None:
    """Sets ``is_onnx``; ends the command if nothing reads the weights, or options are not of their
    kind."""
    suffix = os.path.splitext(args.weights or "")[1].lower()
    if suffix in (".ts", ".pt2"):
        parser.error(f"--weights is {args.weights!r}; expected .pth or .onnx")
    args.is_onnx = suffix == ".onnx"
    if not args.is_onnx:
        with exit_on_mistake():
            require(f"a model of PyTorch ({args.weights or args.config_file})")
        check_machines(parser, args)
        return
    wrong = sorted(given_options(parser, argv) & {*_NOT_OF_ONNX}) + args.opts
    if wrong:
        parser.error(f"{args.weights} is an ONNX file, which takes no {', '.join(wrong)}")
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        parser.error(f"one process predicts with {args.weights}; torchrun started several")


def run_of(args: argparse.Namespace) -> Run:
    """The detector that the options of a command name."""
    return _run_of_onnx(args) if args.is_onnx else _run_of_pytorch(args)


def _run_of_onnx(args: argparse.Namespace) -> Run:
    return Run(OnnxPredictor(args.weights), "", {})


def _run_of_pytorch(args: argparse.Namespace) -> Run:
    from ..config import set_device
    from ..engine import Predictor
    from ..engine.sharing import digest_of_config, own_share, read_in_processes
    from ..weights import find_config

    cfg, _ = find_config(args.config_file, args.weights, args.opts, args.trust)
    if args.num_gpus == 0:
        set_device(cfg, "cpu")
    predictor = Predictor(cfg, fast=args.fast, calibrated=args.calibrated)
    options = {"share": own_share(), "read_ahead": read_in_processes}
    return Run(predictor, digest_of_config(cfg), options)


def give_distributions(predictor: Any) -> None:
    """Lets a detector give the distributions of sides, where it has any. With test-time
    augmentation it has none: those of several sizes of an image are not one."""
    model = getattr(predictor, "model", None)
    part: Any = getattr(model, "postprocess", None)
    if hasattr(part, "distributions") and getattr(predictor, "augmented", None) is None:
        representation = getattr(model, "box_representation", None)
        part.distributions = hasattr(representation, "probabilities")


def category_ids(
    predictor: ImagePredictor, categories: Sequence[tuple[int, str]] | None, json_file: str
) -> tuple[int, ...]:
    """The id of each class: the json's category of that name; without a json that of the dataset
    that the weights know, else 1, 2, ..."""
    num_classes, names = predictor.num_classes, predictor.class_names
    if categories:
        if names is None and len(categories) == num_classes:
            return tuple(sorted(index for index, _ in categories))
        by_name = {name: index for index, name in categories}
        missing = [name for name in names or () if name not in by_name]
        if names is None or missing:
            raise ValueError(
                f"{json_file} has the categories {', '.join(by_name)}; the detector finds "
                + (", ".join(names) if names else f"{num_classes} classes without names")
            )
        return tuple(by_name[name] for name in names)
    return tuple(predictor.category_ids or range(1, num_classes + 1))
