"""How a command reads its arguments, and how it ends."""

import os

import pytest
import torch

from gfocal.cli.common import (
    add_overrides,
    complain,
    exit_on_mistake,
    make_parser,
    parse_arguments,
)
from gfocal.data.images import find_images


@pytest.fixture
def parser():
    """Of a command with paths, a path, a number, a pair and overrides."""
    parser = make_parser("A command.")
    parser.add_argument("--input", nargs="+")
    parser.add_argument("--output")
    parser.add_argument("--score", type=float)
    parser.add_argument("--size", type=int, nargs=2)
    parser.add_argument("--fast", action="store_true")
    add_overrides(parser)
    return parser


CHANGES = ["train.seed=1", "+a.b=[1, 2]"]


@pytest.mark.parametrize(
    "words",
    [
        ["--input", "x", "y", *CHANGES],
        [*CHANGES, "--input", "x", "y"],
        ["--input", "x", CHANGES[0], "y", CHANGES[1]],
        [CHANGES[0], "--input", "x", "y", CHANGES[1]],
        ["--inp", "x", "y", "--", *CHANGES],
        ["--input", "x", "y", "--fast", *CHANGES],
    ],
)
def test_overrides_stand_anywhere(parser, words):
    args = parse_arguments(parser, words)
    assert (args.input, args.opts) == (["x", "y"], CHANGES)
    assert args.fast == ("--fast" in words)


def test_what_an_override_looks_like(parser, tmp_path, monkeypatch):
    """A path with "=" is a path if it, or the folder that it begins with, is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()
    paths = ["lr=0.1", "lr=*", "no/lr=0.2", "lr=0.1/x.jpg", "MODEL.jpg", "IMG.JPG", "~/photos"]
    changes = ["~train.seed", "lr=0.3", "train.note=two words", "model.x[0].y=a=b", "x=/a b/c.pth"]
    args = parse_arguments(parser, ["--input", "first=path", *paths, *changes])
    assert args.input == ["first=path", *paths]
    assert args.opts == changes
    assert parse_arguments(parser, ["--output", "run=1", "lr=1"]).opts == ["lr=1"]
    assert parse_arguments(parser, ["--output=run=1", "lr=1"]).output == "run=1"


def test_pairs_of_yacs(parser):
    pairs = ["MODEL.DEVICE", "cpu", "SOLVER.BASE_LR", "-0.1", "INPUT.MIN_SIZE_TEST", "24"]
    for words in (["--input", "x", *pairs], [*pairs, "--input", "x"], ["--fast", *pairs]):
        args = parse_arguments(parser, [*words, "--output", "o"])
        assert (args.opts, args.output) == (pairs, "o")


def test_numbers_below_zero(parser):
    args = parse_arguments(parser, ["--score", "-0.5", "a=-1", "--size", "-1", "2", "SEED", "-3"])
    assert (args.score, args.size, args.opts) == (-0.5, [-1, 2], ["a=-1", "SEED", "-3"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--inptu", "x", "a=1"], "unrecognized arguments: --inptu; did you mean --input?"),
        (["a=1", "--scroe=3"], "unrecognized arguments: --scroe; did you mean --score?"),
        (["--input", "x", "-q"], "unrecognized arguments: -q\n"),
        (["--s", "1"], "ambiguous option: --s could match --score, --size"),
        (["--input", "--fast"], "argument --input: expected at least one argument"),
        (["--output", "--fast"], "argument --output: expected one argument"),
    ],
)
def test_wrong_options_are_named(parser, capsys, words, message):
    with pytest.raises(SystemExit) as error:
        parse_arguments(parser, words)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_a_command_without_overrides(capsys):
    parser = make_parser(None)
    parser.add_argument("configs", nargs="*")
    parser.add_argument("--size", nargs=2)
    args = parse_arguments(parser, ["a.py", "--size", "1", "2", "b=c.py"])
    assert (args.configs, args.size) == (["a.py", "b=c.py"], ["1", "2"])
    with pytest.raises(SystemExit):
        parse_arguments(parser, ["--sise", "1", "2"])
    assert "--sise; did you mean --size?" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [ValueError, TypeError, FileNotFoundError, SyntaxError])
def test_a_mistake_is_a_message(kind):
    @exit_on_mistake()
    def command():
        raise kind("a number is wanted")

    for _ in range(2):  # a decorated function can be called again
        with pytest.raises(SystemExit) as error:
            command()
        assert error.value.code == "error: a number is wanted"


def test_others_keep_their_traceback():
    with pytest.raises(RuntimeError), exit_on_mistake():
        raise RuntimeError
    with pytest.raises(TypeError), exit_on_mistake((ValueError, OSError)):
        raise TypeError
    with pytest.raises(SystemExit, match="2"), exit_on_mistake():
        raise SystemExit(2)  # argparse's


def test_a_reader_that_has_gone_is_no_mistake(monkeypatch, capsys):
    """As in `gfocal zoo | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stdout)
        with pytest.raises(SystemExit) as error, exit_on_mistake():
            print("a line")
    assert error.value.code == 1
    assert capsys.readouterr() == ("", "")


def test_where_other_code_found_it_can_be_said():
    with pytest.raises(SystemExit) as error, exit_on_mistake(locate=True):
        torch.optim.SGD([torch.zeros(1)], lr=-1)
    message = str(error.value)
    assert message.startswith("error: Invalid learning rate: -1 (") and "sgd.py:" in message
    with pytest.raises(SystemExit) as error, exit_on_mistake(locate=True):
        find_images(["nowhere"])
    assert str(error.value) == "error: no image matches 'nowhere'"


def test_problems_that_stop_nothing(capsys):
    assert complain([]) == 0
    assert capsys.readouterr() == ("", "")
    assert complain(["one", "two"]) == 1
    assert capsys.readouterr() == ("", "error: one\nerror: two\n")
