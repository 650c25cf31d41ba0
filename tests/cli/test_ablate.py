"""gfocal.cli.ablate, with runs that take no time."""

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from detectron2.config import LazyConfig
from omegaconf import OmegaConf
from PIL import Image

from gfocal import model_zoo
from gfocal.cli import ablate as tool
from gfocal.inspect.ablations import METRICS, paper_of, runs

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
    paper_of.cache_clear()

    def run(*options):
        arguments = ["--table", "3", "--seeds", "2", "--max-iter", "7", "--output", str(tmp_path)]
        return tool.run(tool.parse_args([*arguments, *options])), tmp_path / "3_shapes_7"

    run.started, run.training = started, Training
    yield run
    paper_of.cache_clear()


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


def test_the_exit_status_tells_of_failed_rows(ablate, tmp_path):
    arguments = ["--table", "3", "--seeds", "2", "--max-iter", "7", "--output", str(tmp_path)]
    ablate.training.failing = ("qfl",)
    assert tool.main(arguments) == 1
    ablate.training.failing = ()
    assert tool.main(arguments) == 0


def test_teachers_are_missed_before_the_first_run(ablate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = r"shapes_gflv2/model_final.pth.*train --config-file quick_start/shapes_teacher.py"
    with pytest.raises(FileNotFoundError, match=message):
        ablate("--table", "distillation")
    assert not ablate.started
    for name in ("shapes_gflv2", "shapes_teacher"):
        file = tmp_path / "output" / name / "model_final.pth"
        file.parent.mkdir(parents=True)
        file.touch()
    assert ablate("--table", "distillation")[0] == 0
    assert len(ablate.started) == 8


def test_a_run_of_another_process_is_waited_for(ablate, monkeypatch):
    """As the tables of no paper share the baseline, two commands can meet there."""
    _, folder = ablate()
    metrics = folder / "dfl" / "seed1" / "metrics.json"
    result = metrics.read_text()
    metrics.unlink()
    ablate.started.clear()
    output, flock, waits = metrics.with_name("output.txt"), fcntl.flock, threading.Event()

    def told(file, operation):
        if file.name == str(output):
            waits.set()
        flock(file, operation)

    monkeypatch.setattr(runs.fcntl, "flock", told)
    with open(output, "a") as log:
        flock(log, fcntl.LOCK_EX)
        waiting = threading.Thread(target=ablate)
        waiting.start()
        assert waits.wait(timeout=60)
        metrics.write_text(result)  # what the other process does
    waiting.join(timeout=60)
    assert not waiting.is_alive() and not ablate.started
    assert "| dfl | 2 | 40.50" in (folder / "table.md").read_text()


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_table_begun_with_an_earlier_version_goes_on(ablate):
    """Its configs have old names, and a `train` without the options that it left at defaults."""
    _, folder = ablate()
    ablate.started.clear()
    file = folder / "baseline" / "seed0" / "run.yaml"
    current = file.read_text()
    old = current
    for new, name in (
        ("gfocal.GFL\n", "gfocal.meta_arch.GFL\n"),
        ("gfocal.ATSSMatcher", "gfocal.matcher.ATSSMatcher"),
        ("gfocal.FocalLoss", "gfocal.criterion.FocalLoss"),
        ("gfocal.modeling.quality.centerness", "gfocal.quality.centerness"),
        (
            "{_target_: gfocal.modeling.recipes.tower_width, conv_dims: '${...conv_dims}'}",
            "${..conv_dims.0}",
        ),
    ):
        assert new in old
        old = old.replace(new, name)
    tree = OmegaConf.create(yaml.unsafe_load(old), flags={"allow_objects": True})
    train = OmegaConf.to_container(tree.train)  # current Detectron2 keeps its type in the yaml
    for key in ("reference_world_size", "cudnn_benchmark", "float32_precision"):
        train.pop(key)
    tree.train = train
    LazyConfig.save(tree, str(file))
    assert file.read_text() != current
    assert ablate()[0] == 0 and ablate.started == []  # the finished run is taken
    assert file.read_text() == current
    file.write_text(old.replace("gfocal.meta_arch.GFL", "gfocal.nowhere.GFL"))
    with pytest.raises(ValueError, match="another config"):
        ablate()
    file.write_text(old.replace("gfocal.quality.centerness", "gfocal.quality.no_score"))
    with pytest.raises(ValueError, match="another config"):
        ablate()


def test_arguments(capsys):
    for arguments, message in (
        ([], "either --table or --index"),
        (["--table", "1d"], "invalid choice: '1d'"),
        (["--table", "3", "--seeds", "0"], "expected at least 1"),
        (["--table", "3", "--max-iter", "0"], "expected at least 1"),
    ):
        with pytest.raises(SystemExit):
            tool.parse_args(arguments)
        assert message in capsys.readouterr().err


@pytest.mark.slow
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
