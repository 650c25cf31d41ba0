"""Writes the detections of many images as COCO results.

    gfocal predict --weights model_final.pth --input photos/ --output results.json
    gfocal predict --weights W --input val.json --image-root images/ --output results.json
    gfocal predict --weights model.onnx --input photos/ --output results.json
    gfocal predict --config-file C --weights W --input 'a/*.jpg' b.png --output out.json --fast
    torchrun --nproc-per-node 8 -m gfocal predict --weights W --input photos/ --output results.json

The json is a list of {"image_id", "category_id", "bbox" (x, y, width, height in pixels), "score"}.
A detector that knows how sure it is also gives "bbox_std", the standard deviation of the left, top,
right and bottom side in pixels.
Image ids are those of the COCO json that --input names. For photos they count from 1 on, and
results.images.json tells the file of each id and the name of each category.

A prediction that was interrupted goes on with the same command. Images that cannot be read are
listed at the end, with exit status 1, and the others' detections are written.

A file of gfocal export --format onnx needs neither PyTorch nor Detectron2.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from .._installed import require
from ..data.batching import ImagePredictor
from ..data.images import find_images
from ..data.listing import images_of_json
from ..engine.prediction import (
    ImageFile,
    PredictionSettings,
    check_output,
    digest,
    digest_of_file,
    predict_files,
)
from ..export.runtime import OnnxPredictor
from .common import (
    add_calibrated,
    add_fast,
    add_machines,
    add_model,
    add_overrides,
    check_machines,
    check_model_arguments,
    complain,
    exit_on_mistake,
    given_options,
    make_parser,
    parse_arguments,
)

# For a model of PyTorch alone.
_NOT_OF_ONNX = (
    *("--config-file", "--trust", "--fast", "--calibrated"),
    *("--num-gpus", "--num-machines", "--machine-rank", "--dist-url"),
)


class _Run(NamedTuple):
    """What reads the images, a digest of its config, and arguments of predict_files."""

    predictor: ImagePredictor
    config: str
    options: dict[str, Any]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("detector")
    add_model(group)
    add_fast(group)
    add_calibrated(group)
    group = parser.add_argument_group("images")
    group.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="files, folders or patterns, or one json in COCO format",
    )
    group.add_argument("--image-root", metavar="DIR", help="of the json's file names")
    group.add_argument("--batch-size", type=int, default=8, metavar="N", help="(default 8)")
    group.add_argument(
        "--workers",
        type=int,
        default=2,
        metavar="N",
        help="processes or threads that read (default 2)",
    )
    group = parser.add_argument_group("results")
    group.add_argument("--output", required=True, metavar="JSON", help="the file to write")
    group.add_argument("--overwrite", action="store_true", help="replace --output if it is there")
    group.add_argument(
        "--confidence", type=float, default=0.0, metavar="SCORE", help="lowest (default: all)"
    )
    add_overrides(parser)
    add_machines(parser)
    args = parse_arguments(parser, argv)
    check_model_arguments(parser, args)
    _check_weights(parser, args, argv)
    for name, least in (("batch_size", 1), ("workers", 0)):
        if getattr(args, name) < least:
            option = f"--{name.replace('_', '-')}"
            parser.error(f"{option} is {getattr(args, name)}; expected at least {least}")
    if not 0 <= args.confidence <= 1:
        parser.error(f"--confidence is {args.confidence}; expected a score from 0 to 1")
    return args


def _check_weights(
    parser: argparse.ArgumentParser, args: argparse.Namespace, argv: list[str] | None
) -> None:
    """Ends the command if nothing reads the weights, or options are not of their kind."""
    suffix = os.path.splitext(args.weights or "")[1].lower()
    if suffix in (".ts", ".pt2"):
        parser.error(f"--weights is {args.weights!r}; predict reads .pth and .onnx")
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


def run(args: argparse.Namespace) -> None:
    """One process of the command.

    Raises:
        SystemExit: with status 1 and a line for each mistake or image that could not be read.
    """
    with exit_on_mistake():
        problems = _predict(args)
    if complain(problems):
        sys.exit(1)


def _predict(args: argparse.Namespace) -> list[str]:
    images, categories = _images(args)
    run_of = _run_of_onnx if args.is_onnx else _run_of_pytorch
    predictor, config, options = run_of(args)
    ids = _category_ids(predictor, categories, args.input[0])
    settings = PredictionSettings(
        weights=digest_of_file(predictor.weights),
        config=config,
        images=digest(*(f"{image.id} {image.path}" for image in images)),
        batch_size=args.batch_size,
        confidence=args.confidence,
        fast=args.fast,
        category_ids=ids,
        calibrated=args.calibrated,
    )
    check_output(args.output, args.overwrite)
    names = predictor.class_names or [str(index) for index in ids]
    rows = [{"id": index, "name": name} for index, name in zip(ids, names)]
    return predict_files(
        predictor,
        images,
        args.output,
        settings,
        categories=rows if categories is None else None,
        num_workers=args.workers,
        **options,
    )


def _run_of_onnx(args: argparse.Namespace) -> _Run:
    return _Run(OnnxPredictor(args.weights), "", {})


def _run_of_pytorch(args: argparse.Namespace) -> _Run:
    from ..config import set_device
    from ..engine import Predictor
    from ..engine.sharing import digest_of_config, own_share, read_in_processes
    from ..weights import find_config

    cfg, _ = find_config(args.config_file, args.weights, args.opts, args.trust)
    if args.num_gpus == 0:
        set_device(cfg, "cpu")
    predictor = Predictor(cfg, fast=args.fast, calibrated=args.calibrated)
    options = {"share": own_share(), "read_ahead": read_in_processes}
    return _Run(predictor, digest_of_config(cfg), options)


def _images(args: argparse.Namespace) -> tuple[list[ImageFile], list[tuple[int, str]] | None]:
    """The images, and the categories of a json; None without a json."""
    is_json = [path.lower().endswith(".json") for path in args.input]
    if any(is_json):
        if len(args.input) > 1:
            raise ValueError(f"--input is {args.input}; expected one json, or images")
        images, categories = images_of_json(args.input[0], args.image_root)
        return [ImageFile(*image) for image in images], categories
    if args.image_root is not None:
        raise ValueError("--image-root is for a json; expected --input JSON")
    try:
        paths = find_images(args.input)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--input: {error}") from error
    return [ImageFile(number, path) for number, path in enumerate(paths, 1)], None


def _category_ids(
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


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.is_onnx:
        run(args)
        return 0
    from ..engine import launch

    launch(run, args)
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.predict
    sys.exit(main())
