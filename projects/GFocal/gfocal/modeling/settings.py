"""The numbers of inference: which values are allowed, whoever sets them and whenever.

Scores, thresholds and IoUs are in [0, 1]; limits count candidates or detections.
"""

import difflib
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple

__all__ = [
    "COUNT",
    "DETECTOR",
    "EXPONENT",
    "IOU",
    "NOT_NEGATIVE",
    "PROBABILITY",
    "RETINANET",
    "UNSET",
    "YACS",
    "Checked",
    "ScoreThresh",
    "Setting",
    "check_setting",
    "check_settings",
    "check_yacs",
    "for_classes",
    "index_of_class",
]

# A threshold of all classes, of each, or of some by index or name, with "default" for the others.
ScoreThresh = float | Sequence[float] | Mapping[int | str, float]


class _Unset:
    """The default of an argument whose value is decided elsewhere; None would be a value."""

    def __repr__(self) -> str:
        return "UNSET"

    def __reduce__(self) -> str:
        return "UNSET"  # a copy, and a pickle, is the same object


UNSET: Any = _Unset()


class Setting(NamedTuple):
    """The kind of a setting.

    Attributes:
        expected: its allowed values in words.
        fits: whether a value is one of them.
    """

    expected: str
    fits: Callable[[Any], bool]


def check_setting(key: str, value: Any, setting: Setting) -> None:
    """
    Raises:
        ValueError: the value does not fit; the message has the key and the allowed values.
    """
    if not setting.fits(value):
        got = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        raise ValueError(f"{key} is {got!r}; expected {setting.expected}")


def check_settings(setting: Setting, **values: Any) -> None:
    """:func:`check_setting` of several of one kind, by name."""
    for key, value in values.items():
        check_setting(key, value, setting)


def _is_number(value: Any) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


