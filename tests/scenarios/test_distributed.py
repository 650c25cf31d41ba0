"""Two workers with one image each give the gradients of one worker with both, for each detector."""

import inspect
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import launch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from fvcore.common.checkpoint import Checkpointer

from gfocal.engine.resume import has_checkpoint_everywhere
from gfocal.engine.steps import AccumulatingTrainer
from gfocal.process.groups import leave_process_group
from gfocal.process.sums import sum_over_workers
from tests.helpers.detectors import (
    DETECTORS,
    DETECTRON2S,
    LOSSES_IN_SINGLE,
    each_of_ours,
    losses_of,
)
from tests.helpers.tiny import make_input
from tests.helpers.trainings import ROOT, environment, lines, results

BATCHES = {
    "both have boxes": [[[3.0, 2, 63, 58]], [[10.0, 5, 90, 60], [0.0, 0, 50, 62]]],
    "one has none": [[[3.0, 2, 63, 58]], []],
    "two micro-batches in each": [[[3.0, 2, 63, 58]], [], [], [[0.0, 0, 50, 62]] * 2],
}


# Detectron2's divide by numbers of their own process.
CASES = [(name, batch) for name in DETECTORS if name not in DETECTRON2S for batch in BATCHES]


def _model_and_batch(name, boxes):
    torch.manual_seed(0)
    model = DETECTORS[name]().double()
    for module in model.modules():  # batch norm has the statistics of the images of one process
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda module, _: module.eval())
    return model, [make_input(64, 96, x) for x in boxes]


def _gradients(name, boxes, rank):
    """Of a step of two processes, in one of them."""
    model, batch = _model_and_batch(name, boxes)
    model = torch.nn.parallel.DistributedDataParallel(model)
    own = batch[rank::2]
    with EventStorage():
        if len(own) == 1:
            sum(model(own).values()).backward()
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            step = AccumulatingTrainer(model, [[x] for x in own], optimizer, accumulate=len(own))
            step.iter = 0
            step.run_step()
    return {k: p.grad for k, p in model.module.named_parameters() if p.requires_grad}


def _worker(rank, folder):
    """All cases, each in a process group of its own, so that one that fails ends no other."""
    torch.set_num_threads(1)
    found = {}
    for number, (name, batch) in enumerate(CASES):
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/{number}.init",
            rank=rank,
            world_size=2,
            timeout=timedelta(seconds=60),
        )
        assert comm.get_world_size() == 2
        own = torch.tensor([1.0, rank])
        assert sum_over_workers(own)[0].tolist() == [2, 1] and own.tolist() == [1, rank]
        try:
            found[name, batch] = _gradients(name, BATCHES[batch], rank)
        except Exception as error:  # noqa: BLE001 (the test of this case shows it)
            found[name, batch] = repr(error)
        leave_process_group()
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/resume.init", rank=rank, world_size=2
    )
    found["resume"] = [_resumed(f"{folder}/{case}{rank}") for case in ("some", "all", "none")]
    leave_process_group()
    torch.save(found, f"{folder}/{rank}.pth")


def _resumed(folder):
    """Whether a checkpoint is resumed, with an output folder for each process."""
    try:
        return has_checkpoint_everywhere(Checkpointer(torch.nn.Identity(), folder))
    except ValueError as error:
        return str(error)


@pytest.fixture(scope="module")
def of_two_workers(tmp_path_factory):
    """The gradients of each case, from each of two processes."""
    folder = tmp_path_factory.mktemp("workers")
    for name in ("some0", "some1", "all0", "all1", "none0", "none1"):
        (folder / name).mkdir()
        if name in ("some0", "all0", "all1"):
            (folder / name / "model_0000009.pth").touch()
            (folder / name / "last_checkpoint").write_text("model_0000009.pth")
    mp.spawn(_worker, args=(folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pth") for rank in range(2)]


@pytest.mark.parametrize("batch", BATCHES)
@each_of_ours
def test_two_workers_equal_one(name, batch, of_two_workers):
    model, images = _model_and_batch(name, BATCHES[batch])
    sum(losses_of(model, images).values()).backward()
    rtol = 1e-5 if name in LOSSES_IN_SINGLE else 1e-9
    for of_one in of_two_workers:
        together = of_one[name, batch]
        assert isinstance(together, dict), together
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                expected = {"rtol": rtol, "atol": 1e-3 * rtol}
                torch.testing.assert_close(together[key], parameter.grad, **expected)


def test_machines_agree_on_the_checkpoint_to_resume(of_two_workers):
    """Without a shared folder only the first has one; the second would wait for ever."""
    for rank, of_one in enumerate(of_two_workers):
        message, everywhere, nowhere = of_one["resume"]
        assert (everywhere, nowhere) == (True, False), rank
        host = socket.gethostname()
        assert "the processes see different checkpoints to resume" in message
        assert f"model_0000009.pth on {host} in " in message and f"; none on {host} in" in message


# The whole training, from the command line, on gloo.
LAUNCHED = """
import sys
from detectron2.engine import launch
from gfocal.cli import train

def main(argv):
    train.run(train.parse_args(argv))

if __name__ == "__main__":
    launch(main, 2, dist_url="auto", args=(sys.argv[1:],))
"""


def start(tmp_path, how, config, name, *more):
    """One process; two, by torchrun or by Detectron2's launch."""
    (tmp_path / "launched.py").write_text(LAUNCHED)
    script = {
        "one": ["tools/train_net.py"],
        "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                     "tools/train_net.py"],
        "launch": [f"{tmp_path}/launched.py"],
    }[how]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, *script, "--config-file", f"tests/helpers/{config}.py", "--num-gpus", "0",
         "--resume", *more, f"data.folder={tmp_path}/images",
         f"train.output_dir={tmp_path}/{name}"],
        env=environment(), cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=(tmp_path / "stderr").open("w"),
        start_new_session=True,  # so that all of it can be killed
    )  # fmt: skip


