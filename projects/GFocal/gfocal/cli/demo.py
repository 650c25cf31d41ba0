"""Draws a detector's boxes on images, and the distributions of their sides.

    python tools/demo.py --config-file C --weights model_final.pth --input DIR --output pictures

writes pictures/NAME_detections.png for each image, with --distributions also
NAME_distributions.png. With --sheet it writes one predictions.png (and distributions.png) for all
images. Configs are LazyConfigs (.py) or yacs configs (.yaml). Overrides (key=value) come last.
"""

import argparse
import os
import sys
from collections.abc import Callable

import numpy as np
from detectron2.structures import Instances
from tqdm import tqdm

from ..data import read_image
from ..data.images import find_images, output_names
from ..engine import Predictor, check_model, load_config
from ..inspect.distributions import detect_with_distributions
from ..inspect.gallery import PictureFiles, PictureSheet
from .common import complain, exit_on_mistake, make_parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--config-file", required=True, help=".py or .yaml")
    parser.add_argument("--weights", help="default: the weights that the config names")
    parser.add_argument("--input", required=True, nargs="+", help="files, folders or patterns")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--confidence", type=float, default=0.5, help="lowest score (default 0.5)")
    parser.add_argument("--distributions", action="store_true", help="draw box distributions too")
    parser.add_argument("--sheet", action="store_true", help="one picture for all images")
    parser.add_argument(
        "--fast",
        action="store_true",
        help="batch norm folded, channels_last, half precision where it is native",
    )
    parser.add_argument("--max-images", type=int, help="stop after so many images")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="overrides: key=value")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> list[str]:
    """Draws every image; returns a sentence for each that could not be read."""
    if args.max_images is not None and args.max_images < 1:
        raise ValueError(f"--max-images is {args.max_images}, expected at least 1")
    paths, names = _paths_and_names(args)
    cfg = load_config(args.config_file, args.opts)
    check_model(cfg)
    predictor = Predictor(cfg, args.weights, fast=args.fast)
    detect = _detector(predictor, args.distributions)
    _make_folder(args.output)
    kind = PictureSheet if args.sheet else PictureFiles
    pictures = kind(args.output, predictor.metadata, args.confidence, args.distributions)
    problems = []
    for path, name in zip(tqdm(paths, unit="image"), names):
        try:
            image = read_image(path, "BGR")
        except (FileNotFoundError, ValueError) as error:
            problems.append(str(error))
            continue
        pictures.add(name, np.ascontiguousarray(image[:, :, ::-1]), detect(image))
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