def _is_score(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1


def _is_score_thresh(value: Any) -> bool:
    if isinstance(value, Mapping):
        keys = all(isinstance(k, (str, int)) and not isinstance(k, bool) for k in value)
        return bool(value) and keys and all(map(_is_score, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return bool(value) and all(map(_is_score, value))
    return _is_score(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


SCORE = Setting("a number in [0, 1)", _is_score)
SCORES = Setting(
    "a number in [0, 1), a list of one for each class, or such numbers by the classes' names or "
    'indices (and "default")',
    _is_score_thresh,
)
PIXELS = Setting("a number of pixels of at least 0", lambda x: _is_number(x) and x >= 0)
IOU = Setting("a number in [0, 1]", lambda x: _is_number(x) and 0 <= x <= 1)
COUNT = Setting("an integer, at least 1", _is_count)
POSITIVE = Setting("a number above 0", lambda x: _is_number(x) and x > 0)
NOT_NEGATIVE = Setting("a number of at least 0", lambda x: _is_number(x) and x >= 0)
# Of a modulating factor; between 0 and 1 its gradient is infinite at 0.
EXPONENT = Setting("0 or at least 1", lambda x: _is_number(x) and (x == 0 or x >= 1))
PROBABILITY = Setting("a number strictly between 0 and 1", lambda x: _is_number(x) and 0 < x < 1)
SIZES = Setting(
    "a list of integers, each at least 1",
    lambda x: (
        isinstance(x, Sequence) and not isinstance(x, str) and bool(x) and all(map(_is_count, x))
    ),
)
FLAG = Setting("true or false", lambda x: isinstance(x, bool))
PAIRS = Setting(
    "a list of a number in [0, 1) for each class, or of [name or index, number] pairs",
    lambda x: (
        isinstance(x, Sequence)
        and not isinstance(x, str)
        and (_is_pairs(x) or all(map(_is_score, x)))
    ),
)


def _is_pairs(value: Sequence[Any]) -> bool:
    is_pair = (isinstance(x, Sequence) and not isinstance(x, str) and len(x) == 2 for x in value)
    return bool(value) and all(is_pair) and _is_score_thresh(dict(value))


# Arguments of GFL, and of Detectron2's RetinaNet.
RETINANET = {
    "test_score_thresh": SCORE,
    "test_topk_candidates": COUNT,
    "test_nms_thresh": IOU,
    "max_detections_per_image": COUNT,
}
DETECTOR = {**RETINANET, "test_score_thresh": SCORES, "test_clip_margin": PIXELS}

# Keys of a yacs config, where it has them.
YACS = {
    "MODEL.GFL.SCORE_THRESH_TEST": SCORE,
    "MODEL.GFL.SCORE_THRESH_PER_CLASS": PAIRS,
    "MODEL.GFL.TOPK_CANDIDATES_TEST": COUNT,
    "MODEL.GFL.CLIP_MARGIN_TEST": PIXELS,
    "MODEL.GFL.NMS_THRESH_TEST": IOU,
    "MODEL.GFL.NMS_CLASS_AGNOSTIC": FLAG,
    "MODEL.GFL.NMS_SIGMA": POSITIVE,
    "MODEL.CORNERNET.SCORE_THRESH_TEST": SCORE,
    "MODEL.CORNERNET.TOPK_CANDIDATES_TEST": COUNT,
    "MODEL.CORNERNET.NUM_CORNERS_TEST": COUNT,
    "MODEL.CORNERNET.MAX_DISTANCE_TEST": POSITIVE,
    "MODEL.CORNERNET.NMS_SIGMA": POSITIVE,
    "MODEL.CORNERNET.FLIP_TEST": FLAG,
    "MODEL.CENTERNET.SCORE_THRESH_TEST": SCORE,
    "MODEL.CENTERNET.TOPK_CANDIDATES_TEST": COUNT,
    "MODEL.CENTERNET.NMS_THRESH_TEST": IOU,
    "MODEL.SSD.SCORE_THRESH_TEST": SCORE,
    "MODEL.SSD.TOPK_CANDIDATES_TEST": COUNT,
    "MODEL.SSD.NMS_THRESH_TEST": IOU,
    "MODEL.RETINANET.SCORE_THRESH_TEST": SCORE,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": COUNT,
    "MODEL.RETINANET.NMS_THRESH_TEST": IOU,
    "TEST.DETECTIONS_PER_IMAGE": COUNT,
}


def check_yacs(cfg: Any) -> None:
    """Checks the inference settings of a yacs config.

    Raises:
        ValueError: a value does not fit; the message has the key and the allowed values.
    """
    for key, setting in YACS.items():
        try:
            value = attrgetter(key)(cfg)
        except AttributeError:  # a config without our keys
            continue
        check_setting(key, value, setting)


class Checked:
    """A part whose settings are checked whenever they are set.

    Attributes:
        SETTINGS: the kind of each.
    """

    SETTINGS: ClassVar[Mapping[str, Setting]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.SETTINGS:
            check_setting(name, value, self.SETTINGS[name])
            if isinstance(value, Mapping):  # of a config, which it would hold on to
                value = dict(value)
            elif isinstance(value, Sequence):
                value = tuple(value)
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.SETTINGS)
        return f"{type(self).__name__}({arguments})"


def for_classes(
    thresh: ScoreThresh,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    default: float = 0.05,
) -> float | tuple[float, ...]:
    """Resolves a score threshold.

    Args:
        thresh: one of all classes; a list of one for each; or some by index or name. There
            "default" is that of the others.
        num_classes: K.
        class_names: of the K classes, for thresholds by name.
        default: of the classes that a mapping does not name, if it has no "default".

    Returns:
        the one threshold, or K.

    Raises:
        ValueError: the list has another length, or a name or index is that of no class.
    """
    if isinstance(thresh, Mapping):
        numbers_of = dict(thresh)
        ret = [float(numbers_of.pop("default", default))] * num_classes
        named: dict[int, Any] = {}
        for key, number in numbers_of.items():
            index = index_of_class(key, num_classes, class_names)
            if index in named:
                raise ValueError(
                    f"score_thresh has {named[index]!r} and {key!r}, which are the same class"
                )
            named[index] = key
            ret[index] = float(number)
        return tuple(ret)
    if not isinstance(thresh, Sequence):
        return thresh
    if len(thresh) != num_classes:
        raise ValueError(
            f"score_thresh has {len(thresh)} numbers, {list(thresh)}; expected one for each of "
            f"{num_classes} classes"
        )
    return tuple(float(x) for x in thresh)


def index_of_class(key: int | str, num_classes: int, class_names: Sequence[str] | None) -> int:
    """The index of a class in 0..num_classes - 1, from it or from the name.

    Raises:
        ValueError: there is no such class, or it is not the only one.
    """
    if not isinstance(key, str):
        if not 0 <= key < num_classes:
            raise ValueError(
                f"score_thresh has class {key}; expected an index in 0..{num_classes - 1}"
            )
        return key
    if class_names is None:
        raise ValueError(
            f"score_thresh has the class name {key!r}, but no class names are known; pass "
            "class_names, or use indices"
        )
    names = list(class_names)
    if len(names) != num_classes:
        raise ValueError(f"class_names has {len(names)} names; expected {num_classes}")
    if names.count(key) != 1:
        if key in names:
            raise ValueError(f"score_thresh has {key!r}, the name of several classes; use indices")
        nearest = difflib.get_close_matches(key, names, n=3, cutoff=0.5) or names[:5]
        raise ValueError(
            f"score_thresh has the class name {key!r}, which is unknown; did you mean "
            f"{', '.join(nearest)}?"
        )
    return names.index(key)
