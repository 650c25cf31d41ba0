"""The rooms stand on floors: imports run downwards, and never in a circle."""

import ast

from tests.helpers.import_graph import (
    FLOORS,
    PACKAGE,
    circle,
    imported,
    lines,
    module_of,
    read_graph,
    upwards,
    wing,
)

GRAPH = read_graph()


def test_every_module_has_a_floor():
    assert {wing(module) for module in GRAPH} == FLOORS.keys()
    assert len(GRAPH) > 60


def test_imports_run_downwards():
    assert upwards(GRAPH) == []


def test_there_is_no_circle():
    assert circle(GRAPH) == []


def test_the_paper_stands_alone():
    """modeling/ imports nothing but process/, and the rule of padding, which the runtime without
    PyTorch reads too: no engine, data, weights, config or pictures."""
    targets = {
        wing(target)
        for module, found in GRAPH.items()
        if wing(module) == "modeling"
        for target in found
    }
    assert targets == {"_padding", "modeling", "process"}


def test_no_architecture_imports_another():
    """But for GFL with masks and GFL with a teacher, which are GFL."""
    detectors = {module for module in GRAPH if module.startswith("gfocal.detectors.")}
    assert len(detectors) >= 2
    found = {module: GRAPH[module] & detectors for module in detectors}
    for name in ("masked", "distilled"):
        assert found.pop(f"gfocal.detectors.{name}") == {"gfocal.detectors.gfl"}
    assert not any(found.values())


def test_the_engine_reaches_no_architecture():
    """Not by way of other wings either. config/ is left out: it registers architectures by name. So
    are the names of a lazy package: the import of one of its modules imports none of them."""
    reached: set[str] = set()
    to_do = [module for module in GRAPH if wing(module) == "engine"]
    while to_do:
        module = to_do.pop()
        if module not in reached and wing(module) not in ("config", "gfocal"):
            reached.add(module)
            # A module's packages are imported before it.
            packages = {module.rsplit(".", n)[0] for n in range(1, module.count("."))}
            to_do += [*(() if is_lazy(module) else GRAPH[module]), *packages]
    assert {"gfocal.data.loader", "gfocal.export.optimize"} <= reached
    assert not {wing(module) for module in reached} & {"modeling", "detectors", "backbones"}


def is_lazy(module):
    file = PACKAGE.parent / module.replace(".", "/") / "__init__.py"
    return file.exists() and "lazy_names(__name__" in file.read_text()


def test_circles_and_arrows_upwards_are_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    graph = {"gfocal.modeling.x": {"gfocal.engine.y", "gfocal.data.z", "gfocal.process.w"}}
    assert upwards(graph) == [
        "gfocal.modeling.x -> gfocal.data.z",
        "gfocal.modeling.x -> gfocal.engine.y",
    ]
    assert list(lines(graph)) == ["2 modeling (1 files) -> engine, data, process"]


def test_every_kind_of_import_is_read():
    source = """
from typing import TYPE_CHECKING
import gfocal.data.coco
if TYPE_CHECKING:
    from ..engine import trainer
def f():
    from . import boxes
    from .matchers.atss import ATSSMatcher
"""
    found = imported("gfocal.modeling.x", False, source)
    assert {
        "gfocal.data.coco",
        "gfocal.engine.trainer",
        "gfocal.modeling.boxes",
        "gfocal.modeling.matchers.atss.ATSSMatcher",
    } <= found
    assert "gfocal.modeling.matchers.x" not in found
    assert imported("gfocal.modeling", True, "from ..process import x") == {"gfocal.process.x"}
    assert module_of("gfocal.process.x", {"gfocal", "gfocal.process"}) == "gfocal.process"
    assert module_of("gfocal.model_zoo", {"gfocal"}) == "gfocal"
    assert module_of("torch.nn", {"gfocal"}) == ""


def test_files_and_functions_are_short():
    """350 lines a file, 50 a function without its docstring."""
    for file in PACKAGE.rglob("*.py"):
        source = file.read_text()
        assert len(source.splitlines()) <= 350, file
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                documented = ast.get_docstring(node) is not None
                start = node.body[0].end_lineno + 1 if documented else node.lineno
                assert node.end_lineno - start < 50, f"{file}: {node.name}"
