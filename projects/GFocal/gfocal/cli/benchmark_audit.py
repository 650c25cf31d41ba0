"""Measures how well gfocal audit finds mistakes that were put into annotations on purpose.

    python tools/benchmark_audit.py inject --annotations instances.json --output injected/
    gfocal audit --folds 2 --config-file C --annotations injected/instances.json --images images/ \\
        --output audit/
    python tools/benchmark_audit.py measure --annotations injected/instances.json \\
        --truth injected/truth.json --predictions audit/predictions.json

The table has AUROC and precision among the 100 highest scores, for each kind of mistake, of gfocal
audit with and without standard deviations, IoU alone, score alone, and ObjectLab (where cleanlab is
installed).
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

# benchmarks/ at the top of the checkout: setup.py ships it as gfocal.benchmarks.
from ..benchmarks.audit import METHODS, AuditedImage, Row, measure
from ..benchmarks.injection import KINDS, inject
from ..inspect.audit import Audit, read_labels
from .common import exit_on_mistake, make_parser, parse_arguments


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("task", choices=["inject", "measure"])
    parser.add_argument("--annotations", required=True, metavar="JSON", help="in COCO format")
    group = parser.add_argument_group("inject")
    group.add_argument("--output", metavar="DIR", help="for instances.json and truth.json")
    group.add_argument("--fraction", type=float, default=0.1, help="of the boxes (default 0.1)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="(default 0)")
    group = parser.add_argument_group("measure")
    group.add_argument("--truth", metavar="JSON", help="what was put in")
    group.add_argument("--predictions", nargs="+", metavar="JSON", help="of gfocal audit")
    args = parse_arguments(parser, argv)
    needed = ["output"] if args.task == "inject" else ["truth", "predictions"]
    for name in needed:
        if not getattr(args, name):
            parser.error(f"{args.task} expects --{name}")
    if not 0 < args.fraction <= 1:
        parser.error(f"--fraction is {args.fraction}; expected more than 0, at most 1")
    return args


def put_in(args: argparse.Namespace) -> None:
    """Writes the annotations with mistakes, and what they are."""
    dataset, found = inject(read_labels(args.annotations).document, args.fraction, args.seed)
    os.makedirs(args.output, exist_ok=True)
    truth = [x._asdict() for x in found]
    for name, data in (("instances.json", dataset), ("truth.json", truth)):
        with open(os.path.join(args.output, name), "w") as file:
            json.dump(data, file)
    print(f"{args.output}: {len(found)} mistakes in {len(dataset['annotations'])} annotations")


def table(args: argparse.Namespace) -> str:
    """The measurements, as a table of Markdown.

    Raises:
        OSError, ValueError: a file is not there, or not what it should be.
    """
    detections: dict[Any, list[dict[str, Any]]] = {}
    for path in args.predictions:
        with open(path) as file:
            for row in json.load(file):
                detections.setdefault(row["image_id"], []).append(row)
    with open(args.truth) as file:
        truth = json.load(file)
    audit = _audit(args.annotations, detections)
    images = [_image(audit, image_id, detections) for image_id in audit.labels.files]
    rows = {"gfocal audit": measure(images, truth, _scores(audit))}
    if audit.has_stds:
        bare = {
            key: [{k: v for k, v in x.items() if k != "bbox_std"} for x in found]
            for key, found in detections.items()
        }
        scores = _scores(_audit(args.annotations, bare))
        rows["gfocal audit without standard deviations"] = measure(images, truth, scores)
    for name, method in METHODS.items():
        try:
            rows[name] = measure(images, truth, method(images))
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return _markdown(rows)


def _audit(annotations: str, detections: Mapping[Any, list[dict[str, Any]]]) -> Audit:
    audit = Audit(read_labels(annotations))
    for image_id in audit.labels.files:
        audit.add(image_id, {"detections": detections.get(image_id, [])})
    return audit


def _scores(audit: Audit) -> dict[str, list[np.ndarray]]:
    judged = [x for _, x in audit.judged()]
    return {kind: [getattr(x, kind) for x in judged] for kind in KINDS}


def _image(
    audit: Audit, image_id: Any, detections: Mapping[Any, list[dict[str, Any]]]
) -> AuditedImage:
    labels, seen = audit.labels, audit.seen(image_id)
    found = detections.get(image_id, [])
    boxes = np.array([x["bbox"] for x in found], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return AuditedImage(
        image_id,
        [record["id"] for record in labels.records(image_id)],
        seen.annotated.boxes,
        seen.annotated.classes,
        boxes,
        np.array([labels.category_ids.index(x["category_id"]) for x in found], int),
        np.array([x["score"] for x in found], float),
        seen.objects.detections,
    )


def _markdown(rows: Mapping[str, Mapping[str, Row]]) -> str:
    first = next(iter(rows.values()))
    heads = [f"{kind} ({first[kind].positives})" for kind in KINDS]
    lines = [f"| AUROC, precision@100 | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, row in rows.items():
        cells = [
            f"{row[kind].auroc:.3f}, {row[kind].precision:.2f}" if kind in row else "none"
            for kind in KINDS
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


@exit_on_mistake()
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.task == "inject":
        put_in(args)
    else:
        print(table(args))
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.benchmark_audit
    sys.exit(main())
