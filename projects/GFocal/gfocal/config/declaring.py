"""Declaring an option: a dataclass's field, with bounds, yacs twin and help as metadata."""

import dataclasses
import json
import numbers
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

__all__ = ["Kind", "Option", "about", "declared", "option", "table"]


class Kind(NamedTuple):
    """The kind of a value.

    Attributes:
        expected: the kind in words.
        fits: whether a value is of this kind.
    """

    expected: str
    fits: Callable[[Any], bool]


class Option(NamedTuple):
    """One option, read off its declaration.

    Attributes:
        key: dotted, e.g. "amp.enabled".
        default: its value if a config does not set it.
        kind: the kind of its value; None for any kind.
        help: a text for the docs.
        yacs: the key of a yacs config with the same meaning, or None.
        added: whether Detectron2 lacks that key.
        short: a word that people write for the key, or None.
    """

    key: str
    default: Any
    kind: Kind | None
    help: str
    yacs: str | None = None
    added: bool = False
    short: str | None = None


def about(
    help: str,
    *,
    least: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """The metadata of an option's dataclass field, beside its type and default.

    Args:
        help: a text for the docs.
        least, below: bounds of a number, `least` included.
        choices: the allowed strings.
        more: `yacs`, `added`, `short`, see :class:`Option`; `kind` in place of that of the type.
    """
    return {"bounds": {"least": least, "below": below, "choices": choices}, "help": help, **more}


def option(default: Any, help: str, **more: Any) -> Any:
    """A field with that default and the metadata of :func:`about`."""
    return dataclasses.field(default=default, metadata=about(help, **more))


def declared(declaration: type, prefix: str = "") -> tuple[Option, ...]:
    """The options of a dataclass and of the dataclasses that are its fields, in order."""
    ret: list[Option] = []
    defaults = declaration()
    for field in dataclasses.fields(declaration):
        key, default = f"{prefix}{field.name}", getattr(defaults, field.name)
        if dataclasses.is_dataclass(default):
            ret += declared(type(default), f"{key}.")
            continue
        metadata = dict(field.metadata)
        bounds = metadata.pop("bounds")
        kind = metadata.pop("kind", None) or _kind(field.type, **bounds)
        ret.append(Option(key, default, kind, **metadata))
    return tuple(ret)


_KINDS: dict[type, tuple[str, type[Any]]] = {
    int: ("an integer", numbers.Integral),
    float: ("a number", numbers.Real),
    bool: ("true or false", bool),
    str: ("a string", str),
}


def _kind(
    annotation: Any, least: float | None, below: float | None, choices: Sequence[str]
) -> Kind | None:
    if annotation is Any:
        return None
    types = typing.get_args(annotation) or (annotation,)  # Optional[int] is (int, NoneType)
    expected, accepted = _KINDS[types[0]]
    if below is not None:
        expected += f" between {least} and {below}, or {least}"
    elif least is not None:
        expected += f", at least {least}"
    if choices:
        expected = " or ".join(f'"{choice}"' for choice in choices)
    expected += ", or null" * (len(types) > 1)

    def fits(value: Any) -> bool:
        if value is None:
            return len(types) > 1
        return (
            isinstance(value, accepted)
            and isinstance(value, bool) == (accepted is bool)  # Python's True is an integer too
            and (least is None or value >= least)
            and (below is None or value < below)
            and (not choices or value in choices)
        )

    return Kind(expected, fits)


def table(options: Sequence[Option], prefix: str = "") -> str:
    """Options as a markdown table.

    Args:
        options: one row each.
        prefix: of their keys in a LazyConfig.
    """
    lines = ["| LazyConfig | yacs | default | value | |", "|---|---|---|---|---|"]
    for x in options:
        yacs = f"`{x.yacs}`" if x.yacs else ""
        value = x.kind.expected if x.kind else "keys"
        default = json.dumps(x.default)
        lines.append(f"| `{prefix}{x.key}` | {yacs} | `{default}` | {value} | {x.help} |")
    return "\n".join(lines)
