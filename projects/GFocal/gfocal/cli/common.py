"""Shared by all commands: their help, how arguments are read, and the way that they end.

A command ends with exit status 0, or with a line for each mistake on stderr and status 1. (argparse
ends it with status 2 if the arguments are wrong.)
"""

import argparse
import difflib
import functools
import glob
import os
import re
import sys
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .._installed import MissingPackageError, absent

__all__ = [
    "MISTAKES",
    "add_calibrated",
    "add_fast",
    "add_machines",
    "add_model",
    "add_overrides",
    "check_machines",
    "check_model_arguments",
    "complain",
    "exit_on_mistake",
    "given_options",
    "make_parser",
    "parse_arguments",
]

# Mistakes that the user can correct: of a value, a type, a file, a config that is not Python, and a
# package that is absent.
MISTAKES = (ValueError, TypeError, OSError, SyntaxError, MissingPackageError)
_PACKAGE = str(Path(__file__).parents[1])


# An override: a key, with hydra's signs for new and deleted ones. A key has no slash, a path may.
_OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w.\[\]]*=|~[A-Za-z_][\w.]*$")
_YACS_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*$")


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help begins with the description, line breaks kept."""
    return argparse.ArgumentParser(
        prog=os.path.basename(sys.argv[0]),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model(group: argparse._ArgumentGroup) -> None:
    """The options that say which detector: its config, its weights, whose code they may name."""
    group.add_argument(
        "--config-file",
        metavar="C",
        help="file, or name of the zoo; by default what the weights carry",
    )
    group.add_argument("--weights", metavar="W", help="default: the weights that the config names")
    group.add_argument(
        "--trust",
        metavar="PACKAGE",
        action="append",
        default=[],
        help="a package of yours whose parts the config in the weights may name; more than once "
        "for several",
    )


def check_model_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the command if there is neither a config nor weights."""
    if not (args.config_file or args.weights):
        parser.error("expected --weights that carry their config, or --config-file")


def add_fast(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--fast",
        action="store_true",
        help="evaluate with batch norm folded, channels_last, half precision where it is native",
    )


def add_calibrated(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--calibrated",
        action="store_true",
        help="scores and standard deviations as gfocal calibrate found them for these weights",
    )


def add_machines(parser: argparse.ArgumentParser) -> None:
    """The options of :func:`gfocal.engine.launch`."""
    group = parser.add_argument_group("GPUs and machines")
    group.add_argument(
        "--num-gpus", type=int, default=1, metavar="N", help="a machine (default 1); 0: the CPU"
    )
    group.add_argument("--num-machines", type=int, default=1, metavar="N", help="(default 1)")
    group.add_argument("--machine-rank", type=int, default=0, metavar="I", help="from 0 on")
    group.add_argument(
        "--dist-url",
        metavar="URL",
        help="where the processes meet, e.g. tcp://HOST:PORT of the first machine",
    )


