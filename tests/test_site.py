"""What `make docs` does not see: that the pages say what the code does."""

import ast
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfocal import apply_overrides, load_config, model_zoo
from gfocal.cli.main import VERBS
from tests.helpers.import_graph import lines, read_graph

ROOT = Path(__file__).parents[1]
# Not in every Detectron2: FCOS is in its main; its model_zoo asks for an old setuptools there. The
# blocks that import them run in tests/extending/test_other_projects.py.
OF_OTHERS = ("detectron2.model_zoo", "detectron2.modeling.meta_arch.fcos.", "sahi.")
FOLDERS = ("docs", "projects", "configs")
PAGES = [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
by_path = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page; "" for those without a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def commands(page: Path) -> list[list[str]]:
    """The calls of python in a page's blocks, as words after `python`."""
    text = "\n".join(blocks(page, "")).replace("\\\n", " ")
    calls = [shlex.split(line, comments=True) for line in text.splitlines() if "python" in line]
    return [call[call.index("python") + 1 :] for call in calls if "python" in call]


def test_the_api_reference_has_every_module():
    pages = {path.stem: path.read_text() for path in (ROOT / "docs/api").glob("*.md")}
    named = {wing: re.findall(r"^::: (\S+)", text, re.MULTILINE) for wing, text in pages.items()}
    for wing, modules in named.items():
        assert all(f"{name}.".startswith(f"gfocal.{wing}.") for name in modules)
    modules = {
        name for name in read_graph() if not name.startswith(("gfocal.benchmarks", "gfocal._"))
    }
    found = [name for names in named.values() for name in names]
    assert sorted(found) == sorted(modules - {"gfocal"})


def test_the_import_graph_is_todays():
    """The page has what `python -m tests.helpers.import_graph` prints."""
    page = (ROOT / "docs/architecture.md").read_text()
    block = page.split("<!-- import graph -->\n```\n")[1].split("\n```\n<!-- /import graph -->")[0]
    assert block.splitlines() == list(lines(read_graph()))


def resolve(name: str) -> object:
    """The object of a dotted name; AttributeError or ImportError if there is none."""
    module, _, attributes = name.partition(".")
    found = importlib.import_module(module)
    for attribute in attributes.split(".") if attributes else ():
        try:
            found = getattr(found, attribute)
        except AttributeError:
            found = importlib.import_module(f"{found.__name__}.{attribute}")
    return found


def names_used(source: str) -> Iterator[str]:
    """Dotted names of what code imports, and of gfocal's attributes that it uses."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("gfocal."):
            name = ast.unparse(node)
            yield name if re.fullmatch(r"[\w.]+", name) else "gfocal"


@by_path
def test_the_names_that_a_page_uses_are_there(page):
    """In python blocks. In the text too, where it names the public face; the changelog tells of
    names that have gone."""
    names = {name for block in blocks(page, "python") for name in names_used(block)}
    if page.name != "CHANGELOG.md":
        names |= set(re.findall(r"`(gfocal(?:\.\w+)+)(?=[(`])", page.read_text()))
    for name in names:
        assert name.startswith(("mine.", *OF_OTHERS)) or resolve(name) is not None


def test_the_names_that_the_notebook_uses_are_there():
    cells = json.loads((ROOT / "docs/quick_start.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert any(name.startswith("gfocal.") for source in code for name in names_used(source))
    for source in code:
        for name in names_used(source):
            assert resolve(name) is not None


def test_a_name_that_is_not_there_is_seen():
    source = "import gfocal\nfrom gfocal.engine import Predictor\ngfocal.GFL\ngfocal.cli.x().y"
    assert {"gfocal", "gfocal.engine.Predictor", "gfocal.GFL"} <= set(names_used(source))
    for name in ("gfocal.GFLhead", "gfocal.engine.nothing", "gfocal.nothing.GFL"):
        with pytest.raises((AttributeError, ImportError)):
            resolve(name)


@by_path
def test_commands_name_files_and_keys_that_are_there(page):
    for words in commands(page):
        if words and words[0].startswith("tools/"):
            assert (ROOT / words[0]).is_file(), words
        if "--config-file" in words:
            file = words[words.index("--config-file") + 1]
            if file.startswith("configs/"):
                overrides = [word for word in words if re.match(r"\+?[\w.]+=", word)]
                apply_overrides(load_config(str(ROOT / file)), overrides)


@by_path
def test_calls_of_the_command_are_right(page, monkeypatch):
    """Verbs, options, names of configs and keys, in blocks and in the text."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    text = "\n".join(blocks(page, "")).replace("\\\n", " ")
    calls = [line for line in text.splitlines() if line.startswith("gfocal ")]
    calls += re.findall(r"(?<!`)`gfocal [^`]* --config-file[^`]*`", page.read_text())
    for call in calls:
        verb, *words = shlex.split(call.strip("`"), comments=True)[1:] or ["--help"]
        if verb in ("VERB", "--help", "--version"):
            continue
        module = importlib.import_module(f"gfocal.cli.{VERBS[verb].module}")
        if words == ["--help"]:
            continue
        args = module.parse_args(words)
        config = getattr(args, "config_file", None)
        if config and config.startswith(("configs/", "quick_start/", "COCO-Detection/")):
            load_config(model_zoo.find_config(config), args.opts)
