"""Ids of a COCO json that differ in type only, or that repeat where nothing needs them."""

from collections import Counter
from typing import Any

from .defects import Defects

__all__ = ["matched_ids", "numbered"]


def matched_ids(
    records: list[dict[str, Any]], key: str, known: set[Any], defects: Defects
) -> list[dict[str, Any]]:
    """Annotations whose ids have the types of the known ones: "1" becomes 1, if no id "1" is there.

    Args:
        records: annotations; they are not changed.
        key: "image_id" or "category_id".
        known: the ids of the images or categories.
        defects: gets a warning that says how many were matched.
    """
    strange = {record[key] for record in records} - known
    if not strange:
        return records
    texts = Counter(map(str, known))
    by_text = {str(x): x for x in known if texts[str(x)] == 1}
    found = {x: by_text[str(x)] for x in strange if str(x) in by_text}
    # Two ids that would become one are two things.
    times = Counter(found.values())
    found = {x: y for x, y in found.items() if times[y] == 1}
    if not found:
        return records
    count = sum(record[key] in found for record in records)
    example, match = next(iter(found.items()))
    defects.warnings.append(
        f"{count} annotations have a {key} of another type, e.g. {example!r} "
        f"({type(example).__name__}) for {match!r} ({type(match).__name__}); they are matched"
    )
    return [{**x, key: found[x[key]]} if x[key] in found else x for x in records]


def numbered(annotations: list[dict[str, Any]], defects: Defects) -> list[dict[str, Any]]:
    """Annotations with ids of their own: as they are, or 1, 2, ... if one is missing or repeats.

    Args:
        annotations: they may be changed.
        defects: gets a warning if ids were given.
    """
    ids = [annotation.get("id") for annotation in annotations]
    unique = all(isinstance(x, (int, float, str)) for x in ids) and len(set(ids)) == len(ids)
    if not unique:
        for number, annotation in enumerate(annotations, 1):
            annotation["id"] = number
        defects.warnings.append(
            f"the ids of the {len(ids)} annotations are not unique, or missing; nothing uses them, "
            "they are numbered anew"
        )
    return annotations
