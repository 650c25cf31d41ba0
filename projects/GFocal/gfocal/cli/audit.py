"""Looks for mistakes in the annotations of a dataset, with a detector that was not trained on them.

    gfocal audit --weights W --annotations instances.json --images images/ --output audit/
    gfocal audit --folds 3 --config-file quick_start/custom_coco.py --annotations instances.json \\
        --images images/ --output audit/ train.max_iter=3000
    gfocal audit --annotations instances.json --output audit/ --decisions decisions.json

A finding is a missing, spurious or duplicate annotation, a wrong class, or a side that lies
elsewhere. It has a score from 0 to 1 and a sentence. In the output folder are

    audit.html        look at the findings, accept or reject them, download decisions.json
    audit.json        all findings
    cleaned.json      the annotations with the suggestions of a score above --threshold applied, or,
                      with --decisions, the accepted ones
    predictions.json  what the detector found

The annotations stay as they are. --folds K splits the images into K parts. For each part it trains
the config on the others (its keys are data.train_json and so on), so that no image is judged by a
detector that knows its mistakes.

An audit that was interrupted goes on with the same command. Images that cannot be read are listed
at the end, with exit status 1, and the others are audited.
"""

import argparse
import json
import os
import sys
from typing import Any

from ..data.listing import images_of_json
from ..engine.prediction import (
    ImageFile,
    PredictionSettings,
    check_output,
    digest,
    digest_of_file,
    predict_files,
)
from ..inspect.audit import Audit, accepted, cleaned, page_items, read_labels, surest
from ..inspect.page import write_page
from .common import (
    add_fast,
    add_machines,
    add_model,
    add_overrides,
    check_machines,
    complain,
    exit_on_mistake,
    given_options,
    make_parser,
    parse_arguments,
)
from .predicting import (
    add_reading,
    category_ids,
    check_reading,
    check_weights,
    give_distributions,
    run_of,
)

CONFIDENCE = 0.01  # low scores tell what the detector holds for possible


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("detector")
    add_model(group)
    add_fast(group)
    group.add_argument(
        "--folds", type=int, metavar="K", help="train --config-file K times, instead of --weights"
    )
    group = parser.add_argument_group("annotations")
    group.add_argument("--annotations", required=True, metavar="JSON", help="in COCO format")
    group.add_argument("--images", metavar="DIR", help="of the json's file names")
    add_reading(group)
    group = parser.add_argument_group("results")
    group.add_argument("--output", required=True, metavar="DIR", help="the folder to write")
    group.add_argument("--overwrite", action="store_true", help="replace the audit that is there")
    group.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="SCORE",
        help="from which suggestions go into cleaned.json (default 0.5)",
    )
    group.add_argument(
        "--max-findings", type=int, default=500, metavar="N", help="on the page (default 500)"
    )
    group.add_argument(
        "--decisions", metavar="JSON", help="of audit.html: write cleaned.json, and nothing else"
    )
    add_overrides(parser)
    add_machines(parser)
    args = parse_arguments(parser, argv)
    _check(parser, args, argv)
    return args


def _check(
    parser: argparse.ArgumentParser, args: argparse.Namespace, argv: list[str] | None
) -> None:
    """Ends the command if options contradict each other or are out of range."""
    args.calibrated, args.is_onnx = False, False
    if args.decisions:
        wrong = given_options(parser, argv) - {
            *("--annotations", "--output", "--decisions", "--overwrite")
        }
        if wrong or args.opts:
            parser.error(f"--decisions takes no {', '.join([*sorted(wrong), *args.opts])}")
        return
    if not args.images:
        parser.error("expected --images, the folder of the json's file names")
    if args.folds is not None:
        if args.folds < 2:
            parser.error(f"--folds is {args.folds}; expected at least 2")
        if args.weights or not args.config_file:
            parser.error("--folds trains: expected --config-file, and no --weights")
        if args.num_machines > 1 or "TORCHELASTIC_RUN_ID" in os.environ:
            parser.error("--folds starts trainings on this machine, by itself")
        check_machines(parser, args)
    elif not args.weights:
        parser.error("expected --weights, or --folds K with --config-file")
    else:
        check_weights(parser, args, argv)
    check_reading(parser, args)
    if not 0 <= args.threshold <= 1:
        parser.error(f"--threshold is {args.threshold}; expected a score from 0 to 1")
    if args.max_findings < 0:
        parser.error(f"--max-findings is {args.max_findings}; expected at least 0")


def run(args: argparse.Namespace) -> None:
    """One process of the command.

    Raises:
        SystemExit: with status 1 and a line for each mistake or image that could not be read.
    """
    with exit_on_mistake():
        problems = _audit(args)
    if complain(problems):
        sys.exit(1)


def _audit(args: argparse.Namespace) -> list[str]:
    labels = read_labels(args.annotations)
    found, categories = images_of_json(args.annotations, args.images, "--images")
    images = [ImageFile(*image) for image in found]
    audit = Audit(labels)
    problems: list[str] = []
    outputs = []
    for weights, fold in args.folds_of:
        args.weights = weights
        part = images if fold is None else [x for x in images if x.id in fold.image_ids]
        output = os.path.join(args.output if fold is None else fold.folder, "predictions.json")
        problems += _predict(args, audit, part, categories, output)
        outputs.append(output)
    if len(audit):  # on the main process
        if args.folds:
            _join(outputs, os.path.join(args.output, "predictions.json"))
        _write(args, audit, dict(found))
    elif not images:
        raise ValueError(f"{args.annotations} has no images")
    return problems


