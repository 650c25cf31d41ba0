"""Other people's files: what they may look like, and that no code of them is run."""

import os
import pickle

import pytest
import torch

from gfocal.weights import (
    GFLCheckpointer,
    StrictCheckpointer,
    load_mmdet_checkpoint,
    load_weights_only,
)


def test_what_a_checkpoint_may_look_like(tmp_path):
    """Bare, under state_dict, and as DistributedDataParallel names it."""
    weights = {"backbone.conv1.weight": torch.rand(2)}
    for content in (
        weights,
        {"state_dict": weights, "meta": {"mmdet_version": "3.3.0", "CLASSES": ("a", "b")}},
        {"state_dict": {f"module.{k}": v for k, v in weights.items()}, "meta": None},
    ):
        torch.save(content, tmp_path / "a.pth")
        loaded = load_mmdet_checkpoint(tmp_path / "a.pth")
        assert list(loaded) == list(weights)
        assert torch.equal(loaded["backbone.conv1.weight"], weights["backbone.conv1.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "holds a Tensor; expected a dict"),
        ({}, "has no state_dict"),
        ({"state_dict": [1]}, r"has no state_dict to read: \[1\]; expected a dict of tensors$"),
        ({"state_dict": {"a": 1}}, "a state_dict of named tensors: it has others, under 'a'$"),
        ({"state_dict": {1: torch.zeros(1)}}, "it has others, under 1$"),
        ({"epoch": 3, "optimizer": {}}, "it has others, under 'epoch', 'optimizer'$"),
        (
            {"state_dict": {"a": torch.zeros(1)}, "meta": {"mmdet_version": "1.2.0+9d3f"}},
            r"mmdetection 1\.x \(its meta says mmdet_version 1\.2\.0\+9d3f\).*anchors are centred",
        ),
        (
            {"bbox_head.distribution_project.project": torch.zeros(17)},
            r"mmdetection 1\.x \(it has bbox_head\.distribution_project.*2\.x or 3\.x",
        ),
    ],
)
def test_what_a_checkpoint_may_not_be(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        load_mmdet_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 half of an archive"])
def test_damaged_files(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth is not a PyTorch checkpoint, is damaged, .*\(\w"):
        load_mmdet_checkpoint(tmp_path / "a.pth")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*b\.pth"):
        load_mmdet_checkpoint(tmp_path / "b.pth")


class RunsCode:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("load", [load_weights_only, GFLCheckpointer, StrictCheckpointer])
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_file_is_not_run(load, protocol, tmp_path, monkeypatch):
    """Also where PyTorch, until 2.5, would by default; and nothing invites to run it."""
    default = torch.load

    def load_as_ever(*args, weights_only=False, **kwargs):
        return default(*args, weights_only=weights_only, **kwargs)

    monkeypatch.setattr(torch, "load", load_as_ever)
    content = {"model": {"weight": torch.zeros(1)}, "meta": RunsCode(tmp_path / "ran")}
    torch.save(content, tmp_path / "a.pth", pickle_protocol=protocol)
    read = load if load is load_weights_only else load(torch.nn.Linear(1, 1)).load
    names = rf"running code that it names \({os.mkdir.__module__}\.mkdir\).*trust the file"
    message = {2: names, 4: r"more than weights \(UnpicklingError: Unsupported operand 149\)$"}
    with pytest.raises(ValueError, match=message[protocol]):
        read(str(tmp_path / "a.pth"))
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "a.pth")
    assert (tmp_path / "ran").exists()  # the file is what it is meant to be


def test_the_refusal_as_pytorch_until_2_3_words_it(tmp_path, monkeypatch):
    def load(*args, **kwargs):
        raise pickle.UnpicklingError(
            "Weights only load failed. Re-running `torch.load` with `weights_only` set to `False` "
            "will likely succeed, [...] WeightsUnpickler error: Unsupported class posix.system"
        )

    monkeypatch.setattr(torch, "load", load)
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"running code that it names \(posix\.system\)"):
        load_weights_only(tmp_path / "a.pth")
