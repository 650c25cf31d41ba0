"""What the documents say, as far as it can be checked: links, paths, the zoo's table."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from gfocal import model_zoo
from gfocal.inspect.complexity import count_parameters

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "projects").rglob("*.md"),
    *(ROOT / "configs").rglob("*.md"),
    ROOT / "tests/README.md",
]
ZOO = [name for name in model_zoo.list_configs() if "/gfl" in name and name.endswith(".py")]


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_commands_exist(page):
    """Each config, tool and test, in blocks and in inline commands. `mine` is the reader's own."""
    command = r"^```\w*\n(.*?)^```|`((?:python|pytest) [^`\n]+)`"
    code = re.findall(command, page.read_text(), re.MULTILINE | re.DOTALL)
    pattern = r"(?<![\w/.])(?:configs|tools|tests|benchmarks)/[\w./-]*\w"
    for path in (path for block in code for path in re.findall(pattern, " ".join(block))):
        assert (ROOT / path).exists() or path.endswith("/mine.py"), path


@pytest.mark.parametrize("page", ["tests/README", "docs/errors"])
def test_the_tests_that_a_page_names_exist(page):
    named = set(re.findall(r"`(test_\w+)`", (ROOT / f"{page}.md").read_text()))
    assert len(named) > 10
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    there = {
        name for source in sources for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)
    }
    assert named <= there


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


@pytest.fixture(params=ZOO)
def row_and_model(request):
    """A row of the table and its model, without memory."""
    with torch.device("meta"):
        return rows()[request.param], instantiate(model_zoo.get_config(request.param).model).eval()


def test_the_zoo_tables_parameters(row_and_model):
    row, model = row_and_model
    assert row[3] == f"{count_parameters(model) / 1e6:.2f} M"
    stages = [
        any("conv2_offset" in n for n, _ in s.named_parameters())
        for s in model.backbone.bottom_up.stages
    ]
    deformable = [f"c{i + 2}" for i, stage in enumerate(stages) if stage]
    assert row[2] == (f"{deformable[0]}-{deformable[-1]}" if deformable else "")


def test_the_zoo_tables_flops(row_and_model):
    """Counted otherwise than the tool does: by the layers' outputs for 800 x 1344 px, with the 2
    and 5 multiply-adds an element that fvcore gives batch and group norm. FPN's upsampling, another
    0.005 GFLOPs, is not a layer."""
    row, model = row_and_model
    per_element = {
        nn.Conv2d: lambda layer: layer.weight[0].numel(),
        nn.Linear: lambda layer: layer.in_features,
        FrozenBatchNorm2d: lambda layer: 2,
        nn.GroupNorm: lambda layer: 5,
    }
    total = 0

    def add(layer, _, output):
        nonlocal total
        cost = next(cost for kind, cost in per_element.items() if isinstance(layer, kind))
        total += output.numel() * cost(layer)

    for layer in model.modules():
        if isinstance(layer, tuple(per_element)):
            layer.register_forward_hook(add)
    features = model.backbone(torch.zeros(1, 3, 800, 1344, device="meta"))
    model.head([features[name] for name in model.head_in_features])
    assert float(row[4]) == pytest.approx(total / 1e9, abs=0.06)
