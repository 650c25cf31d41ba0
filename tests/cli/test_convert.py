"""The converter as its user meets it: files, messages, exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig

from gfocal import model_zoo
from gfocal.cli import convert as tool
from gfocal.weights import (
    convert_mmdet_state_dict,
    expected_state_dict,
    find_config,
    to_mmdet_state_dict,
)

ROOT = Path(__file__).parents[2]
NAME = "COCO-Detection/gflv2_R_50_FPN_1x.py"


@pytest.fixture(scope="module")
def theirs():
    """A checkpoint of the official GFLV2 with R-50 and 5 classes."""
    cfg = model_zoo.get_config(NAME).model
    cfg.num_classes = 5
    ours = {key: torch.zeros(value.shape) for key, value in expected_state_dict(cfg).items()}
    return to_mmdet_state_dict(ours)


@pytest.fixture
def convert(tmp_path):
    """Runs the tool in this process: (exit code, message of an error)."""

    def run(state_dict, *options):
        if state_dict is not None:
            torch.save({"state_dict": state_dict, "meta": {}}, tmp_path / "in.pth")
        arguments = [str(tmp_path / "in.pth"), str(tmp_path / "out.pth"), *options]
        try:
            tool.run(tool.parse_args(arguments))
        except (ValueError, OSError) as error:
            return 1, str(error)
        return 0, ""

    return run


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_published_model(theirs, convert, tmp_path, capsys):
    assert convert(theirs) == (0, "")
    assert files(tmp_path) == ["in.pth", "out.pth"]
    out = torch.load(tmp_path / "out.pth", weights_only=True)
    assert {*out} == {"model", "gfocal"} and len(out["model"]["head.cls_logits.bias"]) == 5
    said = capsys.readouterr().out
    assert f"{NAME} and {NAME.replace('1x', 'ms_2x')}" in said
    assert f"gfocal eval --weights {tmp_path}" in said
    cfg, description = find_config(f"{tmp_path}/out.pth")
    assert cfg.model.num_classes == 5 and description.class_names == []  # COCO has 80


def test_there_and_back(theirs, convert, tmp_path):
    assert convert(theirs)[0] == 0
    os.replace(tmp_path / "out.pth", tmp_path / "in.pth")
    assert convert(None, "--to-mmdet") == (0, "")
    back = torch.load(tmp_path / "out.pth", weights_only=True)
    assert back["state_dict"].keys() == theirs.keys()
    assert all(torch.equal(back["state_dict"][key], theirs[key]) for key in theirs)


def test_a_model_of_ones_own(theirs, convert, tmp_path, capsys):
    """reg_max 8 is none of the published models; with its config it converts."""
    own = dict(theirs)
    own["bbox_head.gfl_reg.weight"] = torch.zeros(36, 256, 3, 3)
    own["bbox_head.gfl_reg.bias"] = torch.zeros(36)
    code, message = convert(own)
    assert code == 1 and files(tmp_path) == ["in.pth"]
    assert f"the nearest of which is {NAME}" in message
    assert "bbox_head.gfl_reg.bias: (36,) in the file, (68,) in the model" in message
    cfg = model_zoo.get_config(NAME)
    cfg.model.head.box_representation.reg_max = 8
    cfg.model.num_classes = 5
    config = str(tmp_path / "own.yaml")
    LazyConfig.save(cfg, config)
    assert convert(own, "--config-file", config) == (0, "")
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.endswith(f"gfocal eval --weights {tmp_path}/out.pth")
    os.replace(tmp_path / "out.pth", tmp_path / "in.pth")
    assert convert(None, "--to-mmdet") == (0, "")  # by the config that it carries
    bare = torch.load(tmp_path / "in.pth", weights_only=True)
    torch.save({"model": bare["model"]}, tmp_path / "in.pth")
    assert convert(None, "--to-mmdet")[0] == 1
    assert convert(None, "--to-mmdet", "--config-file", config) == (0, "")
    assert convert(own, "--config-file", config, "--num-classes", "7")[0] == 1


@pytest.mark.parametrize("way", [[], ["--to-mmdet"]])
def test_bins_of_another_width_are_not_those_of_mmdetection(theirs, convert, tmp_path, way):
    cfg = model_zoo.get_config(NAME)
    cfg.model.head.box_representation.bin_width = 0.5
    cfg.model.num_classes = 5
    config = str(tmp_path / "half.yaml")
    LazyConfig.save(cfg, config)
    given = theirs
    if way:
        assert convert(theirs) == (0, "")
        os.replace(tmp_path / "out.pth", tmp_path / "in.pth")
        given = None
    code, message = convert(given, *way, "--config-file", config)
    assert code == 1 and "bin_width=0.5); expected bins 0, 1, ..., n" in message
    assert files(tmp_path) == ["half.yaml", "in.pth"]


def test_an_ssd_with_qfl_has_no_background(convert, tmp_path):
    cfg = model_zoo.get_config("quick_start/shapes_ssd.py")
    cfg.model.cls_loss = model_zoo.get_config("ablations/table1b/ssd512_qfl.py").model.cls_loss
    weights = {k: torch.zeros(x.shape) for k, x in expected_state_dict(cfg.model).items()}
    config = str(tmp_path / "qfl.yaml")
    LazyConfig.save(cfg, config)
    torch.save({"model": weights}, tmp_path / "in.pth")
    code, message = convert(None, "--to-mmdet", "--config-file", config)
    assert code == 1 and "is an SSD without a channel for the background" in message


def test_what_does_not_fit_is_listed_and_nothing_written(theirs, convert, tmp_path):
    renamed = dict(theirs)
    renamed["backbone.layer2.3.conv2.wait"] = renamed.pop("backbone.layer2.3.conv2.weight")
    missing = {k: v for k, v in theirs.items() if k != "neck.fpn_convs.1.conv.bias"}
    misshapen = {**theirs, "bbox_head.reg_conf.0.weight": torch.zeros(64, 16, 1, 1)}
    for state_dict, lines in (
        (
            renamed,
            [
                "backbone.layer2.3.conv2.weight: missing in the file",
                "backbone.layer2.3.conv2.wait: not in the model",
            ],
        ),
        (missing, ["neck.fpn_convs.1.conv.bias: missing in the file"]),
        (misshapen, ["bbox_head.reg_conf.0.weight: (64, 16) in the file, (64, 20) in the model"]),
        ({**theirs, "rpn.weight": torch.zeros(1)}, ["rpn.weight: has no counterpart here"]),
    ):
        code, message = convert(state_dict)
        assert code == 1
        assert [line.strip() for line in message.splitlines()[1:]] == lines
        assert files(tmp_path) == ["in.pth"]


def test_a_failure_leaves_what_was_there(theirs, convert, tmp_path, monkeypatch):
    (tmp_path / "out.pth").write_text("older")
    assert convert({**theirs, "rpn.weight": torch.zeros(1)})[0] == 1
    assert (tmp_path / "out.pth").read_text() == "older"

    torch.save({"state_dict": theirs}, tmp_path / "in.pth")

    def full_disk(content, file):
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full_disk)
    code, message = convert(None)
    assert code == 1 and message.startswith("could not write ")
    assert (tmp_path / "out.pth").read_text() == "older"
    assert files(tmp_path) == ["in.pth", "out.pth"]


def test_a_folder_that_is_not_there(theirs, tmp_path):
    torch.save(theirs, tmp_path / "in.pth")
    with pytest.raises(FileNotFoundError, match=r"nowhere/out\.pth"):
        tool.run(tool.parse_args([f"{tmp_path}/in.pth", f"{tmp_path}/nowhere/out.pth"]))


@pytest.mark.parametrize("name", [NAME.replace(".py", ".yaml"), "quick_start/../common/optim.py"])
def test_a_config_without_a_model(name, theirs, convert, tmp_path):
    path = str(Path(model_zoo.get_config_file(NAME)).parents[1] / name)
    code, message = convert(theirs, "--config-file", path)
    assert code == 1 and message.endswith("has no model; expected a LazyConfig")
    assert files(tmp_path) == ["in.pth"]


def test_a_config_that_is_no_python(tmp_path):
    """One line, no traceback."""
    torch.save({"state_dict": {}}, tmp_path / "in.pth")
    (tmp_path / "own.py").write_text("model = dict(x=)\n")
    with pytest.raises(SystemExit) as error:
        tool.main([f"{tmp_path}/in.pth", "out.pth", "--config-file", f"{tmp_path}/own.py"])
    message = str(error.value)  # Detectron2's
    assert message.startswith("error: ") and f"{tmp_path}/own.py has syntax error" in message


def test_the_way_back_is_checked_too(theirs, convert, tmp_path):
    ours = convert_mmdet_state_dict(theirs)
    for name in ("head.scales.4", "head.box_logits.weight"):
        incomplete = {key: value for key, value in ours.items() if key != name}
        torch.save({"model": incomplete}, tmp_path / "in.pth")
        code, message = convert(None, "--to-mmdet")
        assert code == 1 and message.endswith(f"\n  {name}: missing in the file")
    for content, expected in (
        ({"model": {}}, "has no model to read"),
        ({"model": [1]}, "has no model to read"),
        ({"state_dict": theirs, "meta": {}}, "it has others, under 'state_dict', 'meta'"),
    ):
        torch.save(content, tmp_path / "in.pth")
        code, message = convert(None, "--to-mmdet")
        assert code == 1 and expected in message
    assert files(tmp_path) == ["in.pth"]


class RunsCode:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_code_in_a_file_is_not_run(tmp_path):
    """As the command line it is: exit code 1, one message, no file."""
    content = {"state_dict": {"a": torch.zeros(1)}, "meta": RunsCode(f"touch {tmp_path}/ran")}
    torch.save(content, tmp_path / "in.pth")
    result = subprocess.run(
        [sys.executable, "-W", "ignore", ROOT / "tools/convert_mmdet.py", "in.pth", "out.pth"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("error: in.pth can only be read by running code that it names")
    assert f"({os.system.__module__}.system)" in result.stderr and "Traceback" not in result.stderr
    assert files(tmp_path) == ["in.pth"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.pth", "out.pkl"], "OUT is 'out.pkl'; it must end in .pth"),
        (["in.pth", "out.pth", "--num-classes", "0"], "--num-classes is 0; expected at least 1"),
        (["in.pth", "out.pth", "--num-classes", "5", "--to-mmdet"], "not for --to-mmdet"),
    ],
)
def test_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        tool.parse_args(arguments)
    assert message in capsys.readouterr().err
