"""Lists the models of the zoo: their configs, the published AP, where their weights are.

    gfocal zoo
    gfocal zoo gflv2_R_50
    gfocal zoo --all

A config's name can be given to --config-file of the other verbs. With NAME, each model whose name
has it is shown with its official weights and the commands that use them. --all also lists the
configs of the papers' ablations.
"""

import argparse
import sys
from collections.abc import Sequence

from ..config import model_zoo
from ..config.published import PUBLISHED, PublishedModel
from .common import exit_on_mistake, make_parser, parse_arguments

FOLDER = "COCO-Detection/"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("name", metavar="NAME", nargs="?", help="part of a model's name")
    parser.add_argument("--all", action="store_true", help="list every config of the package")
    args = parse_arguments(parser, argv)
    if args.name and args.all:
        parser.error("expected NAME or --all, not both")
    return args


def run(args: argparse.Namespace) -> None:
    if args.name:
        _show(_matching(args.name))
    else:
        _list(args.all)


def _list(everything: bool) -> None:
    """The table of models, and the names of the other configs."""
    configs = model_zoo.list_configs()
    print(f"{'config':<52}  AP    parameters  whose AP")
    for name, model in PUBLISHED.items():
        config = f"{FOLDER}{name}.py"
        note = " (.yaml too)" if f"{FOLDER}{name}.yaml" in configs else ""
        parameters = f"{model.parameters:.2f} M"
        print(f"{config + note:<52}  {model.ap}  {parameters:<10}  {_whose(model)}")
    print(
        "\nAP is on COCO val2017; none was measured here.\n"
        "Official weights, and the commands that use them: gfocal zoo NAME\n"
    )
    others = [name for name in model_zoo.list_all_configs() if name not in configs]
    shown = [name for name in others if everything or not name.startswith("ablations/")]
    print("Other configs:", *shown, sep="\n  ")
    if hidden := len(others) - len(shown):
        print(f"  ... and {hidden} of the papers' ablations: gfocal zoo --all")


def _whose(model: PublishedModel) -> str:
    return f"{model.whose}, {model.tested}" if model.tested else model.whose


def _matching(name: str) -> Sequence[str]:
    """The models that a user's text names, as it is written in any config's name."""
    part = name.removeprefix("configs/").removeprefix(FOLDER)
    for suffix in (".py", ".yaml"):
        part = part.removesuffix(suffix)
    found = [part] if part in PUBLISHED else [model for model in PUBLISHED if part in model]
    if not found:
        raise ValueError(f"no model of the zoo has {name!r} in its name; gfocal zoo lists them")
    return found


def _show(names: Sequence[str]) -> None:
    for name in names:
        model = PUBLISHED[name]
        config = f"{FOLDER}{name}.py"
        print(
            f"{name}\n"
            f"  config      {config}\n"
            f"              in {model_zoo.get_config_file(config)}\n"
            f"  AP          {model.ap} on COCO val2017, by {_whose(model)}; not measured here\n"
            f"  parameters  {model.parameters} M\n"
            f"  weights     {model.weights}\n"
            f"  convert     gfocal convert DOWNLOADED.pth {name}.pth\n"
            f"  evaluate    gfocal eval --config-file {config} --weights {name}.pth\n"
            f"  pictures    gfocal demo --config-file {config} --weights {name}.pth "
            "--input photos/ --output pictures\n"
            f"  train       gfocal train --config-file {config}\n"
        )


@exit_on_mistake()
def main(argv: list[str] | None = None) -> int:
    run(parse_args(argv))
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.zoo
    sys.exit(main())
