"""Shared by all commands: their help, and the way that they end.

A command ends with exit status 0, or with a line for each mistake on stderr and status 1. (argparse
ends it with status 2 if the arguments are wrong.)
"""

import argparse
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["MISTAKES", "complain", "exit_on_mistake", "make_parser"]

# Mistakes that the user can correct: a value, a type, a file, a config that is not Python.
MISTAKES = (ValueError, TypeError, OSError, SyntaxError)
_PACKAGE = str(Path(__file__).parents[1])


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help begins with the description, line breaks kept."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


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
        SystemExit: with the message, for exit status 1.
    """
    try:
        yield
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
