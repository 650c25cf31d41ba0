"""What is wrong with a dataset, collected: one error or one warning with counts by reason."""

import functools
import logging
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Defects", "Finding"]

_SHOWN = 5  # examples in an error message
_KEPT = 3  # examples of each reason in a table

_MUCH = 0.1  # of the images or annotations: leaving out more is no advice

_HOW_TO_SKIP = (
    "If it is right as it is: check=False (data.check=False in custom_coco.py, +data.check=False "
    "in other LazyConfigs, DATASETS.CHECK False in yacs)"
)
_HOW_TO_DROP = 'on_invalid="drop" (in custom_coco.py data.on_invalid=drop) leaves them out'


class Finding(NamedTuple):
    """A row of the table of ``gfocal check``.

    Attributes:
        kind: "images", "annotations", "boxes" or "ids".
        reason: what was found.
        number: of records; 0 for the dataset as a whole.
        is_error: whether a training refuses it.
        examples: the first ones.
    """

    kind: str
    reason: str
    number: int
    is_error: bool
    examples: tuple[str, ...] = ()


class Defects:
    """Collects the invalid entries of one dataset by reason, and what is suspicious about it.

    Attributes:
        name: the json or the dataset, for messages.
        num_images, num_annotations: of all, also the invalid ones.
        counts: {"images" or "annotations": {reason: number}}, of what can be left out.
        errors: of the dataset as a whole. Leaving entries out does not help.
        warnings: what may be right.
        on_invalid: what a training does with invalid entries: "error" or "drop"; "" if nothing can
            leave them out.
        modes: number of images by their kind of pixels, PIL's mode.
    """

    def __init__(self, name: str):
        self.name = name
        self.num_images = self.num_annotations = 0
        self.counts: dict[str, dict[str, int]] = {"images": {}, "annotations": {}}
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.on_invalid = "error"
        self.modes: Counter[str] = Counter()
        self.missing_file = False
        self._examples: list[str] = []
        self._by_reason: dict[str, list[str]] = {}

    def add(self, kind: str, reason: str, example: str) -> None:
        counts = self.counts[kind]
        counts[reason] = counts.get(reason, 0) + 1
        if len(self._examples) < _SHOWN:
            self._examples.append(example)
        kept = self._by_reason.setdefault(reason, [])
        if len(kept) < _KEPT:
            kept.append(example)

    @property
    def total(self) -> int:
        """Number of invalid entries."""
        return sum(sum(counts.values()) for counts in self.counts.values())

    def summary(self) -> str:
        """How many are invalid, of how many, and why; "" for none."""
        parts = []
        for kind, number in (("images", self.num_images), ("annotations", self.num_annotations)):
            if self.counts[kind]:
                reasons = ", ".join(f"{n} {reason}" for reason, n in self.counts[kind].items())
                parts.append(f"{sum(self.counts[kind].values())} of {number} {kind} ({reasons})")
        return " and ".join(parts)

    @property
    def refused(self) -> bool:
        """Whether a training refuses the dataset."""
        return bool(self.errors) or (self.total > 0 and self.on_invalid != "drop")

    def _share(self) -> float:
        """The invalid part of the images, or of the annotations: the larger one."""
        images, annotations = (sum(counts.values()) for counts in self.counts.values())
        return max(images / max(self.num_images, 1), annotations / max(self.num_annotations, 1))

    def findings(self) -> list[Finding]:
        """All of it, as rows of a table."""
        rows = [Finding("dataset", text, 0, True) for text in self.errors]
        for kind, counts in self.counts.items():
            for reason, count in counts.items():
                examples = tuple(self._by_reason[reason])
                rows.append(Finding(kind, reason, count, self.on_invalid != "drop", examples))
        return rows + [Finding("dataset", text, 0, False) for text in self.warnings]

    def finish(self, on_invalid: str, how_to_drop: str = _HOW_TO_DROP) -> None:
        """Raises if there are errors; logs what is dropped and what is suspicious.

        Args:
            on_invalid: "error" or "drop".
            how_to_drop: the last line of the error about invalid entries; "" if nothing drops them.

        Raises:
            ValueError: an error of the whole dataset; or, with "error", an invalid entry.
            FileNotFoundError: with "error", an image without a file.
        """
        for text in self.warnings:
            warn_once(f"{self.name}: {text}")
        summary = self.summary()
        if self.errors:
            rest = [f"invalid: {summary}", *self._examples] if summary else []
            what = "; ".join(self.errors)
            raise ValueError("\n  ".join([f"{self.name}: {what}", *rest, _HOW_TO_SKIP]))
        if not summary:
            return
        if on_invalid == "drop":
            warn_once(f"{self.name}: dropped {summary}")
            return
        if how_to_drop and self.total > _SHOWN and self._share() > _MUCH:
            how_to_drop = (
                f'on_invalid="drop" would leave out {self._share():.0%}. So much has a common '
                "cause: correct that in the data"
            )
        lines = [f"{self.name}: invalid: {summary}", *(f"  {x}" for x in self._examples)]
        if self.total > len(self._examples):
            lines.append(f"  ... and {self.total - len(self._examples)} more")
        raise (FileNotFoundError if self.missing_file else ValueError)(
            "\n".join([*lines, *_nonempty([how_to_drop])])
        )


@functools.lru_cache(maxsize=1024)
def warn_once(text: str) -> None:
    """Logs a warning, once in a process: each evaluation reads its dataset several times."""
    logging.getLogger("gfocal.data").warning(text)


def _nonempty(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if text]
