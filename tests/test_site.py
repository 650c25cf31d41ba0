"""What `make docs` does not see: that the pages say what the code does."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from gfocal.config import apply_overrides, load_config
from tests.helpers.import_graph import lines, read_graph

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "projects", "configs")
PAGES = [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
by_path = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page; "" for those without a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


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
    unlisted = {"gfocal", "gfocal.__main__", "gfocal._moved", "gfocal._version"}
    modules = {name for name in read_graph() if not name.startswith("gfocal.benchmarks")}
    found = [name for names in named.values() for name in names]
    assert sorted(found) == sorted(modules - unlisted)


def test_the_import_graph_is_todays():
    """The page has what `python -m tests.helpers.import_graph` prints."""
    page = (ROOT / "docs/architecture.md").read_text()
    block = page.split("<!-- import graph -->\n```\n")[1].split("\n```\n<!-- /import graph -->")[0]
    assert block.splitlines() == list(lines(read_graph()))


@by_path
def test_what_python_blocks_import_is_there(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module != "mine":
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), node.module


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
