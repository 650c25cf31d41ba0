"""The package's import graph, read from the source with ``ast``.

All imports count, those inside functions and those for type hints too. As a text:

    python -m tests.helpers.import_graph
"""

import ast
from collections.abc import Container, Iterable
from pathlib import Path

import gfocal

PACKAGE = Path(gfocal.__file__).parent
# A wing may import the wings of lower floors, and itself.
FLOORS = {
    "_installed": 0,
    "_lazy": 0,
    "_moved": 0,
    "_padding": 0,
    "_version": 0,
    "process": 1,
    "solver": 1,
    "modeling": 2,
    "backbones": 2,
    "data": 2,
    "detectors": 3,
    "config": 4,
    "weights": 5,
    "export": 5,
    "engine": 6,
    "inspect": 6,
    "benchmarks": 6,
    "cli": 7,
    "__main__": 8,
    "gfocal": 8,  # what `import gfocal` offers
}


def wing(module: str) -> str:
    """The part of the package that a module is in; "gfocal" for the package itself."""
    return module.split(".")[1] if "." in module else module


def imported(module: str, is_package: bool, source: str) -> set[str]:
    """Dotted names of all that a source imports, by whatever statement."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if is_package else module.split(".")[:-1]
            parts = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def read_graph() -> dict[str, set[str]]:
    """{module: the modules of the package that it imports}."""
    files = {}
    for root, name in ((PACKAGE, "gfocal"), (benchmarks_folder(), "gfocal.benchmarks")):
        for file in root.rglob("*.py"):
            parts = file.relative_to(root).with_suffix("").parts
            if "configs" not in parts:
                parts = parts[:-1] if parts[-1] == "__init__" else parts
                files[".".join([name, *parts])] = file
    return {
        module: {
            target
            for name in imported(module, file.name == "__init__.py", file.read_text())
            if (target := module_of(name, files)) not in ("", module)
        }
        for module, file in files.items()
    }


def module_of(name: str, modules: Container[str]) -> str:
    """The module that a dotted name is, or is in; "" for none."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def benchmarks_folder() -> Path:
    """benchmarks/: inside the installed package, else at the top of the checkout."""
    inside = PACKAGE / "benchmarks"
    return inside if inside.is_dir() else PACKAGE.parents[2] / "benchmarks"


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; [] for none."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for target in sorted(graph[name]):
            if found := visit(target):
                return found
        done.add(path.pop())
        return []

    return next((found for name in sorted(graph) if (found := visit(name))), [])


def upwards(graph: dict[str, set[str]]) -> list[str]:
    """Imports of a higher floor, or of another wing of the same one."""
    return sorted(
        f"{module} -> {target}"
        for module, targets in graph.items()
        for target in targets
        if wing(target) != wing(module) and FLOORS[wing(target)] >= FLOORS[wing(module)]
    )


def lines(graph: dict[str, set[str]]) -> Iterable[str]:
    """A line a wing, the highest floor first."""
    wings = sorted({wing(module) for module in graph}, key=lambda name: (-FLOORS[name], name))
    for name in wings:
        modules = [module for module in graph if wing(module) == name]
        targets = {wing(target) for module in modules for target in graph[module]} - {name}
        arrows = ", ".join(sorted(targets, key=lambda x: (-FLOORS[x], x))) or "nothing"
        yield f"{FLOORS[name]} {name} ({len(modules)} files) -> {arrows}"


if __name__ == "__main__":
    print("\n".join(lines(read_graph())))
