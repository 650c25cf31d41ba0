"""Draws a detector's boxes on images, and the distributions of their sides.

    gfocal demo --weights output/mine/model_final.pth --input photos/ --output pictures
    gfocal demo --weights W --input 'a/*.jpg' b.png --output pictures --distributions
    gfocal demo --config-file C --weights W --input photos/ --output pictures --sheet --max-images 9

writes pictures/NAME_detections.png for each image, with --distributions also
NAME_distributions.png. With --sheet it writes one predictions.png (and distributions.png) for all
images. Weights that a training left need no config. C is a file, or a name of the package's
configs (gfocal zoo lists them).
"""

import argparse
import os
import sys
from collections.abc import Callable

import numpy as np
from detectron2.structures import Instances
from tqdm import tqdm

from ..data import read_image
from ..data.images import as_rgb, find_images, output_names
from ..engine import Predictor
from ..inspect.distributions import detect_with_distributions
from ..inspect.gallery import PictureFiles, PictureSheet
from .common import (
    add_model,
    add_overrides,
    check_model_arguments,
    complain,
    exit_on_mistake,
    make_parser,
    parse_arguments,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("detector")
    add_model(group)
    group.add_argument(
        "--fast",
        action="store_true",
        help="batch norm folded, channels_last, half precision where it is native",
    )
    group = parser.add_argument_group("images")
    group.add_argument(
        "--input", required=True, nargs="+", metavar="PATH", help="files, folders or patterns"
    )
    group.add_argument("--max-images", type=int, metavar="N", help="stop after so many")
    group = parser.add_argument_group("pictures")
    group.add_argument("--output", required=True, metavar="DIR", help="folder for the pictures")
    group.add_argument(
        "--confidence", type=float, default=0.5, metavar="SCORE", help="lowest (default 0.5)"
    )
    group.add_argument("--distributions", action="store_true", help="draw box distributions too")
    group.add_argument("--sheet", action="store_true", help="one picture for all images")
    add_overrides(parser)
    args = parse_arguments(parser, argv)
    check_model_arguments(parser, args)
    return args


def run(args: argparse.Namespace) -> list[str]:
    """Draws every image; returns a sentence for each that could not be read."""
    if args.max_images is not None and args.max_images < 1:
        raise ValueError(f"--max-images is {args.max_images}, expected at least 1")
    paths, names = _paths_and_names(args)
    predictor = Predictor(
        args.config_file or args.weights,
        args.weights if args.config_file else None,
        fast=args.fast,
        overrides=args.opts,
        trusted_packages=args.trust,
    )
    detect = _detector(predictor, args.distributions)
    _make_folder(args.output)
    kind = PictureSheet if args.sheet else PictureFiles
    pictures = kind(args.output, predictor.metadata, args.confidence, args.distributions)
    problems = []
    for path, name in zip(tqdm(paths, unit="image"), names):
        try:
            image = read_image(path, predictor.read_format)
        except (FileNotFoundError, ValueError) as error:
            problems.append(str(error))
            continue
        pictures.add(name, as_rgb(image, predictor.read_format), detect(image))
    return problems + pictures.close()


def _paths_and_names(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The image files, and a name for the picture of each."""
    try:
        paths = find_images(args.input)[: args.max_images]
        names = [os.path.basename(p) for p in paths] if args.sheet else output_names(paths)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--input: {error}") from error
    except ValueError as error:
        raise ValueError(f"--input: {error}") from error
    return paths, names


def _detector(predictor: Predictor, distributions: bool) -> Callable[[np.ndarray], Instances]:
    """A function from an image (H, W, 3), BGR, to its detections, with or without distributions."""

    if distributions and predictor.augmented is not None:
        raise ValueError("--distributions has no test-time augmentation; switch that off")

    def detect(image: np.ndarray) -> Instances:
        if not distributions:
            return predictor(image)["instances"]
        inputs = [predictor.preprocess(image)]
        return detect_with_distributions(predictor.model, inputs)[0]["instances"]

    return detect


def _make_folder(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"--output is {path!r}; expected a folder that is there or can be made "
            f"({error.strerror})"
        ) from error


@exit_on_mistake()
def main(argv: list[str] | None = None) -> int:
    return complain(run(parse_args(argv)))


if __name__ == "__main__":  # python -m gfocal.cli.demo
    sys.exit(main())
