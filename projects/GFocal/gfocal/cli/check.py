"""Looks at the datasets of a config before a training: every record, and every image's header.

    gfocal check --config-file quick_start/custom_coco.py data.train_json=train.json \\
        data.train_images=images/train data.val_json=val.json data.val_images=images/val

It prints one table of what is missing, cut off, turned by EXIF, of another size or in another
format, with examples, and what on_invalid=drop would leave out. The exit status is 1 if a training
would refuse a dataset, else 0. Nothing is changed.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Iterator

from detectron2.config import CfgNode, instantiate
from omegaconf import OmegaConf
from tabulate import tabulate

from ..config import Config, model_zoo
from ..data.coco import dataset_names, survey_dataset
from ..data.defects import Defects
from ..engine import check_config, load_config
from .common import MISTAKES, add_overrides, exit_on_mistake, make_parser, parse_arguments

_WIDTH = 72  # of the last column


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--config-file", required=True, metavar="C", help="file, or name of the zoo"
    )
    add_overrides(parser)
    return parse_arguments(parser, argv)


@exit_on_mistake()
def run(args: argparse.Namespace) -> int:
    """Prints the table; returns the exit status."""
    cfg = load_config(model_zoo.find_config(args.config_file), args.opts)
    check_config(cfg)
    surveys = list(_surveys(cfg))
    if not surveys:
        raise ValueError("the config names no dataset")
    image_format = _image_format(cfg)
    rows = [row for survey in surveys for row in _rows(survey, image_format)]
    print(tabulate(rows, ["dataset", "", "count", "what", "for example"], "simple"))
    for survey in surveys:
        if survey.on_invalid and (summary := survey.summary()):
            leaves = "leaves" if survey.on_invalid == "drop" else "would leave"
            print(f"\n{survey.name}: on_invalid=drop {leaves} out {summary}")
    failed = sum(survey.refused for survey in surveys)
    print(f"\n{len(surveys)} datasets looked at, {failed} with errors")
    return int(failed > 0)


def _surveys(cfg: Config) -> Iterator[Defects]:
    """What is wrong with each dataset. One that cannot be read at all has an error that says so."""
    for key, names, check, masks in _keys(cfg):
        try:
            found: Iterable[str] = dataset_names(instantiate(names) or [])
        except MISTAKES as error:
            yield _unreadable(key, error)
            continue
        for name in found:
            try:
                yield survey_dataset(name, check, masks)
            except MISTAKES as error:
                yield _unreadable(name, error)


def _keys(cfg: Config) -> list[tuple[str, object, bool, bool]]:
    """Of each split the key of the names, the names, whether a training looks at the files, and
    whether it asks for masks."""
    if isinstance(cfg, CfgNode):
        check = cfg.DATASETS.get("CHECK", True)
        masks = cfg.MODEL.MASK_ON
        return [
            (f"DATASETS.{split}", cfg.DATASETS[split], check, masks) for split in ("TRAIN", "TEST")
        ]
    datasets = [f"dataloader.{split}.dataset" for split in ("train", "test")]
    return [
        (
            f"{key}.names",
            OmegaConf.select(cfg, f"{key}.names", default=None),
            OmegaConf.select(cfg, f"{key}.check", default=True),
            OmegaConf.select(cfg, f"{key}.masks", default=False),
        )
        for key in datasets
    ]


def _unreadable(name: str, error: Exception) -> Defects:
    defects = Defects(name)
    defects.errors.append(str(error))
    return defects


def _image_format(cfg: Config) -> str:
    if isinstance(cfg, CfgNode):
        return cfg.INPUT.FORMAT
    return OmegaConf.select(cfg, "model.input_format", default=None) or ""


def _rows(survey: Defects, image_format: str) -> Iterator[list[str]]:
    sizes = f"{survey.num_images} images, {survey.num_annotations} annotations"
    yield [survey.name, "", "", sizes, ""]
    for finding in survey.findings():
        level = "error" if finding.is_error else "warning"
        count = str(finding.number or "")
        examples = [_wrapped(example) for example in finding.examples] or [""]
        yield ["", level, count, _wrapped(f"{finding.reason}", 48), examples[0]]
        for example in examples[1:]:
            yield ["", "", "", "", example]
    expected = "L" if image_format == "L" else "RGB"
    if others := {mode: n for mode, n in survey.modes.items() if mode != expected}:
        text = ", ".join(f"{n} {mode}" for mode, n in sorted(others.items()))
        yield ["", "note", str(sum(others.values())), f"other pixels: {text}", "are converted"]


def _wrapped(text: str, width: int = _WIDTH) -> str:
    return "\n".join(textwrap.wrap(text, width, break_long_words=False))


def main(argv: list[str] | None = None) -> int:
    return run(parse_args(argv))


if __name__ == "__main__":  # python -m gfocal.cli.check
    sys.exit(main())
