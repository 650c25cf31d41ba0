"""The engine trains any detector: its files import none."""

import ast
from pathlib import Path

import gfocal

ROOT = Path(gfocal.__file__).parent
DETECTORS = {"meta_arch", "head", "retinanet", "criterion", "modeling", "detectors"}
# Registers architectures by their names, so that a yacs config finds them.
NOT_FOLLOWED = "config"


def file_of(module: tuple[str, ...]) -> Path | None:
    path = ROOT.joinpath(*module)
    found = [x for x in (path / "__init__.py", path.with_suffix(".py")) if x.is_file()]
    return found[0] if found else None


def imported(file: Path) -> set[tuple[str, ...]]:
    """The modules of gfocal that a file imports anywhere in it, with the packages around them."""
    package = file.relative_to(ROOT).parent.parts
    ret = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                base = ("gfocal", *package[: len(package) + 1 - node.level], *base)
            names = [(*base, alias.name) for alias in node.names]
        for name in names:
            if name[0] == "gfocal":  # not the package itself: it offers something of all rooms
                ret |= {name[1:end] for end in range(2, len(name) + 1)}
    return {module for module in ret if file_of(module)}


def test_the_engine_imports_no_detector():
    seen = set()
    to_do = [(file, "") for file in sorted((ROOT / "engine").glob("*.py"))]
    assert len(to_do) > 10
    while to_do:
        file, way = to_do.pop()
        way = f"{way} -> {file.relative_to(ROOT)}"
        for module in imported(file) - seen:
            assert module[0] not in DETECTORS, f"{way} -> {'.'.join(module)}"
            seen.add(module)
            if module[0] != NOT_FOLLOWED:
                to_do.append((file_of(module), way))
    assert {("data", "loader"), ("export", "optimize"), ("config",)} <= seen
