"""Mistakes of an annotator, put into a dataset on purpose: what an audit has to find.

Boxes are COCO's XYWH in pixels.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["KINDS", "Injected", "inject"]

KINDS = ("bad_side", "missing", "wrong_class", "duplicate", "spurious")
_SIDES = ("left", "top", "right", "bottom")


class Injected(NamedTuple):
    """A mistake that was put in.

    Attributes:
        kind: of ``KINDS``.
        image_id: of the image.
        annotation_id: of the annotation that is wrong now; of a missing one the id that it had.
        bbox: the right box, XYWH; of a duplicate the copy's; of a spurious one None.
        category_id: the right one; of a spurious one None.
        side: of a bad side its name.
    """

    kind: str
    image_id: Any
    annotation_id: int
    bbox: tuple[float, ...] | None
    category_id: int | None
    side: str | None = None


def inject(
    dataset: dict[str, Any], fraction: float = 0.1, seed: int = 0
) -> tuple[dict[str, Any], list[Injected]]:
    """Puts mistakes into a fraction of the annotations, as many of each kind.

    - bad_side: one side is shifted by 10 to 50 % of the box's extent, inwards or outwards.
    - missing: the annotation is dropped.
    - wrong_class: another class, each as likely.
    - duplicate: a second annotation, whose sides differ by up to 5 % of the extent.
    - spurious: a box of the same size at a place where it touches no annotation by more than 0.1
      IoU, with a class as frequent as in the dataset. Where there is no such place, none.

    Args:
        dataset: in COCO format, with annotations. It stays as it is.
        fraction: of the annotations.
        seed: the same gives the same mistakes.

    Returns:
        the dataset with the mistakes, and what they are.
    """
    rng = np.random.default_rng(seed)
    dataset = copy.deepcopy(dataset)
    annotations = dataset["annotations"]
    images = {image["id"]: image for image in dataset["images"]}
    chosen = rng.permutation(len(annotations))[: round(fraction * len(annotations))]
    make = _Maker(rng, dataset, images)
    found: list[Injected] = []
    for number, index in enumerate(chosen):
        mistake = make(KINDS[number % len(KINDS)], annotations[index])
        if mistake is not None:
            found.append(mistake)
    dropped = {x.annotation_id for x in found if x.kind == "missing"}
    dataset["annotations"] = [x for x in annotations if x["id"] not in dropped] + make.added
    return dataset, found


class _Maker:
    def __init__(self, rng: np.random.Generator, dataset: dict, images: dict):
        self.rng, self.images = rng, images
        self.added: list[dict[str, Any]] = []
        self.categories = [x["id"] for x in dataset["categories"]]
        self.classes = [x["category_id"] for x in dataset["annotations"]]
        self.next_id = 1 + max(x["id"] for x in dataset["annotations"])
        self.boxes: dict[Any, list] = {}
        for x in dataset["annotations"]:
            self.boxes.setdefault(x["image_id"], []).append(x["bbox"])

    def __call__(self, kind: str, annotation: dict[str, Any]) -> Injected | None:
        makers: dict[str, Callable[[dict[str, Any]], Injected | None]] = {
            "bad_side": self.bad_side,
            "missing": self.missing,
            "wrong_class": self.wrong_class,
            "duplicate": self.duplicate,
            "spurious": self.spurious,
        }
        return makers[kind](annotation)

    def _right(self, kind: str, annotation: dict[str, Any], **more: Any) -> Injected:
        box, category = tuple(annotation["bbox"]), annotation["category_id"]
        return Injected(kind, annotation["image_id"], annotation["id"], box, category, **more)

    def _set(self, annotation: dict[str, Any], sides: np.ndarray) -> None:
        """Another box, of sides XYXY, clipped to the image."""
        image = self.images[annotation["image_id"]]
        width, height = image["width"], image["height"]
        x0, y0, x1, y1 = (float(x) for x in np.clip(sides, 0, [width, height] * 2))
        annotation["bbox"] = [round(x, 2) for x in (x0, y0, x1 - x0, y1 - y0)]
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        annotation.pop("segmentation", None)

    def bad_side(self, annotation: dict[str, Any]) -> Injected:
        x, y, w, h = annotation["bbox"]
        image = self.images[annotation["image_id"]]
        sides = np.array([x, y, x + w, y + h])
        side = int(self.rng.integers(4))
        extent = (w, h)[side % 2]
        outward = -1 if side < 2 else 1
        shift = self.rng.uniform(0.1, 0.5) * extent
        direction = self.rng.choice([-1, 1]) * outward
        end = (image["width"], image["height"])[side % 2]
        room = sides[side] if side < 2 else end - sides[side]
        if direction == outward and room < shift:  # no room: inwards instead
            direction = -outward
        found = self._right("bad_side", annotation, side=_SIDES[side])
        sides[side] += direction * shift
        self._set(annotation, sides)
        return found

    def missing(self, annotation: dict[str, Any]) -> Injected:
        return self._right("missing", annotation)

    def wrong_class(self, annotation: dict[str, Any]) -> Injected:
        found = self._right("wrong_class", annotation)
        others = [x for x in self.categories if x != annotation["category_id"]]
        annotation["category_id"] = int(self.rng.choice(others))
        return found

    def duplicate(self, annotation: dict[str, Any]) -> Injected:
        x, y, w, h = annotation["bbox"]
        copied = {**annotation, "id": self.next_id}
        self.next_id += 1
        shifts = self.rng.uniform(-0.05, 0.05, 4) * [w, h, w, h]
        self._set(copied, np.array([x, y, x + w, y + h]) + shifts)
        self.added.append(copied)
        return self._right("duplicate", copied)

    def spurious(self, annotation: dict[str, Any]) -> Injected | None:
        image = self.images[annotation["image_id"]]
        _, _, w, h = annotation["bbox"]
        others = np.array(self.boxes[annotation["image_id"]], float)
        for _ in range(50):
            x = self.rng.uniform(0, max(image["width"] - w, 0))
            y = self.rng.uniform(0, max(image["height"] - h, 0))
            if _ious(np.array([x, y, w, h]), others).max() <= 0.1:
                category = int(self.rng.choice(self.classes))
                new = {**annotation, "id": self.next_id, "category_id": category}
                self.next_id += 1
                self._set(new, np.array([x, y, x + w, y + h]))
                self.added.append(new)
                return Injected("spurious", annotation["image_id"], new["id"], None, None)
        return None


def _ious(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of a box (4,) with others (N, 4), XYWH."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    return common / (np.prod(box[2:]) + np.prod(others[:, 2:], axis=1) - common)
