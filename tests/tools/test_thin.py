"""The tools that are a line over a command of gfocal.cli."""

import importlib
import inspect
import runpy
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
COMMANDS = {
    "ablate": "ablate",
    "analyze_model": "analyze",
    "benchmark": "benchmark",
    "benchmark_audit": "benchmark_audit",
    "convert_mmdet": "convert",
    "demo": "demo",
    "train_net": "train",
}


def test_all_are_there():
    # Works without the package, so it is none of its commands.
    assert {path.stem for path in TOOLS.glob("*.py")} == {*COMMANDS, "install_detectron2"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name, monkeypatch, capsys):
    """Names the script, and tells what the command does."""
    path = str(TOOLS / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(path, run_name="__main__")
    assert end.value.code == 0
    command = importlib.import_module(f"gfocal.cli.{COMMANDS[name]}")
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {name}.py ") and command.__doc__.strip() in text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_function_of_its_arguments(name):
    command = importlib.import_module(f"gfocal.cli.{COMMANDS[name]}")
    for function in (command.parse_args, command.main):
        assert [p.default for p in inspect.signature(function).parameters.values()] == [None]
    with pytest.raises(SystemExit) as end:
        command.main(["--no-such-option"])
    assert end.value.code == 2
    assert len((TOOLS / f"{name}.py").read_text().splitlines()) <= 60


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", COMMANDS.values())
def test_a_module_is_a_command_too(command, monkeypatch, capsys):
    """python -m gfocal.cli.COMMAND."""
    monkeypatch.setattr(sys, "argv", [f"{command}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"gfocal.cli.{command}", run_name="__main__", alter_sys=True)
    assert end.value.code == 0
    assert f"usage: {command}.py" in capsys.readouterr().out
