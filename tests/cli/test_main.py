"""The command gfocal: its verbs and its help. The verbs' own tests are beside this file."""

import importlib
import os
import subprocess
import sys

import pytest

from gfocal.cli import main as cli
from gfocal.cli.main import VERBS, main


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb(verb, capsys):
    """Says how to call it, what it does, and an example."""
    before = list(sys.argv)
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0 and sys.argv == before
    text = capsys.readouterr().out
    assert text.startswith(f"usage: gfocal {verb} ")
    module = importlib.import_module(f"gfocal.cli.{VERBS[verb].module}")
    assert module.__doc__.strip() in text
    assert f"\n    gfocal {verb}" in text


@pytest.mark.parametrize("verb", VERBS)
def test_a_mistake_names_the_verb(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--no-such-option"])
    assert end.value.code == 2
    assert f"gfocal {verb}: error: " in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"]])
def test_help(argv, capsys):
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: gfocal VERB ")
    for verb, (_, description) in VERBS.items():
        assert f"\n    {verb} " in text and description in text


def test_without_a_verb_it_says_what_to_type_first(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "gfocal train --config-file quick_start/shapes_gflv2.py" in text
    assert "gfocal --help" in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "there is no verb 'trian'; did you mean gfocal train?"),
        (["evaluate"], "did you mean gfocal eval?"),
        (["what", "--help"], "there is no verb 'what'; gfocal --help lists the verbs"),
        (["--config-file", "x"], "a verb stands first: gfocal VERB --config-file ...; gfocal --he"),
    ],
)
def test_no_such_verb(argv, message, capsys):
    assert main(argv) == 2
    assert message in capsys.readouterr().err


def test_the_exit_status_is_the_verbs(monkeypatch):
    module = importlib.import_module("gfocal.cli.zoo")
    monkeypatch.setattr(module, "main", lambda argv: len(argv))
    assert main(["zoo", "a", "b"]) == 2


def test_python_m_gfocal_imports_no_verb():
    """In a process of its own, which also shows the versions."""
    code = (
        "import runpy, sys; sys.argv = ['gfocal', '--version']\n"
        "try: runpy.run_module('gfocal', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"verbs = {[verb.module for verb in VERBS.values()]}\n"
        "print([name for name in verbs if f'gfocal.cli.{name}' in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, check=True, env=dict(os.environ),
    )  # fmt: skip
    version, imported = done.stdout.splitlines()
    assert version == cli._versions() and version.startswith("gfocal ")
    assert imported == "[]"
