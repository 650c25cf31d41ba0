"""A row of a table on a small model: a three-way merge of configs."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

__all__ = ["transplanted"]

_NOTHING = object()


def transplanted(row: DictConfig, base: DictConfig, small: DictConfig) -> DictConfig:
    """``small`` with all that ``row`` changes of ``base``, and nothing else of it.

    A key that the row does not change keeps the small model's value. A key that it adds, removes or
    changes gets the row's. Lists are changed as a whole.

    Args:
        row: a model, made of ``base``.
        base: the model of a detector.
        small: another model that was made of it.

    Raises:
        ValueError: both change a key, and not to the same value.
    """
    plain = (OmegaConf.to_container(x) for x in (row, base, small))
    return OmegaConf.create(_merged("model", *plain), flags={"allow_objects": True})


def _merged(where: str, row: Any, base: Any, small: Any) -> Any:
    if row == base:
        return small
    if small in (base, row):
        return row
    if isinstance(row, dict) and isinstance(small, dict):
        before = base if isinstance(base, dict) else {}
        values = {
            key: _merged(f"{where}.{key}", *(x.get(key, _NOTHING) for x in (row, before, small)))
            for key in {**small, **row}
        }
        return {key: value for key, value in values.items() if value is not _NOTHING}
    shown = ["nothing" if x is _NOTHING else repr(x) for x in (row, small, base)]
    raise ValueError(
        f"{where}: the row has {shown[0]} and the small model {shown[1]}, in place of {shown[2]}; "
        "expected that one of them keeps it"
    )
