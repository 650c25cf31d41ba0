"""An ONNX file of ``gfocal export``, opened in onnxruntime and checked.

K: number of classes, C: channels, N: images, D: detections of all of them.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .._installed import MissingPackageError, is_installed
from .card import KEY, ModelCard

__all__ = ["open_onnx", "session_of"]

_FLOATS, _INTEGERS = "tensor(float)", "tensor(int64)"
_GPU, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# Of resizing: what each rule must have, and may have.
_RULES = (
    ({"short_edge"}, {"short_edge", "max_size"}),
    ({"height", "width"}, {"height", "width"}),
    ({"center_pad"}, {"center_pad"}),
)


def open_onnx(
    path: str | os.PathLike,
    providers: Sequence[Any] | None = None,
    threads: int | None = None,
) -> tuple[Any, ModelCard]:
    """Opens a file of level "full".

    Args:
        path: the file.
        providers: of onnxruntime, the first that can is used; by default CUDA where onnxruntime
            has it, else the CPU.
        threads: that a layer uses; by default onnxruntime decides.

    Returns:
        the ``onnxruntime.InferenceSession`` and the card.

    Raises:
        FileNotFoundError: no such file.
        MissingPackageError: onnxruntime is not installed.
        TypeError: ``threads`` is no integer.
        ValueError: not an ONNX file, not one of ``gfocal export``, or not one of level "full"; a
            card that is wrong, or not that of the graph; a provider that is not there.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no ONNX file {path!r} (working directory: {os.getcwd()})")
    if not is_installed("onnxruntime"):
        raise MissingPackageError(
            f"{path}: ONNX files need onnxruntime, which is not installed: "
            "pip install gfocal[export] (or, without PyTorch, pip install onnxruntime)"
        )
    session = session_of(path, providers, threads)
    card = ModelCard.from_json(session.get_modelmeta().custom_metadata_map.get(KEY), path)
    if card.level != "full":
        raise ValueError(
            f"{path} is of level {card.level!r}, whose outputs are no detections yet; expected one "
            "of gfocal export --level full"
        )
    _check_card(card, path)
    _check_graph(session, card, path)
    return session, card


def session_of(
    path: str,
    providers: Sequence[Any] | None = None,
    threads: int | None = None,
    constants: Mapping[str, Any] | None = None,
) -> Any:
    """The ``onnxruntime.InferenceSession`` of a file. ``constants`` are ``OrtValue`` in the place
    of its own, by name; they must live as long as the session. The other arguments, and what is
    raised: see :func:`open_onnx`."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    asked = [name for name in (_GPU, _CPU) if name in there] if providers is None else providers
    names = [x if isinstance(x, str) else x[0] for x in asked]
    if wrong := [name for name in names if name not in there]:
        raise ValueError(
            f"providers has {', '.join(map(repr, wrong))}; this onnxruntime "
            f"{onnxruntime.__version__} has {', '.join(there)}"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: they are raised
    if threads is not None:
        if isinstance(threads, bool) or not isinstance(threads, int):
            raise TypeError(f"threads is {threads!r}; expected an integer, or None")
        if threads < 1:
            raise ValueError(f"threads is {threads}; expected at least 1")
        options.intra_op_num_threads = threads
    for name, value in (constants or {}).items():
        options.add_initializer(name, value)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=list(asked))
    except Exception as error:  # its errors have no base class of their own
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path} is not an ONNX file that onnxruntime {onnxruntime.__version__} reads, or is "
            f"damaged ({reason})"
        ) from error
    # onnxruntime goes on without a provider that fails.
    if providers and names[0] not in session.get_providers():
        raise ValueError(f"the provider {names[0]} does not start on this machine, see onnxruntime")
    return session


def _check_card(card: ModelCard, path: str) -> None:
    """Refuses a card whose fields do not fit together."""
    classes, channels = card.num_classes, len(card.pixel_mean)
    rule = card.resize
    if rule is None:
        raise ValueError(
            f"{path} does not say how an image is resized (its config has other augmentations than "
            "one ResizeShortestEdge, Resize or CenterPad), so OnnxPredictor cannot"
        )
    problems = {
        "num_classes": classes < 1,
        "class_names": len(card.class_names) not in (0, classes),
        "category_ids": len(card.category_ids) not in (0, classes),
        "pixel_std": len(card.pixel_std) != channels or not all(x > 0 for x in card.pixel_std),
        "pixel_mean": channels < 1,
        "size_divisibility": card.size_divisibility < 1,
        "square_size": card.square_size < 0,
        "resize": bool(rule) and not _is_rule(rule, channels),
    }
    wrong = [f"{name} {getattr(card, name)!r}" for name, is_wrong in problems.items() if is_wrong]
    if wrong:
        raise ValueError(
            f"{path}: its metadata {KEY!r} has {', '.join(wrong)}, with num_classes {classes} and "
            f"{channels} channels"
        )


def _is_rule(rule: Mapping[str, Any], channels: int) -> bool:
    if not any(least <= rule.keys() <= most for least, most in _RULES):
        return False
    if "center_pad" in rule:
        return len(rule["center_pad"]["mean"]) in (1, channels)
    return min(rule.values()) >= 1


def _check_graph(session: Any, card: ModelCard, path: str) -> None:
    """Refuses a graph whose inputs and outputs are not those of its card."""
    sides: tuple[int | None, ...] = (None, None)
    if card.image_size:
        sides = card.image_size
        if card.preprocessing == "outside":
            sides = card.padding.size(sides)
    inputs: dict[str, tuple[str, Sequence[int | None]]] = {
        "images": (_FLOATS, (None, len(card.pixel_mean), *sides))
    }
    if card.takes_sizes:
        inputs["image_sizes"] = (_INTEGERS, (None, 2))
    outputs: dict[str, tuple[str, Sequence[int | None]]] = {
        "boxes": (_FLOATS, (None, 4)),
        "scores": (_FLOATS, (None,)),
        "classes": (_INTEGERS, (None,)),
        "image_idxs": (_INTEGERS, (None,)),
    }
    if card.stds:
        outputs["stds"] = (_FLOATS, (None, 4))
    _compare(path, "inputs", session.get_inputs(), inputs)
    _compare(path, "outputs", session.get_outputs(), outputs)
    for x in session.get_inputs():
        fixed = [size for size, known in zip(x.shape, inputs[x.name][1]) if known is None]
        if any(isinstance(size, int) for size in fixed):
            raise ValueError(
                f"{path}: its input {x.name} has the fixed shape {x.shape}; expected one of any "
                "number of images and any height and width, as gfocal export writes"
            )


def _compare(
    path: str,
    what: str,
    found: Sequence[Any],
    expected: Mapping[str, tuple[str, Sequence[int | None]]],
) -> None:
    described = {x.name: (x.type, x.shape) for x in found}
    fits = described.keys() == expected.keys() and all(
        described[name][0] == kind
        and len(described[name][1]) == len(shape)
        and all(
            size is None or not isinstance(got, int) or got == size
            for size, got in zip(shape, described[name][1])
        )
        for name, (kind, shape) in expected.items()
    )
    if not fits:
        raise ValueError(
            f"{path}: its {what} are {_listed(described)}; expected those that its metadata tells, "
            f"{_listed(expected)}"
        )


def _listed(values: Mapping[str, tuple[str, Sequence[Any]]]) -> str:
    return ", ".join(
        f"{name} {kind} ({', '.join('?' if x is None else str(x) for x in shape)})"
        for name, (kind, shape) in values.items()
    )
