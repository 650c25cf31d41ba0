"""Writing a weight file, all of it or nothing."""

import os
from typing import Any

import torch

__all__ = ["write_checkpoint"]


def write_checkpoint(checkpoint: dict[str, Any], path: str) -> None:
    """``torch.save`` that keeps the old file until the new one is whole.

    Raises:
        OSError: the file cannot be written.
    """
    part = f"{path}.part"
    try:
        with open(part, "wb") as f:
            torch.save(checkpoint, f)
        os.replace(part, path)
    except RuntimeError as error:  # of PyTorch's writer, where the disk is full
        raise OSError(f"could not write {part}: {error}") from error
    finally:
        if os.path.lexists(part):
            os.remove(part)
