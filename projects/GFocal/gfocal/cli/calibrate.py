"""Finds what scores and standard deviations of a detector mean, on a validation set.

    gfocal calibrate --weights model_final.pth --output calibrated.pth
    gfocal calibrate --weights W --output W2 data.val_json=val.json data.val_images=images/
    gfocal predict --weights calibrated.pth --calibrated --input photos/ --output results.json

A score becomes the IoU that is expected of the detection (0 if it is wrong), and a standard
deviation such that intervals cover what they say. Half of the images of the config's test dataset
are fitted, the others judge: the table says how good it is on them. Then all are fitted. Use images
that the weights were not trained on. The output is the weights with the calibration beside them.
Nothing changes before --calibrated switches it on (gfocal predict, eval and export;
Predictor(..., calibrated=True)).
"""

import argparse
import os
import sys
from typing import Any

import numpy as np
from detectron2.utils.logger import setup_logger

from ..config import check_config, config_settings, set_device
from ..engine.classes import test_names
from ..engine.trainer import trainer_class
from ..inspect.calibrating import Row, calibrate
from ..inspect.reliability import DetectionReliabilityEvaluator
from ..modeling.quality import localization_iou
from ..modeling.score_maps import QualityFocal
from ..modeling.terms import ScoreLoss
from ..weights.checkpointers import StrictCheckpointer
from ..weights.description import KEY, describe, find_config
from ..weights.reading import load_weights_only
from ..weights.writing import write_checkpoint
from .common import (
    add_model,
    add_overrides,
    check_model_arguments,
    exit_on_mistake,
    make_parser,
    parse_arguments,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_model(parser.add_argument_group("detector"))
    group = parser.add_argument_group("calibration")
    group.add_argument("--output", required=True, metavar="FILE", help="the weights with it, .pth")
    group.add_argument("--overwrite", action="store_true", help="replace --output if it is there")
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which images are fitted (default 0)"
    )
    group.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    add_overrides(parser)
    args = parse_arguments(parser, argv)
    check_model_arguments(parser, args)
    if not args.output.endswith(".pth"):
        parser.error(f"--output is {args.output!r}; it must end in .pth, as Detectron2 knows it")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; expected a number from 0 on")
    return args


def run(args: argparse.Namespace) -> None:
    if os.path.lexists(args.output) and not args.overwrite:
        raise FileExistsError(
            f"--output is {args.output!r}, which is there; --overwrite replaces it"
        )
    cfg, _ = find_config(args.config_file, args.weights, args.opts, args.trust)
    check_config(cfg)
    if args.cpu:
        set_device(cfg, "cpu")
    setup_logger(name="gfocal")
    trainer = trainer_class(cfg)
    names = test_names(cfg)
    if len(names) != 1:
        raise ValueError(
            f"the config has the test datasets {names}; expected one to calibrate on "
            "(dataloader.test.dataset.names, DATASETS.TEST; data.val_json of custom_coco.py)"
        )
    model = trainer.build_model(cfg)
    if not hasattr(getattr(model, "postprocess", None), "calibration"):
        raise TypeError(
            f"a {type(model).__name__} cannot be calibrated; detectors with an NMSPostProcess can"
        )
    weights = config_settings(cfg).weights
    StrictCheckpointer(model).load(weights)
    evaluator = DetectionReliabilityEvaluator(names[0])
    trainer.test(cfg, model, [evaluator])
    fitted, judged = _halves(evaluator.image_ids, args.seed)
    calibration, rows = calibrate(
        evaluator.evidence(fitted),
        evaluator.evidence(judged),
        evaluator.evidence(evaluator.image_ids),
        _beta_of(model),
    )
    print(_table(rows, len(fitted), len(judged)))
    table = {row.name: [row.fitted, row.judged] for row in rows}
    about = {"dataset": names[0], "images": len(fitted), "judged_on": len(judged), "table": table}
    checkpoint = load_weights_only(weights)
    known = checkpoint.get(KEY) or describe(cfg, model=model).plain()
    plain = {**calibration.plain(), "fitted_on": about}
    write_checkpoint({**checkpoint, KEY: {**known, "calibration": plain}}, args.output)
    has_stds = any(row.name.startswith("coverage") for row in rows)
    stds = (
        f"standard deviations times {calibration.std_scale:.3f}"
        if has_stds
        else "no standard deviations"
    )
    print(f"wrote {args.output}: scores {calibration.method}, {stds}. --calibrated switches it on")


def _halves(image_ids: list[Any], seed: int) -> tuple[list[Any], list[Any]]:
    """Image ids to fit, and to judge.

    Raises:
        ValueError: there are not two images.
    """
    if len(image_ids) < 2:
        raise ValueError(f"{len(image_ids)} images to calibrate on; expected at least 2")
    order = np.random.default_rng(seed).permutation(len(image_ids))
    half = len(image_ids) // 2
    return [image_ids[i] for i in order[:half]], [image_ids[i] for i in order[half:]]


def _beta_of(model: Any) -> float | None:
    """beta of the QFL that trains the scores; None of another loss."""
    loss = getattr(getattr(model, "criterion", None), "cls_loss", None)
    if not isinstance(loss, ScoreLoss) or loss.measure is not localization_iou:
        return None
    return loss.maps.beta if isinstance(loss.maps, QualityFocal) else None


def _table(rows: list[Row], fitted: int, judged: int) -> str:
    width = max(len(row.name) for row in rows)
    head = f"{'':{width}}  {fitted} images fitted  {judged} other images"
    lines = [f"{row.name:{width}}  {row.fitted:>13.4f}  {row.judged:>12.4f}" for row in rows]
    return "\n".join([head, *lines])


@exit_on_mistake()
def main(argv: list[str] | None = None) -> int:
    run(parse_args(argv))
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.calibrate
    sys.exit(main())
