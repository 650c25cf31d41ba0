"""The command `gfocal VERB ...`: a verb is a module of this folder, imported when it is called."""

import difflib
import importlib
import sys
from typing import NamedTuple

from .._installed import MissingPackageError, absent, names_of_absent, needs
from .._version import __version__

__all__ = ["VERBS", "Verb", "main"]


class Verb(NamedTuple):
    """A verb: its module in :mod:`gfocal.cli`, and what it does."""

    module: str
    description: str


VERBS = {
    "train": Verb("train", "train a detector"),
    "eval": Verb("evaluate", "evaluate weights: the table of AP"),
    "predict": Verb("predict", "write the detections of many images as a json"),
    "audit": Verb("audit", "look for mistakes in annotations: classes, sides, missing ones"),
    "demo": Verb("demo", "draw the detections on images, with their distributions"),
    "calibrate": Verb("calibrate", "find what scores and standard deviations mean"),
    "export": Verb("export", "write a detector as ONNX, TorchScript or torch.export"),
    "check": Verb("check", "look at a dataset before training: files, boxes, names"),
    "zoo": Verb("zoo", "list the models and their weights"),
    "convert": Verb("convert", "convert weights of GFocalV2 or mmdetection, or back"),
    "analyze": Verb("analyze", "count parameters and FLOPs"),
    "benchmark": Verb("benchmark", "time the package beside the straightforward formulation"),
    "ablate": Verb("ablate", "train the rows of one of the papers' ablation tables"),
}
FIRST = """\
A first detector, on generated pictures, takes minutes on a CPU:

    gfocal train --config-file quick_start/shapes_gflv2.py

Your own pictures, in COCO format:

    gfocal train --config-file quick_start/custom_coco.py \\
        data.train_json=train.json data.train_images=images/train \\
        data.val_json=val.json data.val_images=images/val
"""
HELP = """\
usage: gfocal VERB [ARGUMENTS]
       gfocal VERB --help
       gfocal --version

Generalized Focal Loss, v1 and v2, for Detectron2: trains detectors of objects, evaluates them and
applies them to images.

verbs:
{verbs}

{first}"""


def main(argv: list[str] | None = None) -> int:
    """Calls a verb with the arguments after it.

    Args:
        argv: the verb and its arguments; by default those of the process.

    Returns:
        The exit status: the verb's; 0 for help; 2 without such a verb.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        print(f"{FIRST}\nAll verbs: gfocal --help")
        return 0
    verb, rest = words[0], words[1:]
    if verb in ("-h", "--help", "help"):
        lines = (f"    {name:<10} {verb.description}" for name, verb in VERBS.items())
        print(HELP.format(verbs="\n".join(lines), first=FIRST), end="")
        return 0
    if verb == "--version":
        print(_versions())
        return 0
    if verb not in VERBS:
        print(f"gfocal: error: {_no_verb(verb)}", file=sys.stderr)
        return 2
    return _call(verb, rest)


def _call(verb: str, words: list[str]) -> int:
    before = sys.argv
    sys.argv = [f"gfocal {verb}", *words]  # what the verb's help calls itself
    try:
        module = importlib.import_module(f"{__package__}.{VERBS[verb].module}")
    except MissingPackageError:
        print(f"gfocal: error: {needs(f'gfocal {verb}')}", file=sys.stderr)
        return 1
    else:
        return module.main(words)
    finally:
        sys.argv = before


def _no_verb(word: str) -> str:
    if word.startswith("-"):
        return f"a verb stands first: gfocal VERB {word} ...; gfocal --help lists the verbs"
    longer = [verb for verb in VERBS if word.startswith(verb) or verb.startswith(word)]
    nearest = longer or difflib.get_close_matches(word, VERBS, n=1)
    hint = f"did you mean gfocal {nearest[0]}?" if nearest else "gfocal --help lists the verbs"
    return f"there is no verb {word!r}; {hint}"


def _versions() -> str:
    if absent():
        return f"gfocal {__version__}, without {names_of_absent()}"
    import detectron2
    import torch

    versions = (__version__, detectron2.__version__, torch.__version__)
    return "gfocal {}, Detectron2 {}, PyTorch {}".format(*versions)
