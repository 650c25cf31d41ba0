"""gfocal.cli.analyze: the table, and what it refuses."""

import pytest

from gfocal import model_zoo
from gfocal.cli import analyze as tool

R50 = "COCO-Detection/gfl_R_50_FPN_1x"


def test_table_of_both_kinds_of_config(capsys):
    path = model_zoo.get_config_file(f"{R50}.yaml")
    tool.run(tool.parse_args([f"{R50}.py", path, "--input-size", "64", "64"]))
    head, rule, lazy, yacs = capsys.readouterr().out.splitlines()
    assert head == "| config | parameters (M) | GFLOPs at 64 x 64 |" and rule == "|---|---|---|"
    assert lazy.startswith(f"| {R50}.py | 32.44 | ")
    assert yacs == lazy.replace(f"{R50}.py", path)


def test_without_a_config_it_is_the_zoo():
    args = tool.parse_args([])
    assert len(args.configs) == 20 and args.configs[0].endswith(".py")
    assert args.input_size is None


def test_a_config_for_one_size(tmp_path, capsys):
    """Of the config, unless a size is given."""
    path = tmp_path / "square.py"
    path.write_text(
        "from detectron2.config import LazyCall as L\n"
        "from detectron2.data.transforms import Resize\n"
        "from gfocal import model_zoo\n"
        f"cfg = model_zoo.get_config('{R50}.py')\n"
        "model, dataloader, train = cfg.model, cfg.dataloader, cfg.train\n"
        "dataloader.test.mapper.augmentations = [L(Resize)(shape=[64, 96])]\n"
    )
    rows = []
    for options in ([], ["--input-size", "64", "96"]):
        tool.run(tool.parse_args([str(path), *options]))
        rows.append(capsys.readouterr().out.splitlines())
    assert rows[0][0].endswith("| GFLOPs at 800 x 1333 |")
    assert rows[0][2] == rows[1][2].replace(" |\n", "")[:-2] + " at 64 x 96 |"


def test_errors(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match=r"did you mean .*gfl_R_50_FPN_1x\.py"):
        tool.build("COCO-Detection/gfl_R_50_FPN_1.py")
    other = tmp_path / "other.yaml"
    other.write_text('MODEL:\n  META_ARCHITECTURE: "GeneralizedRCNN"\n')
    with pytest.raises(TypeError, match="is a GeneralizedRCNN; expected a detector with `raw`"):
        tool.build(str(other))
    other.write_text('MODEL:\n  META_ARCHITECTURE: "GFLX"\n')
    with pytest.raises(ValueError, match="META_ARCHITECTURE is 'GFLX'"):
        tool.build(str(other))
    with pytest.raises(SystemExit):
        tool.parse_args(["--input-size", "0", "10"])
    assert "--input-size is [0, 10]; expected at least 1 pixel" in capsys.readouterr().err
