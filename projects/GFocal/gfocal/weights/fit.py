"""Whether weights are those of a model, and the differences if they are not."""

import functools
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from detectron2.config import instantiate
from torch import Tensor

from ..config import model_zoo
from .names import DetectorTable
from .tables import TABLES, table_of

__all__ = [
    "check_state_dict",
    "expected_state_dict",
    "find_configs",
    "is_optional",
    "problems_of",
    "refuse_incompatible",
    "refuse_misfit",
]

# A counter that frozen batch norm does not keep, and the anchors: constants, which Detectron2 0.5
# kept in the state dict.
_OPTIONAL = re.compile(r".*\.num_batches_tracked|.*\bcell_anchors\..*")


def is_optional(name: str) -> bool:
    """Whether a file may lack a weight, or have it in excess."""
    return _OPTIONAL.fullmatch(name) is not None


def check_state_dict(
    state_dict: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, str]:
    """The problems of a state dict: {key: problem}, or {}.

    Args:
        state_dict: name -> tensor.
        expected: the state dict of a model (of any device, "meta" too).
    """
    problems = {}
    for name in dict.fromkeys([*expected, *state_dict]):
        if is_optional(name):
            continue
        if name not in state_dict:
            problems[name] = "missing in the file"
        elif name not in expected:
            problems[name] = "not in the model"
        elif state_dict[name].shape != expected[name].shape:
            got, want = (tuple(x[name].shape) for x in (state_dict, expected))
            problems[name] = f"{got} in the file, {want} in the model"
    return problems


def expected_state_dict(model_cfg: Any) -> dict[str, Tensor]:
    """Names and shapes of a model's weights, without memory: tensors on the meta device.

    Args:
        model_cfg: ``model`` of a LazyConfig.
    """
    with torch.device("meta"):
        return instantiate(model_cfg).state_dict()


def find_configs(
    state_dict: Mapping[str, Tensor], table: DetectorTable | None = None
) -> tuple[list[str], dict[str, str]]:
    """The published models (LazyConfigs of the zoo) that a state dict of ours belongs to.

    Args:
        state_dict: name -> tensor.
        table: of its detector; by default it is told by the names.

    Returns:
        The names of the nearest configs, of the same detector if the zoo has it, and the problems
        with respect to them, in the form of :func:`check_state_dict`: {} if it is complete.
    """
    table = table or table_of(state_dict)
    num_classes = table.classes_of(state_dict)
    fits: dict[str, dict[str, str]] = {}
    others: dict[str, dict[str, str]] = {}
    for name in model_zoo.list_configs():
        if name.endswith(".py"):
            expected = _expected_of_zoo(name, num_classes or 80)
            same = fits if table_of(expected) is table else others
            same[name] = check_state_dict(state_dict, expected)
    fits = fits or others
    fewest = min(map(len, fits.values()))
    nearest = [name for name, problems in fits.items() if len(problems) == fewest]
    return nearest, fits[nearest[0]]


@functools.cache
def _expected_of_zoo(name: str, num_classes: int) -> dict[str, Tensor]:
    """:func:`expected_state_dict` of a published model."""
    cfg = model_zoo.get_config(name).model
    cfg.num_classes = num_classes
    return expected_state_dict(cfg)


def problems_of(
    state_dict: Mapping[str, Tensor], model_cfg: Any, table: DetectorTable | None
) -> tuple[list[str], dict[str, str]]:
    """:func:`find_configs`, or the same for one model: [], and the problems."""
    if model_cfg is None:
        return find_configs(state_dict, table)
    return [], check_state_dict(state_dict, expected_state_dict(model_cfg))


def refuse_misfit(path: str | os.PathLike, problems: Mapping[str, str], names: list[str]) -> None:
    """Raises ValueError with the answer of :func:`problems_of`, if there are any."""
    if problems:
        whose = "the config's model"
        if names:
            whose = (
                "a published model (another needs its config), the nearest of which is " + names[0]
            )
        lines = [f"{name}: {problem}" for name, problem in problems.items()]
        raise ValueError(
            f"the weights in {path} are not those of {whose}:" + _listed(lines, len(lines))
        )


def refuse_incompatible(
    missing: Iterable[str],
    incorrect_shapes: Iterable[tuple[str, Any, Any]],
    unexpected: Iterable[str],
) -> None:
    """Raises ValueError with the weights that Detectron2's checkpointers found incompatible, if
    there are any."""
    shapes = {key: (tuple(got), tuple(expected)) for key, got, expected in incorrect_shapes}
    # fvcore calls a key of another shape missing as well.
    missing = [key for key in missing if key not in shapes]
    lines = [f"{key}: missing in the file" for key in missing if not is_optional(key)]
    lines += [f"{k}: {got} in the file, {want} in the model" for k, (got, want) in shapes.items()]
    lines += [f"{key}: not in the model" for key in unexpected if not is_optional(key)]
    if not lines:
        return
    reason = "the weights are not this model's"
    if len(lines) == len(shapes):
        reason += _other_classes(shapes)
    raise ValueError(f"{reason}:" + _listed(lines))


def _other_classes(shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> str:
    """A sentence if shapes, {name: (in the file, in the model)}, differ by the classes alone."""
    for table in TABLES:
        got, want = shapes.get(table.class_rows[0], ((), ()))
        if got and shapes.keys() == set(table.class_rows):
            return f" (the file has {got[0]} classes, num_classes is {want[0]})"
    return ""


def _listed(lines: list[str], limit: int = 40) -> str:
    """The first lines of a message, as many as a reader needs."""
    more = [f"... and {len(lines) - limit} more"] if len(lines) > limit else []
    return "".join(f"\n  {line}" for line in lines[:limit] + more)
