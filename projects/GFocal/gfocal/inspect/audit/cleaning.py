"""A copy of a dataset with suggestions of an audit applied. Boxes are XYWH, pixels."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["accepted", "cleaned"]

_DECISIONS = ("accept", "reject", "skip")


def cleaned(document: Mapping[str, Any], findings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A dataset with the suggestions of findings applied.

    Spurious and duplicate annotations are removed, missing ones are added, classes and sides
    replaced. All other fields stay; a mask does too, though it may not fit the new box.

    Args:
        document: in COCO format. It stays as it is.
        findings: as in audit.json.

    Returns:
        A copy. An area that was that of the box is that of the new box.

    Raises:
        ValueError: a finding is of an annotation or a category that is not there.
    """
    ret = copy.deepcopy(dict(document))
    by_id = {x["id"]: x for x in ret["annotations"]}
    ids = {str(x["name"]): x["id"] for x in ret["categories"]}
    removed: set[Any] = set()
    added: list[dict[str, Any]] = []
    for finding in findings:
        name = finding["suggested_category"]
        if name is not None and name not in ids:
            raise ValueError(f"finding {finding['id']}: there is no category {name!r}")
        if finding["kind"] == "missing":
            added.append(_new(finding, ids[name]))
            continue
        annotation = by_id.get(finding["annotation_id"])
        if annotation is None:
            raise ValueError(
                f"finding {finding['id']}: there is no annotation {finding['annotation_id']!r}"
            )
        if finding["kind"] in ("spurious", "duplicate"):
            removed.add(finding["annotation_id"])
        if name is not None:
            annotation["category_id"] = ids[name]
        if finding["suggested_bbox"] is not None:
            _set_box(annotation, finding["suggested_bbox"])
    for annotation, key in zip(added, _free_ids(by_id, len(added))):
        annotation["id"] = key
    ret["annotations"] = [x for x in ret["annotations"] if x["id"] not in removed] + added
    return ret


def accepted(report: Mapping[str, Any], decisions: Any) -> list[dict[str, Any]]:
    """The findings that a person accepted.

    Args:
        report: audit.json.
        decisions: what audit.html downloads.

    Raises:
        ValueError: not such decisions, or of other findings.
    """
    rows = decisions.get("decisions") if isinstance(decisions, Mapping) else None
    if not isinstance(rows, list) or not all(
        isinstance(x, Mapping) and {"id", "decision"} <= x.keys() for x in rows
    ):
        raise ValueError('expected {"decisions": [{"id", "decision"}]}, which audit.html downloads')
    by_id = {finding["id"]: finding for finding in report["findings"]}
    ret = []
    for row in rows:
        if row["decision"] not in _DECISIONS:
            raise ValueError(
                f"finding {row['id']} has the decision {row['decision']!r}; expected one of "
                f"{', '.join(_DECISIONS)}"
            )
        if row["id"] not in by_id:
            raise ValueError(
                f"audit.json has no finding {row['id']!r}: the decisions are of another audit"
            )
        if row["decision"] == "accept":
            ret.append(by_id[row["id"]])
    return ret


def _new(finding: Mapping[str, Any], category_id: Any) -> dict[str, Any]:
    box = list(finding["suggested_bbox"])
    return {
        "id": None,
        "image_id": finding["image_id"],
        "category_id": category_id,
        "bbox": box,
        "area": round(box[2] * box[3], 2),
        "iscrowd": 0,
    }


def _set_box(annotation: dict[str, Any], box: list[float]) -> None:
    _, _, width, height = annotation["bbox"]
    area = annotation.get("area")
    if isinstance(area, (int, float)) and abs(area - width * height) <= 0.01 * abs(area):
        annotation["area"] = round(box[2] * box[3], 2)
    annotation["bbox"] = list(box)


def _free_ids(taken: Iterable[Any], count: int) -> list[Any]:
    """Ids that no annotation has: numbers above the largest, or texts among texts."""
    taken = list(taken)
    numbers = [x for x in taken if not isinstance(x, str)]
    if len(numbers) == len(taken):
        first = 1 + max(numbers, default=0)
        return list(range(first, first + count))
    names = (f"added{n}" for n in range(1, count + len(taken) + 1))
    return [name for name in names if name not in taken][:count]
