"""Operators that make a GPU's queue run empty. (A CPU runs the same, so they can be counted.)"""

import traceback
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gfocal

# Not by its name: a clone may lie in a folder that is called gfocal too.
PACKAGE = Path(gfocal.__file__).parent

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2"}


class Synchronisations(TorchDispatchMode):
    """Collects (operator, file of gfocal that asks for it)."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name.startswith("index") and any(
            x is not None and x.dtype in (torch.bool, torch.uint8)
            for arg in args
            if isinstance(arg, (list, tuple))
            for x in arg
        )
        if name in WAITING or masks:
            frames = [Path(frame.filename) for frame in traceback.extract_stack()]
            frames = [file for file in frames if file.is_relative_to(PACKAGE)]
            self.found.append((name, frames[-1].name if frames else "autograd"))
        return func(*args, **(kwargs or {}))
