"""Reading other people's files without running code from them."""

import os
import re
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["load_mmdet_checkpoint", "load_weights_only", "named_tensors", "refuse_exported"]

_EXPORTED = {
    ".onnx": "an ONNX file: gfocal.export.OnnxPredictor and gfocal predict run it",
    ".ts": "a program of TorchScript: torch.jit.load runs it",
    ".pt2": "a program of torch.export: torch.export.load runs it",
}


def refuse_exported(path: str | os.PathLike) -> None:
    """Raises ValueError for a file of ``gfocal export``, by its ending: it is no checkpoint."""
    if what := _EXPORTED.get(os.path.splitext(path)[1].lower()):
        raise ValueError(f"{os.fspath(path)} is {what}. Expected a checkpoint, such as a .pth")


def load_weights_only(path: str | os.PathLike) -> dict[str, Any]:
    """``torch.load`` of a dict, which refuses anything that would run code.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint or needs to run code to be read.
    """
    refuse_exported(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no checkpoint {str(path)!r}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file: the reader can fail in any way
        # Until 2.3 and from 2.4 on.
        code = re.search(r"(?:Unsupported class|GLOBAL) ([\w.]+)", str(error))
        if code is None:
            # The rest of PyTorch's message advises to run the code.
            reason = str(error).rpartition("WeightsUnpickler error:")[2].strip()
            reason = re.split(r"\n| In PyTorch 2\.6| Re-running", reason)[0]
            raise ValueError(
                f"{path} is not a PyTorch checkpoint, is damaged, or holds more than weights "
                f"({type(error).__name__}: {reason})"
            ) from error
        raise ValueError(
            f"{path} can only be read by running code that it names ({code[1]}), which is refused. "
            "If you trust the file, save its weights alone where it was made: torch.save({KEY: "
            "torch.load(FILE, weights_only=False)[KEY]}, NEW_FILE), where KEY is "
            '"state_dict" in a file of mmdetection and "model" in one of Detectron2'
        ) from error
    if isinstance(checkpoint, Mapping):
        return dict(checkpoint)
    raise ValueError(f"{path} holds a {type(checkpoint).__name__}; expected a dict of weights")


def load_mmdet_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint of mmdetection 2.x or 3.x, without running its code.

    Args:
        path: a file with a ``state_dict``, or a state dict itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not such a file, cannot be read without running code, or is from
            mmdetection 1.x, which centres anchors elsewhere.
    """
    checkpoint = load_weights_only(path)
    meta = checkpoint.get("meta")
    state_dict = named_tensors(path, checkpoint, "state_dict")
    version = str(meta.get("mmdet_version", "")) if isinstance(meta, Mapping) else ""
    sign = None
    if re.match(r"[01]\.", version):
        sign = f"its meta says mmdet_version {version}"
    elif any("distribution_project" in name for name in state_dict):
        sign = "it has bbox_head.distribution_project, as only the first GFocal repository has"
    if sign:
        raise ValueError(
            f"{path} is of mmdetection 1.x ({sign}). Its anchors are centred at (stride - 1) / 2 + "
            "i * stride pixels and not at i * stride, so its boxes would be off by half a stride; "
            "take the checkpoint of the same model that mmdetection 2.x or 3.x published"
        )
    if all(name.startswith("module.") for name in state_dict):
        state_dict = {name[len("module.") :]: value for name, value in state_dict.items()}
    return state_dict


def named_tensors(
    path: str | os.PathLike, checkpoint: dict[str, Any], key: str
) -> dict[str, Tensor]:
    """The state dict under a checkpoint's ``key``, or the checkpoint if it has no such key."""
    weights = checkpoint.get(key, checkpoint)
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError(
            f"{path} has no {key} to read: {reprlib.repr(weights)}; expected a dict of tensors"
        )
    tensor = (Tensor, np.ndarray)  # a pickle of Detectron2 has arrays
    named = (isinstance(k, str) and isinstance(v, tensor) for k, v in weights.items())
    others = [repr(name) for name, good in zip(weights, named) if not good]
    if others:
        raise ValueError(
            f"{path} is not a checkpoint with a {key} of named tensors: it has others, under "
            + ", ".join(others[:10])
        )
    return dict(weights)
