"""What the documents say, as far as it can be checked: links, the zoo's table."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from gfocal import model_zoo
from tests.tools.loading import load_tool

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "projects").rglob("*.md"),
]
ZOO = [name for name in model_zoo.list_configs() if name.endswith(".py")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)", file.read_text(), flags=re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in slugs, target


def test_names_in_paper_vs_code_exist():
    """`file.py` `name`: the name is in that file."""
    text = (ROOT / "docs/paper_vs_code.md").read_text()
    pairs = re.findall(r"\]\((\.\./[^)]+\.py)\) `(\w+)`", text)
    assert len(pairs) > 15
    for path, name in pairs:
        assert name in (ROOT / "docs" / path).read_text(), (path, name)


def rows():
    """{config: cells} of the zoo's table."""
    lines = (ROOT / "projects/GFocal/README.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    table = {}
    for row in cells:
        match = len(row) == 7 and re.match(r"\[(gfl\w+)\]", row[1])
        if match:
            table[f"COCO-Detection/{match[1]}.py"] = row
    return table


def test_the_zoo_table_is_complete():
    assert sorted(rows()) == sorted(ZOO)
    for name, row in rows().items():
        assert f"../../configs/{name}" in row[1]
        assert ("[yacs]" in row[1]) == ("_R_50_" in name)


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_tables_parameters(name):
    tool = load_tool("analyze_model")
    with torch.device("meta"):
        model = instantiate(model_zoo.get_config(name).model)
    row = rows()[name]
    assert row[3] == f"{tool.count_parameters(model) / 1e6:.2f} M"
    stages = [
        any("conv2_offset" in n for n, _ in s.named_parameters())
        for s in model.backbone.bottom_up.stages
    ]
    deformable = [f"c{i + 2}" for i, stage in enumerate(stages) if stage]
    assert row[2] == (f"{deformable[0]}-{deformable[-1]}" if deformable else "")


def test_the_zoo_tables_flops():
    """Of one model; the others take a minute: ``python tools/analyze_model.py``."""
    name = "COCO-Detection/gfl_R_50_FPN_1x.py"
    _, flops, _ = load_tool("analyze_model").count(name, (800, 1333))
    assert rows()[name][4] == f"{flops / 1e9:.1f}"
