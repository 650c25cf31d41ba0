"""A script that makes Detectron2's config itself, as its own does, run with gfocal's keys."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.config import defaults

from gfocal import model_zoo
from tests.helpers.trainings import environment

YAML = model_zoo.get_config_file("COCO-Detection/gflv2_R_50_FPN_1x.yaml")
# As tools/train_net.py is built, which on several GPUs starts processes in this way.
SCRIPT = """
import multiprocessing
import sys

from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY
from beside_it import ANSWER


def main(path):
    cfg = get_cfg()
    cfg.merge_from_file(path)
    META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    print(__name__, cfg.MODEL.GFL.REG_MAX, ANSWER, sys.argv[1:], __file__[-7:], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2])
    process = multiprocessing.get_context("spawn").Process(target=main, args=sys.argv[1:2])
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "tool.py").write_text(SCRIPT)
    (tmp_path / "beside_it.py").write_text("ANSWER = 42")
    return str(tmp_path / "tool.py")


@pytest.mark.slow
def test_a_script_and_the_processes_that_it_starts(script):
    command = [sys.executable, "-W", "ignore", "-m", "gfocal.cli.with_keys", script, YAML, "-x"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = f"{{}} 16 42 {[YAML, '-x']} tool.py"
    assert done.stdout.splitlines() == [line.format("__main__"), line.format("__mp_main__")]


def call(monkeypatch, *words):
    """In this process, whose defaults stay as they are."""
    monkeypatch.setattr(sys, "argv", ["with_keys.py", *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("GFOCAL_WITH_KEYS", "")
    monkeypatch.setattr(defaults, "_C", defaults._C.clone())
    runpy.run_module("gfocal.cli.with_keys", run_name="__main__")


def test_a_script(script, monkeypatch, capsys):
    Path(script).write_text(SCRIPT.split("    process =")[0])
    call(monkeypatch, script, YAML)
    assert capsys.readouterr().out == f"__main__ 16 42 {[YAML]} tool.py\n"


@pytest.mark.parametrize(("words", "reason"), [([], "none is named"), (["no.py"], "no.py")])
def test_no_such_script(words, reason, monkeypatch):
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, *words)
    assert end.value.code.endswith(f"No such script: {reason}")
    assert "python -m gfocal.cli.with_keys tools/train_net.py" in end.value.code
