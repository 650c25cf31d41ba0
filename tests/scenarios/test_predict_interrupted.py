"""gfocal predict in a process of its own: killed, resumed, shared."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gfocal.cli import predict
from tests.cli.test_predict import CONFIG
from tests.helpers.tiny import make_gfl

ROOT = Path(__file__).parents[2]
IMAGES = 60
SLOW = """
import sys, time
from gfocal.cli import predict
from gfocal.engine.prediction_lines import Lines

add = Lines.add

def late(*args):
    add(*args)
    time.sleep(0.1)

Lines.add = late
predict.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with config.py, weights.pth and 60 photos of two sizes, and calm.json of them."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "config.py").write_text(CONFIG)
    torch.save({"model": make_gfl().state_dict()}, folder / "weights.pth")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for index in range(IMAGES):
        shape = (48, 120, 3) if index % 3 else (64, 48, 3)
        image = Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8))
        image.save(folder / f"photos/{index:02}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        assert predict.main(command(folder, "calm.json")) == 0
    return folder


def command(files: Path, output: str, batch_size: int = 4) -> list[str]:
    words = ["--config-file", f"{files}/config.py", "--weights", f"{files}/weights.pth"]
    words += ["--input", f"{files}/photos", "--output", f"{files}/{output}", "--workers", "0"]
    return [*words, "--num-gpus", "0", "--batch-size", str(batch_size)]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *sys.path])
    # As many threads as in this process: the last bit of a sum depends on their number.
    threads = str(torch.get_num_threads())
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads}


@pytest.mark.slow
def test_killed_three_times(files, monkeypatch):
    """The file equals that of an undisturbed run, byte for byte."""
    monkeypatch.syspath_prepend(str(ROOT))
    words = command(files, "killed.json")
    part = files / "killed.json.part0.jsonl"
    for _ in range(3):
        before = part.read_text().count("\n") if part.exists() else 1
        assert before < IMAGES
        process = subprocess.Popen([sys.executable, "-c", SLOW, *words], env=environment())
        while not part.exists() or part.read_text().count("\n") <= before:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (files / "killed.json").exists()
    with open(part, "a") as file:
        file.write('{"index": 59, "heig')  # the last kill came in the middle of a line
    lines = part.read_bytes()
    with pytest.raises(SystemExit, match="with other batch_size. Go on with the same"):
        predict.main(command(files, "killed.json", batch_size=3))
    assert part.read_bytes() == lines
    (files / "killed.json.part3.jsonl").write_bytes(lines)  # as if by more processes
    assert predict.main(words) == 0
    assert (files / "killed.json").read_bytes() == (files / "calm.json").read_bytes()
    assert not list(files.glob("*.part*"))


@pytest.mark.slow
def test_two_processes_share_the_images(files):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*run, "-m", "gfocal.cli.predict", *command(files, "two.json")]
    subprocess.run(words, check=True, env=environment())
    assert (files / "two.json").read_bytes() == (files / "calm.json").read_bytes()
