"""gfocal.cli.ablate, with runs that take no time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.config import LazyConfig
from PIL import Image

from gfocal import model_zoo
from gfocal.cli import ablate as tool
from gfocal.inspect.ablations import METRICS, runs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ablate(tmp_path, monkeypatch):
    """Runs the tool with a stand-in for training: the AP is 40 + seed, some rows fail."""
    started = []

    class Training:
        returncode = 0
        failing = ()

        def __init__(self, command, stdout, stderr):
            cfg = LazyConfig.load(command[command.index("--config-file") + 1])
            folder = Path(cfg.train.output_dir)
            started.append((folder.parent.name, cfg.train.seed))
            assert "--resume" in command
            if folder.parent.name in self.failing:
                stdout.write("Traceback\nRuntimeError: out of memory\n")
                self.returncode = 1
                return
            ap = {f"bbox/{name}": 40.0 + cfg.train.seed for name in METRICS}
            lines = [{"iteration": 0}, {"iteration": cfg.train.max_iter - 1, **ap}]
            text = "\n".join(json.dumps(line) for line in lines)
            (folder / "metrics.json").write_text(text + "\n{cut sho")

        def poll(self):
            return self.returncode

        def terminate(self):
            pass

    monkeypatch.setattr(runs.subprocess, "Popen", Training)

    def run(*options):
        arguments = ["--table", "3", "--seeds", "2", "--max-iter", "7", "--output", str(tmp_path)]
        return tool.run(tool.parse_args([*arguments, *options])), tmp_path / "3_shapes_7"

    run.started, run.training = started, Training
    return run


def test_a_table(ablate):
    failed, folder = ablate()
    assert failed == 0
    assert (folder / "table.md").read_text().splitlines()[2:] == [
        "| baseline | 2 | 40.50 ± 0.71 | 40.50 ± 0.71 | 40.50 ± 0.71 | 39.2 |",
        "| dfl | 2 | 40.50 ± 0.71 | 40.50 ± 0.71 | 40.50 ± 0.71 | 39.5 |",
        "| qfl | 2 | 40.50 ± 0.71 | 40.50 ± 0.71 | 40.50 ± 0.71 | 39.9 |",
        "| qfl_dfl | 2 | 40.50 ± 0.71 | 40.50 ± 0.71 | 40.50 ± 0.71 | 40.2 |",
    ]
    assert Image.open(folder / "table.png").size[0] > 500
    assert len(ablate.started) == 8


def test_a_failed_row_is_named_and_tried_again(ablate):
    ablate.training.failing = ("qfl",)
    failed, folder = ablate()
    text = (folder / "table.md").read_text()
    assert failed == 2 and len(ablate.started) == 8
    assert "| qfl | 0 | - | - | - | 39.9 |" in text
    assert "qfl, seed 1, failed: RuntimeError: out of memory" in text
    assert "| qfl_dfl | 2 | 40.50" in text
    ablate.training.failing = ()
    ablate.started.clear()
    assert ablate()[0] == 0
    assert ablate.started == [("qfl", 0), ("qfl", 1)]  # the others are there already
    assert "failed" not in (folder / "table.md").read_text()


def test_a_row_of_ones_own(ablate, monkeypatch):
    """Without numbers of the paper."""
    get_config = model_zoo.get_config

    def without_paper(name):
        cfg = get_config(name)
        cfg.pop("paper", None)
        return cfg

    monkeypatch.setattr(model_zoo, "get_config", without_paper)
    failed, folder = ablate()
    assert failed == 0
    assert (folder / "table.md").read_text().splitlines()[2].endswith("| 40.50 ± 0.71 | - |")


def test_runs_of_another_config_are_not_mixed(ablate):
    _, folder = ablate()
    file = folder / "qfl" / "seed0" / "run.yaml"
    file.write_text(file.read_text().replace("max_iter: 7", "max_iter: 8"))
    with pytest.raises(ValueError, match=r"qfl.seed0 holds a run of another config"):
        ablate()


def test_arguments(capsys):
    for arguments, message in (
        ([], "either --table or --index"),
        (["--table", "1b"], "has a small model for tables 1a, 1c"),
        (["--table", "3", "--seeds", "0"], "expected at least 1"),
        (["--table", "3", "--max-iter", "0"], "expected at least 1"),
    ):
        with pytest.raises(SystemExit):
            tool.parse_args(arguments)
        assert message in capsys.readouterr().err


def test_a_real_run(tmp_path):
    """One row, as the command line starts it."""
    paths = [str(ROOT), str(ROOT / "projects/GFocal"), os.environ.get("PYTHONPATH", "")]
    code = (
        "import sys; from gfocal.cli import ablate as t;"
        "t.rows = lambda table: ['ablations/table3/qfl.py'];"
        "sys.exit(t.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--table", "3", "--seeds", "1", "--max-iter", "2",
         "--output", str(tmp_path), "--num-gpus", "0"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| qfl | 1 | " in done.stdout
    assert (tmp_path / "3_shapes_2/qfl/seed0/metrics.json").is_file()
