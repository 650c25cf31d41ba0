"""Every task of the benchmark runs, on a small image, and says what it should."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gfocal.benchmarks import inputs, tasks
from gfocal.cli import benchmark as tool
from tests.helpers.spread import make_spread_gfl
from tests.helpers.tiny import make_gfl
from tests.helpers.tiny_distilled import InMemory, make_distilled, make_teacher

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(inputs, "HEIGHT", 96)
    monkeypatch.setattr(inputs, "WIDTH", 128)

    def main(*argv):
        file = tmp_path / "rows.json"
        rows = tool.run(tool.parse_args([*argv, "--repeat", "1", "--json", str(file)]))
        content = json.loads(file.read_text())
        assert content["rows"] == rows and content["task"] == argv[0] and content["machine"]
        return rows, capsys.readouterr().out

    return main


@pytest.mark.parametrize(
    ("task", "num_rows"),
    [
        ("matcher", 12),
        ("losses", 4),
        ("heatmaps", 2),
        ("pairing", 4),
        ("ssd", 6),
        ("postprocess", 10),
        ("inference", None),
    ],
)
def test_comparisons(run, task, num_rows):
    rows, out = run(task, "--batch", "1") if task == "ssd" else run(task)
    assert num_rows is None or len(rows) == num_rows
    assert all(row["ms"] > 0 for row in rows)
    if task == "inference":
        assert {"gfl R-50, float32", "gflv2 R-50, float32, optimized"} <= {r["what"] for r in rows}
        by_name = {row["what"]: row for row in rows}
        row = by_name["gflv2 R-50, float32, optimized"]
        ours = by_name["gfl R-50, float32, optimized"]["ms"]
        assert row["GFLV2 / GFLV1"] == pytest.approx(row["ms"] / ours, rel=0.01)
    else:
        sides = [row for row in rows if "sides" in row["what"] or "with " in row["what"]]
        pairs = [row for row in rows if row not in sides]
        assert len(sides) == (6 if task == "postprocess" else 0)
        for off, *others in (sides[:3], sides[3:]) if sides else ():
            for row in others:
                assert row["times as long"] == pytest.approx(row["ms"] / off["ms"], abs=0.06)
        for ours, theirs in zip(pairs[::2], pairs[1::2]):
            assert ours["times faster"] == pytest.approx(theirs["ms"] / ours["ms"], abs=0.06)
            assert ours["what"].replace("ours", "straightforward") == theirs["what"]
    assert "threads, torch" in out


@pytest.mark.slow
def test_export(run, monkeypatch):
    monkeypatch.setattr(inputs, "make_model", lambda name, device: make_spread_gfl())
    monkeypatch.setattr(tasks, "EXPORTED", ("gflv2",))
    rows, _ = run("export", "--batch", "2")
    kinds = ["PyTorch", "PyTorch, optimized", "onnxruntime", "onnxruntime, int8"]
    kinds += ["TorchScript", "torch.export"]
    assert [row["what"] for row in rows] == [f"gflv2 R-50, {kind}" for kind in kinds]
    assert all(row["ms"] > 0 for row in rows)


@pytest.mark.parametrize("amp", [[], ["--amp"]])
def test_train_step(run, amp):
    rows, _ = run("train-step", "--batch", "1", *amp)
    shares = {row["what"]: row["share"] for row in rows}
    outside = shares.pop("outside backbone and head")
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    inside = sum(share for what, share in shares.items() if "backbone" in what)
    assert outside == pytest.approx(1 - inside, abs=1e-3)


@pytest.mark.usefixtures("one_thread")
def test_teacher(run, monkeypatch):
    student = make_distilled(80, teacher=InMemory(make_teacher(80).float()))
    models = make_gfl(80), student, student.teacher.model
    monkeypatch.setattr(inputs, "make_student", lambda device: models)
    rows, out = run("teacher", "--batch", "1")
    without, with_teacher, alone = (row["ms"] for row in rows)
    cost = (with_teacher - without) / alone
    assert rows[1]["added / forward pass"] == pytest.approx(cost, abs=0.01)
    assert f"the teacher adds {cost:.2f}"[:-1] in out


def test_arguments(capsys):
    for option in ("--repeat", "--batch"):
        with pytest.raises(SystemExit):
            tool.parse_args(["inference", option, "0"])
        assert "expected at least 1" in capsys.readouterr().err


def test_a_checkout_times_its_own_files():
    """Without an installed gfocal, and whichever checkout is installed."""
    code = (
        "import sys; sys.meta_path[:] = [x for x in sys.meta_path if 'gfocal' not in repr(x)];"
        "import gfocal.benchmarks.tasks as tasks; print(tasks.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "projects" / "GFocal")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == str(ROOT / "benchmarks" / "tasks.py"), done.stderr
