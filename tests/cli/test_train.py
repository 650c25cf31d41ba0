"""gfocal.cli.train: in this process where possible, since a new one takes seconds to import."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from gfocal import model_zoo
from gfocal.cli import evaluate
from gfocal.cli import train as train_net

ROOT = Path(__file__).parents[2]
TOY = str(ROOT / "tests/helpers/toy_config.py")
YACS = "COCO-Detection/gflv2_R_50_FPN_1x.yaml"

pytestmark = pytest.mark.usefixtures("loggers_restored")


def arguments(tmp_path: Path, *opts: str, **flags) -> Namespace:
    opts = [f"data.folder={tmp_path}/images", f"train.output_dir={tmp_path}/out", *opts]
    flags = {"config_file": TOY, "resume": False, "eval_only": False, "num_gpus": 1, **flags}
    flags = {"fast": False, "calibrated": False, "reliability": False, "weights": None, **flags}
    return Namespace(opts=opts, **flags)


def metrics(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "out/metrics.json").read_text().splitlines()]


def command(*args: str) -> subprocess.CompletedProcess:
    paths = [str(ROOT), str(ROOT / "projects/GFocal"), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/train_net.py"), *args],
        env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_command_line_trains_and_evaluates(tmp_path):
    opts = arguments(tmp_path, "train.max_iter=3").opts
    done = command("--config-file", TOY, "--num-gpus", "0", *opts)
    assert done.returncode == 0, done.stderr
    assert "copypaste: AP,images" in done.stdout
    assert metrics(tmp_path)[-1]["bbox/AP"] == 50.0
    assert (tmp_path / "out/model_final.pth").is_file()
    assert (tmp_path / "out/config.yaml").is_file()
    assert (tmp_path / "out/log.txt").is_file()


def test_a_mistake_is_one_line_and_exit_code_1(tmp_path):
    done = command("--config-file", TOY, "train.max_itr=5")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: unknown key 'train.max_itr'")
    assert "did you mean train.max_iter?" in last
    assert "Traceback" not in done.stderr


def test_resume_and_eval_only(tmp_path):
    log = tmp_path / "out/log.txt"
    train_net.run(arguments(tmp_path, "train.max_iter=3"))
    assert "Starting training from iteration 0" in log.read_text()
    train_net.run(arguments(tmp_path, resume=True))
    assert "Starting training from iteration 3" in log.read_text()
    assert "gfocal.engine.lazy_trainer" in log.read_text()  # our own messages are logged too
    assert metrics(tmp_path)[-1]["iteration"] == 6

    trained, count = log.read_text(), len(metrics(tmp_path))
    train_net.run(arguments(tmp_path, resume=True, eval_only=True))
    weights = f"{tmp_path}/out/model_final.pth"
    train_net.run(arguments(tmp_path, f"train.init_checkpoint={weights}", eval_only=True))
    train_net.run(arguments(tmp_path, weights=weights, eval_only=True))
    evaluated = log.read_text()[len(trained) :]
    assert "copypaste: 50.0000,2.0000" in evaluated
    assert "Starting training" not in evaluated
    assert [line["bbox/AP"] for line in metrics(tmp_path)[count:]] == [50.0, 50.0, 50.0]


@pytest.mark.parametrize(
    ("opts", "flags", "message"),
    [
        ([], {"config_file": "nowhere.py"}, "error: no config file 'nowhere.py'"),
        (["train.init_checkpoint=no.pth"], {}, "error: no weight file 'no.pth'"),
        (["train.init_checkpoint=no.pth"], {"eval_only": True}, "error: no weight file 'no.pth'"),
        ([], {"weights": "no.pth"}, "error: no weight file 'no.pth'"),
        ([], {"eval_only": True}, "error: no weights to evaluate"),
        (["optimizer.lr=-1"], {}, "error: Invalid learning rate: -1"),
        (["+train.ema=0.9"], {}, "error: the config has train.ema, which nothing reads"),
        (["+train.ema=0.9"], {"eval_only": True}, "error: the config has train.ema, which nothi"),
        (["+model.foo=3"], {}, "error: unknown key 'model.foo' in the config"),
        (["train.device=gpu"], {}, "error: the config asks for device 'gpu'; expected cpu"),
        # Nobody listens on port 9 ("discard"): a download that fails.
        (["train.init_checkpoint=http://127.0.0.1:9/w.pth"], {}, "error: <urlopen error"),
    ],
)
def test_mistakes_found_while_setting_up(tmp_path, monkeypatch, opts, flags, message):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "downloads"))
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(SystemExit) as error:
        train_net.run(arguments(tmp_path, *opts, **flags))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("SEED=None", "error: SEED is None; expected an integer"),
        ("SOLVER.CHECKPOINT_PERIOD=0", "error: SOLVER.CHECKPOINT_PERIOD is 0; expected"),
        ("MODEL.META_ARCHITECTURE=GFLX", "error: MODEL.META_ARCHITECTURE is 'GFLX'; expected"),
        ("MODEL.BACKBONE.NAME=nope", "error: MODEL.BACKBONE.NAME is 'nope'; expected"),
        ("MODEL.DEVICE=gpu", "error: the config asks for device 'gpu'; expected cpu"),
        ("MODEL.GFL.IN_FEATURES=['p3', 'p9']", "error: MODEL.GFL.IN_FEATURES has ['p9']; exp"),
    ],
)
def test_mistakes_in_a_yacs_config(tmp_path, override, message):
    args = arguments(tmp_path, config_file=model_zoo.get_config_file(YACS))
    args.opts = [f"OUTPUT_DIR={tmp_path}/out", "MODEL.DEVICE=cpu", override]
    with pytest.raises(SystemExit) as error:
        train_net.run(args)
    assert str(error.value).startswith(message)


def test_an_error_in_a_config_file_names_the_line(tmp_path):
    (tmp_path / "a.py").write_text("model = dict(x=y)\n")
    with pytest.raises(SystemExit) as error:
        train_net.run(arguments(tmp_path, config_file=str(tmp_path / "a.py")))
    assert str(error.value) == f"error: {tmp_path}/a.py:1: NameError: name 'y' is not defined"


def test_an_error_in_training_keeps_its_traceback(tmp_path):
    # A class that the model does not have reaches the loss.
    args = arguments(tmp_path, "data.num_classes=2", "dataloader.train.dataset.num_images=2")
    args.opts.append("model.num_classes=1")
    with pytest.raises((IndexError, RuntimeError)):
        train_net.run(args)


def test_num_gpus_0_is_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="train.device=cpu"):
        train_net.run(arguments(tmp_path, "train.device=cuda"))
    train_net.run(arguments(tmp_path, "train.device=cuda", "train.max_iter=1", num_gpus=0))
    assert metrics(tmp_path)


def test_the_verb_eval_is_eval_only():
    argv = ["--weights", "w.pth", "SEED", "3", "--config-file", "x", "--fast"]
    args = evaluate.parse_args(argv)
    expected = vars(train_net.parse_args([*argv, "--eval-only"]))
    assert vars(args) == {**expected, "trust": []}
    assert (args.weights, args.opts, args.eval_only) == ("w.pth", ["SEED", "3"], True)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config-file", "x", "--num-gpus", "99"], "--num-gpus is 99, but this machine has"),
        (["--config-file", "x", "--num-gpus", "-1"], "--num-gpus is -1"),
        ([], "required: --config-file"),
        (["--config-file", "x", "--fast"], "--fast is for --eval-only"),
        (["--config-file", "x", "--eval-only", "--resume", "--weights", "w"], "expected it or --w"),
        (["--config-file", "x", "--num-gpus", "0", "--num-machines", "2"], "at least one GPU"),
    ],
)
def test_wrong_flags(capsys, argv, message):
    with pytest.raises(SystemExit) as error:
        train_net.parse_args(argv)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