def check_machines(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the command if there are not so many GPUs."""
    import torch

    gpus = torch.cuda.device_count()
    if not 0 <= args.num_gpus <= max(gpus, 1):
        parser.error(f"--num-gpus is {args.num_gpus}, but this machine has {gpus}")
    if args.num_machines > 1 and args.num_gpus == 0:
        parser.error("--num-machines needs at least one GPU a machine")


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Lets a command take overrides of its config, as ``opts``; see :func:`parse_arguments`."""
    parser.add_argument_group("changes of the config").add_argument(
        "opts",
        nargs="*",
        metavar="KEY=VALUE",
        help="anywhere among the options; for a yacs .yaml also Detectron2's pairs KEY VALUE",
    )


def parse_arguments(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Reads the arguments of a command. Options, paths and overrides can stand in any order.

    After an option that takes a list of paths, the first word is a path. A later word is an
    override if it looks like one (``key=value``, ``+key=value``, ``~key``, and yacs' ``KEY
    VALUE``), unless a file has that name, or a folder what stands before the first "/". Words after
    ``--`` are overrides.

    Args:
        parser: of the command. It takes overrides if it went through :func:`add_overrides`.
        argv: the words; by default those of the process.

    Returns:
        The values of the options; with overrides, ``opts`` is the list of them.

    Raises:
        SystemExit: with status 2 for an unknown option, and what argparse refuses.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not any(action.dest == "opts" for action in parser._actions):
        for word in words[: words.index("--") if "--" in words else None]:
            _option(parser, word)
        return parser.parse_intermixed_args(words)
    words, overrides = _take_overrides(parser, words)
    args = parser.parse_args(words)
    args.opts = overrides
    return args


def given_options(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> set[str]:
    """The options among the words of a command, by their full names ("--input")."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = (_option(parser, x) for x in words[: words.index("--") if "--" in words else None])
    return {option.option_strings[-1] for option in options if option}


def _take_overrides(
    parser: argparse.ArgumentParser, words: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Splits words into those of options and overrides."""
    rest: list[str] = []
    overrides: list[str] = []
    queue = deque(words)
    values, is_list = 0, False  # how many words the last option must get; whether it takes more
    while queue:
        word = queue.popleft()
        if word == "--":
            overrides += queue
            break
        if option := _option(parser, word):
            nargs = 0 if "=" in word else option.nargs
            values = nargs if isinstance(nargs, int) else int(nargs in (None, "+"))
            is_list = nargs in ("+", "*")
            rest.append(word)
        elif values or (is_list and not _is_override(word)):
            values = max(values - 1, 0)
            rest.append(word)
        else:
            overrides.append(word)
            if _is_yacs_key(word) and queue and not queue[0].startswith("--"):
                overrides.append(queue.popleft())
    return rest, overrides


def _option(parser: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    """The option that a word names, also by its beginning; None for another word."""
    if not word.startswith("-") or word == "-" or re.match(r"-\.?\d", word):
        return None
    name = word.partition("=")[0]
    options = parser._option_string_actions
    found = [text for text in options if text.startswith(name)]
    if not found:
        nearest = difflib.get_close_matches(name, options, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        parser.error(f"unrecognized arguments: {name}{hint}")
    return options[name if name in options else found[0]]


def _is_override(word: str) -> bool:
    looks_like_one = _OVERRIDE.match(word) or _is_yacs_key(word)
    folder = word.partition("/")[0]  # of a path, also of one that is not there
    return bool(looks_like_one) and not (os.path.exists(folder) or glob.glob(word))


def _is_yacs_key(word: str) -> bool:
    return bool(_YACS_KEY.match(word)) and word.partition(".")[0] in _yacs_groups()


@functools.cache
def _yacs_groups() -> frozenset[str]:
    if absent():  # then there is no config
        return frozenset()
    from detectron2.config import get_cfg

    from ..config import add_gfocal_config

    cfg = get_cfg()
    add_gfocal_config(cfg)
    return frozenset(cfg)


@contextmanager
def exit_on_mistake(
    mistakes: tuple[type[Exception], ...] = MISTAKES, *, locate: bool = False
) -> Iterator[None]:
    """Inside it, or in a function that it decorates, a mistake is one line and no traceback.

    Args:
        mistakes: exceptions that the user can correct. Others keep their traceback.
        locate: add file and line if code outside this package raised the exception. That helps
            authors of new parts.

    Raises:
        SystemExit: with the message, for exit status 1; silent where nobody reads on (``| head``).
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except mistakes as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        show = locate and not frame.filename.startswith(_PACKAGE)
        sys.exit(f"error: {error}" + (f" ({frame.filename}:{frame.lineno})" if show else ""))


def complain(problems: Iterable[str]) -> int:
    """Prints problems that did not stop the command; returns its exit status."""
    lines = [f"error: {problem}" for problem in problems]
    if lines:
        print("\n".join(lines), file=sys.stderr)
    return 1 if lines else 0
