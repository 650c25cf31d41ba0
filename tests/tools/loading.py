"""How tests import a command-line tool."""

import importlib.util
from pathlib import Path
from types import ModuleType

TOOLS = Path(__file__).parents[2] / "tools"


def load_tool(name: str) -> ModuleType:
    """The module tools/name.py, by its path: Detectron2 installs a package called tools too."""
    spec = importlib.util.spec_from_file_location(f"gfocal_tools_{name}", TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