def _predict(
    args: argparse.Namespace,
    audit: Audit,
    images: list[ImageFile],
    categories: list[tuple[int, str]],
    output: str,
) -> list[str]:
    """Adds images to the audit, on the main process. Returns what could not be read."""
    predictor, config, options = run_of(args)
    _look_closely(predictor)
    settings = PredictionSettings(
        weights=digest_of_file(predictor.weights),
        config=config,
        images=digest(*(f"{image.id} {image.path}" for image in images)),
        batch_size=args.batch_size,
        confidence=CONFIDENCE,
        fast=args.fast,
        category_ids=category_ids(predictor, categories, args.annotations),
        distributions=True,
    )
    check_output(output, overwrite=True)
    return predict_files(
        predictor,
        images,
        output,
        settings,
        num_workers=args.workers,
        each=lambda image, record: audit.add(image.id, record),
        **options,
    )


def _look_closely(predictor: Any) -> None:
    """Lets a detector of this package give low scores and distributions, where it has them."""
    give_distributions(predictor)
    part: Any = getattr(getattr(predictor, "model", None), "postprocess", None)
    if hasattr(part, "distributions"):
        part.score_thresh = CONFIDENCE


def _join(paths: list[str], output: str) -> None:
    """One list of detections of several."""
    rows: list[Any] = []
    for path in paths:
        with open(path) as file:
            rows += json.load(file)
    _write_json(output, rows)


def _write(args: argparse.Namespace, audit: Audit, paths: dict[Any, str]) -> None:
    findings = audit.findings()
    settings = {
        "annotations": args.annotations,
        "annotations_digest": digest_of_file(args.annotations),
        "weights": [weights for weights, _ in args.folds_of],
        "confidence": CONFIDENCE,
        "threshold": args.threshold,
    }
    report = audit.report(findings, settings)
    _write_json(os.path.join(args.output, "audit.json"), report)
    sure = [x for x in report["findings"] if x["score"] >= args.threshold]
    _write_json(os.path.join(args.output, "cleaned.json"), cleaned(audit.labels.document, sure))
    shown = surest(findings, args.max_findings)
    write_page(
        os.path.join(args.output, "audit.html"),
        page_items(audit, shown, paths.__getitem__),
        title=f"Audit of {os.path.basename(args.annotations)}",
        note=f"The surest {len(shown)} of {len(findings)} findings in {len(audit)} images, the "
        "kinds in turn.",
    )
    counts = ", ".join(f"{count} {kind}" for kind, count in report["counts"].items())
    print(f"{len(findings)} findings in {len(audit)} images: {counts}")
    print(f"{len(sure)} of them have a score of {args.threshold} or more: see cleaned.json")
    print(f"look at {os.path.join(args.output, 'audit.html')}")


@exit_on_mistake()
def _decide(args: argparse.Namespace) -> None:
    """cleaned.json of what a person accepted."""
    path = os.path.join(args.output, "audit.json")
    report, decisions = _read_json(path), _read_json(args.decisions)
    try:
        known, _ = report["settings"], report["findings"]
        before = known["annotations_digest"]
    except (KeyError, TypeError):
        raise ValueError(f"{path} is no audit.json of gfocal audit") from None
    if before != digest_of_file(args.annotations):
        raise ValueError(
            f"{args.annotations} is not what was audited ({known.get('annotations')}), or it has "
            "changed since"
        )
    try:
        chosen = accepted(report, decisions)
    except ValueError as error:
        raise ValueError(f"{args.decisions}: {error}") from error
    output = os.path.join(args.output, "cleaned.json")
    _write_json(output, cleaned(read_labels(args.annotations).document, chosen))
    print(f"{output}: {len(chosen)} findings applied")


def _read_json(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is no json ({error})") from error


def _write_json(path: str, data: Any) -> None:
    """A file that is there only when all of it is written."""
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        file.write(json.dumps(data))  # several times as fast as json.dump
    os.replace(f"{path}.part", path)


@exit_on_mistake()
def _prepare(args: argparse.Namespace) -> None:
    """Refuses to replace an audit, and sets ``folds_of``: (weights, fold or None) of each run."""
    if os.path.exists(args.output) and not os.path.isdir(args.output):
        raise NotADirectoryError(f"--output is {args.output!r}, a file; expected a folder")
    path = os.path.join(args.output, "audit.json")
    if os.path.exists(path) and not (args.overwrite or _is_unfinished(args.output)):
        raise FileExistsError(
            f"--output is {args.output!r}, which has an audit; --overwrite replaces it"
        )
    read_labels(args.annotations)  # what is wrong with it is told before a training
    args.folds_of = [(args.weights, None)]
    if args.folds:
        from .folding import train_folds

        images_of_json(args.annotations, args.images, "--images")
        args.folds_of = train_folds(args)
        args.config_file, args.opts = None, []  # the weights carry them


def _is_unfinished(folder: str) -> bool:
    """Whether images were left out, which could not be read."""
    return any(
        ".part" in name and name.endswith(".jsonl")
        for _, _, names in os.walk(folder)
        for name in names
    )


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.decisions:
        _decide(args)
        return 0
    _prepare(args)
    if args.is_onnx:
        run(args)
        return 0
    from ..engine import launch

    launch(run, args)
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.audit
    sys.exit(main())
