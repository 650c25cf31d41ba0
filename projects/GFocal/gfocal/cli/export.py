"""Writes a detector to a file that runs without gfocal, and compares the file with the detector.

    gfocal export --weights model_final.pth --output model.onnx
    gfocal export --weights W --output model.onnx --level decoded --stds --half
    gfocal export --weights W --output model.ts
    gfocal export --config-file C --weights W --output model.pt2 model.test_score_thresh=0.3
    gfocal export --weights W --output model.onnx --int8 --calibration photos/

The suffix of --output says the format: .onnx, .ts (TorchScript) or .pt2 (torch.export). Batch,
height and width of the images are free in each. (Of a detector whose config resizes to one size,
such as SSD, the batch alone.) At the end the file is run on images of other sizes
than the traced one, and a table tells its differences from PyTorch. A file that fails is removed,
with exit status 1.
"""

import argparse
import copy
import dataclasses
import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ..config import Config, set_device, set_weights
from ..data.images import find_images, read_image
from ..data.mapper import resize_of
from ..engine import Predictor
from ..export.card import LEVELS
from ..export.exporting import export_model
from ..export.parity import table
from ..weights import describe, find_config, read_description
from .common import (
    add_calibrated,
    add_model,
    add_overrides,
    check_model_arguments,
    exit_on_mistake,
    make_parser,
    parse_arguments,
)

MAX_CHECKED = 50
MAX_CALIBRATION = 200  # images: more change nothing, and all their numbers are in memory
SUFFIXES = {".onnx": "onnx", ".ts": "torchscript", ".pt2": "torch_export"}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("detector")
    add_model(group)
    add_calibrated(group)
    group = parser.add_argument_group("file")
    group.add_argument("--output", required=True, metavar="FILE", help=" ".join(SUFFIXES))
    group.add_argument("--overwrite", action="store_true", help="replace --output if it is there")
    group.add_argument(
        "--format", choices=sorted(SUFFIXES.values()), help="by default that of the suffix"
    )
    _add_graph(parser)
    parser.add_argument_group("check").add_argument(
        "--images",
        nargs="+",
        metavar="PATH",
        help="compare on these too, at most 50, beside made-up ones",
    )
    add_overrides(parser)
    args = parse_arguments(parser, argv)
    check_model_arguments(parser, args)
    suffix = os.path.splitext(args.output)[1].lower()
    expected = [key for key, x in SUFFIXES.items() if args.format in (None, x)]
    if suffix not in expected:
        parser.error(
            f"--output is {args.output!r}; expected a file ending in {', '.join(expected)}"
        )
    args.format = SUFFIXES[suffix]
    if args.int8 and (args.half or args.format != "onnx"):
        parser.error("--int8 is for ONNX, without --half")
    if args.int8 != bool(args.calibration):
        parser.error("--int8 and --calibration PATH belong together")
    return args


def _add_graph(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("graph")
    group.add_argument(
        "--level",
        choices=LEVELS,
        default="full",
        help="raw: logits of each level; decoded: boxes and scores of all locations; full: "
        "detections (default)",
    )
    group.add_argument(
        "--preprocessing",
        choices=("inside", "outside"),
        default="inside",
        help="whether the graph normalizes and pads the images (default: inside)",
    )
    group.add_argument(
        "--stds",
        action=argparse.BooleanOptionalAction,
        help="with the standard deviation of each side, or without (default: with them at level "
        "full, where the detector has them)",
    )
    group.add_argument("--half", action="store_true", help="backbone and head in float16")
    group.add_argument("--int8", action="store_true", help="convolutions in 8 bits (ONNX)")
    group.add_argument(
        "--calibration",
        nargs="+",
        metavar="PATH",
        help="images that tell the range of each number, for --int8",
    )


def run(args: argparse.Namespace) -> None:
    if os.path.lexists(args.output) and not args.overwrite:
        raise FileExistsError(
            f"--output is {args.output!r}, which is there; --overwrite replaces it"
        )
    calibration = find_images(args.calibration) if args.int8 else None
    images = find_images(args.images) if args.images else None
    cfg, _ = find_config(args.config_file, args.weights, args.opts, args.trust)
    set_device(cfg, "cpu")
    predictor = Predictor(cfg, calibrated=args.calibrated)
    resize = resize_of(predictor.augmentations.augs)
    if resize is None:
        _warn(
            "the file will not say how an image is resized for it, because the test "
            "augmentations are not one ResizeShortestEdge, Resize or CenterPad"
        )
    if predictor.augmented is not None:
        _warn("the file will have no test-time augmentation, which the config asks for")
    names, ids = list(predictor.class_names or ()), list(predictor.category_ids or ())
    rows = export_model(
        predictor.model,
        args.output,
        format=args.format,
        level=args.level,
        preprocessing=args.preprocessing,
        stds=args.stds,
        half=args.half,
        class_names=names,
        category_ids=ids,
        input_format=predictor.input_format or "",
        resize=resize,
        description=_description(cfg, predictor),
        calibration=_images(predictor, calibration[:MAX_CALIBRATION]) if calibration else None,
        images=list(_images(predictor, images[:MAX_CHECKED])) if images else None,
    )
    print(table(rows, args.level))
    size = os.path.getsize(args.output) / 1e6
    print(f"wrote {args.output}: {args.format}, level {args.level}, {size:.1f} MB")


def _description(cfg: Config, predictor: Predictor) -> dict[str, Any]:
    """What the weights say of themselves, with the config as it was changed here."""
    known = read_description(predictor.weights)
    cfg = copy.deepcopy(cfg)
    set_weights(cfg, "")
    now = describe(
        cfg,
        model=predictor.model,
        class_names=predictor.class_names or (),
        category_ids=predictor.category_ids or (),
    )
    if known is not None:
        metrics = {name: x for name, x in known.metrics.items() if math.isfinite(x)}  # JSON's
        now = dataclasses.replace(now, metrics=metrics, iteration=known.iteration)
    if not _is_finite(now.config):
        _warn("the file will carry no config, because the config has an inf or nan, and JSON none")
        now = dataclasses.replace(now, kind="", config=None)
    return now.plain()


def _is_finite(tree: Any) -> bool:
    """Whether all numbers in dicts and lists are."""
    if isinstance(tree, dict):
        return all(map(_is_finite, tree.values()))
    if isinstance(tree, list):
        return all(map(_is_finite, tree))
    return not isinstance(tree, float) or math.isfinite(tree)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _images(predictor: Predictor, paths: Sequence[str]) -> Iterator[Tensor]:
    """Batches of one image each."""
    for path in paths:
        image = read_image(path, predictor.read_format)
        yield predictor.preprocess(image)["image"][None]


@exit_on_mistake()
def main(argv: list[str] | None = None) -> int:
    run(parse_args(argv))
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.export
    sys.exit(main())
