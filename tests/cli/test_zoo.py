"""gfocal zoo: what it lists is what the page of the zoo has."""

import re
from pathlib import Path

import pytest

from gfocal import model_zoo
from gfocal.cli import zoo
from gfocal.config.published import PUBLISHED

ROOT = Path(__file__).parents[2]


def test_the_facts_are_the_pages():
    text = (ROOT / "projects/GFocal/README.md").read_text()
    rows = {}
    for line in re.findall(r"^\| \[.*$", text, re.MULTILINE):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7:
            name, weights = (
                re.match(r"\[([^]]+)\]\((\S+)\)", cell) for cell in (cells[1], cells[0])
            )
            rows[name[1]] = (float(cells[5]), float(cells[3].removesuffix(" M")), weights[2])
    assert {name: model[:3] for name, model in PUBLISHED.items()} == rows and len(rows) == 20
    configs = [name for name in model_zoo.list_configs() if name.endswith(".py")]
    assert sorted(f"COCO-Detection/{name}.py" for name in PUBLISHED) == sorted(configs)


def test_the_list(capsys):
    assert zoo.main([]) == 0
    text = capsys.readouterr().out
    assert re.search(
        r"^COCO-Detection/gflv2_R_50_FPN_1x.py \(.yaml too\) +41.0 +32.44 M +the authors$",
        text,
        re.MULTILINE,
    )
    assert "  quick_start/shapes_gflv2.py\n" in text and "ablations/" not in text
    assert zoo.main(["--all"]) == 0
    listed = set(re.findall(r"[\w/-]+/\w+\.py", capsys.readouterr().out))
    assert listed == {name for name in model_zoo.list_all_configs() if name.endswith(".py")}
    assert all(Path(model_zoo.get_config_file(name)).is_file() for name in listed)
    assert not any(name.startswith("common/") for name in listed)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("gflv2_R_50_FPN_1x", ["gflv2_R_50_FPN_1x"]),
        ("configs/COCO-Detection/gfl_R_50_FPN_1x.yaml", ["gfl_R_50_FPN_1x"]),
        ("R2_101", ["gflv2_R2_101_dcn_FPN_ms_2x"]),
        ("v2_R_50", ["gflv2_R_50_FPN_1x", "gflv2_R_50_FPN_ms_2x"]),
        ("ssd", ["ssd300_VGG_16", "ssd512_VGG_16"]),
        ("cornernet", ["cornernet_HG_104"]),
    ],
)
def test_models_by_name(name, found, capsys):
    assert zoo.main([name]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^\w+$", text, re.MULTILINE) == found
    for model in found:
        assert PUBLISHED[model].weights in text
        whose = "the authors" if "gflv2" in model else "mmdetection"
        assert f"AP          {PUBLISHED[model].ap} on COCO val2017, by {whose}" in text
        assert f"gfocal convert DOWNLOADED.pth {model}.pth\n" in text


def test_what_is_refused(capsys):
    with pytest.raises(SystemExit, match="no model of the zoo has 'yolo' in its name"):
        zoo.main(["yolo"])
    with pytest.raises(SystemExit):
        zoo.main(["gfl", "--all"])
    assert "expected NAME or --all, not both" in capsys.readouterr().err
