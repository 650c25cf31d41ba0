"""What `make docs` does beyond MkDocs, so that the pages stay plain files for a git host too.

Pages link to files of the repository. In the site such a link leads to the page made of the file
(PAGES), to the API reference of a module, or to a copy of the file as text.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# Files outside docs/, or not in markdown, that are pages of the site.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "configs/ablations/README.md": "ablation_rows.md",
    "docs/quick_start.ipynb": "quick_start.md",
    "projects/GFocal/README.md": "method.md",
    "projects/GFocal/gfocal/engine/README.md": "engine.md",
}
SOURCES = {page: path for path, page in PAGES.items()}
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
ROLE = re.compile(r":\w+:`[.~]?([\w.]+)`")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of PAGES, and the files that pages link to."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=as_markdown(ROOT / path)))
    for file in list(files.documentation_pages()):
        for link in LINK.finditer(file.content_string):
            path = in_repository(link[2], file.src_uri)
            if path and is_copied(path) and files.get_file_from_path(copy_of(path)) is None:
                files.append(
                    File.generated(config, copy_of(path), content=(ROOT / path).read_text())
                )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Changes the links that lead to files of the repository."""
    here = page.file.src_uri

    def change(link: re.Match) -> str:
        text, path, anchor = link[1], in_repository(link[2], here), link[3] or ""
        if path is None:
            return link[0]
        if module := module_of(path):
            return f"[{text}][{module}]"
        if path in PAGES:
            target = PAGES[path]
        elif path.startswith("docs/"):
            target = path.removeprefix("docs/")
        elif is_copied(path):
            target = copy_of(path)
        else:
            return f"`{path}`"  # a folder
        return f"[{text}]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{anchor})"

    return LINK.sub(change, markdown)


def in_repository(target: str, page: str) -> str | None:
    """The file or folder of the repository that a link on a page leads to."""
    source = SOURCES.get(page, f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    return path if "://" not in target and (ROOT / path).exists() else None


def module_of(path: str) -> str | None:
    """The module of the package that a file or folder is."""
    name = re.fullmatch(r"projects/GFocal/(gfocal(/\w+)*?)(/__init__)?(\.py)?", path)
    return name[1].replace("/", ".") if name else None


def is_copied(path: str) -> bool:
    inside = path.startswith("docs/") or path in PAGES or module_of(path)
    return not inside and (ROOT / path).is_file()


def copy_of(path: str) -> str:
    return f"source/{path}.txt"


def as_markdown(path: Path) -> str:
    """A markdown file as it is, a notebook as its cells."""
    text = path.read_text()
    return text if path.suffix == ".md" else "\n\n".join(cells(json.loads(text), path.name))


def cells(notebook: dict, name: str) -> Iterator[str]:
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
    yield f'<a href="{name}" download>The notebook</a>'


class Roles(griffe.Extension):
    """Docstrings name other objects as Sphinx reads it; this makes markdown of it."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring:
            obj.docstring.value = ROLE.sub(r"[`\1`][]", obj.docstring.value)