def finish(tmp_path, *args):
    assert start(tmp_path, *args).wait(timeout=300) == 0, (tmp_path / "stderr").read_text()[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["torchrun", "launch"])
def test_a_training_of_two_processes_equals_that_of_one(how, tmp_path):
    if how == "launch" and "GLOO" not in inspect.getsource(sys.modules[launch.__module__]):
        pytest.skip("the launch of this Detectron2 needs a GPU for each process")
    finish(tmp_path, "one", "distributed_config", "one")
    finish(tmp_path, how, "distributed_config", "two")
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    assert one.keys() == two.keys() == {*range(9)}
    for iteration, values in one.items():
        assert two[iteration] == pytest.approx(values, rel=1e-4, abs=1e-5)
    assert "validation/total_loss" in one[8]
    assert "ema/bbox/score" in one[8]
    assert {one[i]["positives_per_image"] for i in range(8)} != {0}
    weights = [torch.load(tmp_path / x / "model_final.pth")["model"] for x in ("one", "two")]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_resume_exactly(tmp_path):
    """With dropout, so the random states of both are needed. The second has no validation image,
    for which the first must not wait."""
    options = ["dataloader.test.dataset.count=1"]
    options += ["train.max_iter=30", "train.checkpointer.period=3", "train.eval_period=6"]
    finish(tmp_path, "torchrun", "resume_config", "whole", *options)
    process = start(tmp_path, "torchrun", "resume_config", "killed", *options)
    while process.poll() is None and len(lines(tmp_path / "killed")) <= 7:
        time.sleep(0.01)
    assert process.poll() is None, (tmp_path / "stderr").read_text()
    os.killpg(process.pid, signal.SIGTERM)  # torchrun ends its processes, which are sessions
    process.wait(timeout=60)
    assert (tmp_path / "killed/last_checkpoint").read_text() != "model_final.pth"
    finish(tmp_path, "torchrun", "resume_config", "killed", *options)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    weights = [torch.load(tmp_path / x / "model_final.pth")["model"] for x in ("whole", "killed")]
    for name, weight in weights[0].items():
        assert torch.equal(weights[1][name], weight), name


def two_nodes(tmp_path, folders, *more):
    """Two agents of torchrun with two processes each, as on two machines: (exit code, what they
    wrote) of both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = []
    for rank, folder in enumerate(folders):
        nodes.append(
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank",
                 str(rank), "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port",
                 str(port), "-m", "gfocal", "train", "--num-gpus", "0", "--config-file",
                 "tests/helpers/distributed_config.py", "--resume",
                 "dataloader.train.total_batch_size=4", f"data.folder={tmp_path}/images",
                 f"train.output_dir={tmp_path}/{folder}", *more],
                env=environment(), cwd=ROOT, start_new_session=True,
                stdout=subprocess.DEVNULL, stderr=(tmp_path / f"stderr{rank}").open("w"),
            )
        )  # fmt: skip
    codes = [node.wait(timeout=300) for node in nodes]
    return codes, [(tmp_path / f"stderr{rank}").read_text() for rank in range(2)]


@pytest.mark.slow
def test_two_machines(tmp_path):
    """With one output folder they train as four processes of one machine, and resume. With a folder
    each, a resume says which of them has no checkpoint, and waits for nobody."""
    options = ["dataloader.train.total_batch_size=4", "train.checkpointer.period=4"]
    script = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    one = subprocess.run(
        [sys.executable, *script, "tools/train_net.py", "--config-file",
         "tests/helpers/distributed_config.py", "--num-gpus", "0", *options,
         f"data.folder={tmp_path}/images", f"train.output_dir={tmp_path}/one"],
        env=environment(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert one.returncode == 0, one.stderr[-3000:]
    codes, errors = two_nodes(tmp_path, ["shared", "shared"], "train.checkpointer.period=4")
    assert codes == [0, 0], errors[0][-3000:]
    expected = results(tmp_path / "one")
    assert len(expected) > 8
    for iteration, values in results(tmp_path / "shared").items():
        assert values == pytest.approx(expected[iteration], rel=1e-4, abs=1e-5)
    longer = ["train.max_iter=10", "train.checkpointer.period=4"]
    codes, errors = two_nodes(tmp_path, ["shared", "shared"], *longer)
    assert codes == [0, 0], errors[0][-3000:]
    assert max(results(tmp_path / "shared")) >= 9
    codes, errors = two_nodes(tmp_path, ["shared", "own"], *longer)
    assert codes == [1, 1]
    for text in errors:
        assert "the processes see different checkpoints to resume: model_final.pth on" in text
        assert f"none on {socket.gethostname()} in {tmp_path}/own" in text
