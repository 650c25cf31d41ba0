"""Writes the detections of many images as COCO results.

    gfocal predict --weights model_final.pth --input photos/ --output results.json
    gfocal predict --weights W --input val.json --image-root images/ --output results.json
    gfocal predict --weights model.onnx --input photos/ --output results.json
    gfocal predict --weights W --input photos/ --output results.json --html page.html
    gfocal predict --config-file C --weights W --input 'a/*.jpg' b.png --output out.json --fast
    torchrun --nproc-per-node 8 -m gfocal predict --weights W --input photos/ --output results.json

The json is a list of {"image_id", "category_id", "bbox" (x, y, width, height in pixels), "score"}.
A detector that knows how sure it is also gives "bbox_std", the standard deviation of the left, top,
right and bottom side in pixels.
Image ids are those of the COCO json that --input names. For photos they count from 1 on, and
results.images.json tells the file of each id and the name of each category.

A prediction that was interrupted goes on with the same command. Images that cannot be read are
listed at the end, with exit status 1, and the others' detections are written.

--html also writes a page for a browser, one file: the boxes over the images, and for the box under
the pointer how sure the detector is of each of its sides.

A file of gfocal export --format onnx needs neither PyTorch nor Detectron2.
"""

import argparse
import os
import sys

from ..data.images import find_images
from ..data.listing import images_of_json
from ..engine.prediction import (
    ALONE,
    ImageFile,
    PredictionSettings,
    check_output,
    digest,
    digest_of_file,
    is_interrupted,
    predict_files,
)
from .common import (
    add_calibrated,
    add_fast,
    add_machines,
    add_model,
    add_overrides,
    check_model_arguments,
    complain,
    exit_on_mistake,
    make_parser,
    parse_arguments,
)
from .predict_page import PredictionPage, check_page
from .predicting import (
    add_reading,
    category_ids,
    check_reading,
    check_weights,
    give_distributions,
    run_of,
)


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
    add_reading(group)
    group = parser.add_argument_group("results")
    group.add_argument("--output", required=True, metavar="JSON", help="the file to write")
    group.add_argument("--html", metavar="PAGE", help="a page of the images to write, x.html")
    group.add_argument(
        "--html-images", type=int, default=200, metavar="N", help="on the page (default 200)"
    )
    group.add_argument(
        "--overwrite", action="store_true", help="replace --output and --html if they are there"
    )
    group.add_argument(
        "--confidence", type=float, default=0.0, metavar="SCORE", help="lowest (default: all)"
    )
    add_overrides(parser)
    add_machines(parser)
    args = parse_arguments(parser, argv)
    check_model_arguments(parser, args)
    check_weights(parser, args, argv)
    check_reading(parser, args)
    if not 0 <= args.confidence <= 1:
        parser.error(f"--confidence is {args.confidence}; expected a score from 0 to 1")
    if args.html_images < 1:
        parser.error(f"--html-images is {args.html_images}; expected at least 1")
    return args


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
    predictor, config, options = run_of(args)
    ids = category_ids(predictor, categories, args.input[0])
    settings = PredictionSettings(
        weights=digest_of_file(predictor.weights),
        config=config,
        images=digest(*(f"{image.id} {image.path}" for image in images)),
        batch_size=args.batch_size,
        confidence=args.confidence,
        fast=args.fast,
        category_ids=ids,
        calibrated=args.calibrated,
        distributions=args.html is not None,
    )
    check_output(args.output, args.overwrite)
    names = predictor.class_names or [str(index) for index in ids]
    rows = [{"id": index, "name": name} for index, name in zip(ids, names)]
    page = None
    if args.html is not None:
        check_page(args.html, args.overwrite or is_interrupted(args.output))
        give_distributions(predictor)
        names_of_ids = dict(categories or zip(ids, names))
        page = PredictionPage(args.html, args.html_images, names_of_ids, predictor.read_format)
    problems = predict_files(
        predictor,
        images,
        args.output,
        settings,
        categories=rows if categories is None else None,
        num_workers=args.workers,
        each=page.add if page else None,
        **options,
    )
    if page and options.get("share", ALONE).rank == 0:
        print(page.write(f"Detections of {os.path.basename(predictor.weights)}"))
    return problems


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
