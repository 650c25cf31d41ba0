"""Draws a detector's boxes on images, and the distributions that it read them from.

    python tools/demo.py --config-file C --weights model_final.pth --input DIR --output pictures

writes pictures/NAME_detections.png for each image, with --distributions also
NAME_distributions.png; with --sheet one predictions.png (and distributions.png) for all of them.
Takes LazyConfigs (.py) and yacs configs (.yaml); overrides (key=value) stand last.
"""

import argparse
import glob
import os
import sys

import numpy as np
from PIL import Image
from tqdm import tqdm

from gfocal.data import read_image
from gfocal.engine import Predictor, check_model, load_config
from gfocal.visualization import (
    detect_with_distributions,
    draw_box_distributions,
    draw_detections,
    draw_grid,
)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
ROWS, BOXES_A_ROW = 3, 3  # on a sheet of distributions


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    return parser.parse_args()


def find_images(inputs: list[str]) -> list[str]:
    """The image files that files, folders and patterns name, without repetition."""
    paths: dict[str, None] = {}
    for item in inputs:
        if os.path.isdir(item):
            found = sorted(os.path.join(item, name) for name in os.listdir(item))
            found = [path for path in found if path.lower().endswith(EXTENSIONS)]
        else:
            found = [item] if os.path.isfile(item) else sorted(glob.glob(item, recursive=True))
        if not found:
            raise FileNotFoundError(f"--input: no image matches {item!r}")
        paths.update(dict.fromkeys(found))
    return list(paths)


def output_names(paths: list[str]) -> list[str]:
    """A file name for each image: its own without the extension, which must not occur twice."""
    names = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    for name in names:
        if names.count(name) > 1:
            same = [path for path, other in zip(paths, names) if other == name]
            raise ValueError(f"--input: {', '.join(same)} would be written to the same picture")
    return names


def save(picture: np.ndarray, *path: str) -> None:
    Image.fromarray(picture).save(os.path.join(*path))


def run(args: argparse.Namespace) -> list[str]:
    """Draws every image; returns a message for each that could not be read."""
    if args.max_images is not None and args.max_images < 1:
        raise ValueError(f"--max-images is {args.max_images}, expected at least 1")
    paths = find_images(args.input)[: args.max_images]
    names = [os.path.basename(p) for p in paths] if args.sheet else output_names(paths)
    cfg = load_config(args.config_file, args.opts)
    check_model(cfg)
    predictor = Predictor(cfg, args.weights, fast=args.fast)
    try:
        os.makedirs(args.output, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"--output is {args.output!r}; expected a folder that is there or can be made "
            f"({error.strerror})"
        ) from error
    errors, titles, pictures, rows = [], [], [], []
    for path, name in zip(tqdm(paths, unit="image"), names):
        try:
            image = read_image(path, "BGR")
        except (FileNotFoundError, ValueError) as error:
            errors.append(str(error))
            continue
        if args.distributions:
            inputs = [predictor.preprocess(image)]
            instances = detect_with_distributions(predictor.model, inputs)[0]["instances"]
        else:
            instances = predictor(image)["instances"]
        image = np.ascontiguousarray(image[:, :, ::-1])
        drawing = (image, instances, predictor.metadata, args.confidence)
        picture = draw_detections(*drawing)
        if args.sheet:
            titles.append(name)
            pictures.append(picture)
            found = min(int((instances.scores >= args.confidence).sum()), BOXES_A_ROW)
            if args.distributions and found:
                rows.append((found, drawing))
        else:
            save(picture, args.output, f"{name}_detections.png")
            if args.distributions:
                save(draw_box_distributions(*drawing), args.output, f"{name}_distributions.png")
    if pictures:
        save(draw_grid(pictures, titles), args.output, "predictions.png")
    if rows:
        rows.sort(key=lambda row: -row[0])  # stable: the first images that fill a row
        best = [draw_box_distributions(*x, max_boxes=BOXES_A_ROW) for _, x in rows[:ROWS]]
        save(draw_grid(best, columns=1, cell_width=1200), args.output, "distributions.png")
    elif args.sheet and args.distributions:
        errors.append(f"no distributions.png: nothing scores at least {args.confidence}")
    return errors


if __name__ == "__main__":
    try:
        problems = run(parse_args())
    except (ValueError, TypeError, OSError, SyntaxError) as error:
        sys.exit(f"error: {error}")
    if problems:
        sys.exit("\n".join(f"error: {problem}" for problem in problems))
