"""Writes a page: template.html with page.css, the scripts, and the data of all items.

The data are json in script elements that no browser runs; pictures are JPEG. The page's policy
(CSP) allows nothing but what is in the file.
"""

import base64
import contextlib
import hashlib
import html
import io
import json
import os
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from .items import PageItem, as_data

__all__ = ["write_page"]

SCRIPTS = ("drawing.js", "filters.js", "audit.js", "predict.js", "main.js")
JPEG_QUALITY = 80


def write_page(
    path: str | os.PathLike,
    items: Iterable[PageItem],
    *,
    title: str,
    note: str = "",
    name: str = "decisions",
) -> int:
    """Writes a page of pictures, boxes and the distributions of their sides.

    If the items have findings, it is a sheet of cards to decide about: accept, reject, skip. The
    browser keeps the decisions, and a button downloads them: {"page": title, "decisions": [{"id":
    of the finding, "decision": "accept", "reject" or "skip"}]}. Else it shows each picture's boxes.

    Args:
        path: of the file; what is there is replaced.
        items: one at a time is in memory.
        title: of the page.
        note: a sentence below the title.
        name: of the file of decisions, with or without ".json".

    Returns:
        the number of items.

    Raises:
        OSError: the file cannot be written.
        TypeError: a picture is no uint8 array.
        ValueError: see :func:`.items.as_data`; some items have a finding and others none; two
            findings have one id.

    An error leaves no half a page, and an old one as it is.
    """
    path = os.fspath(path)
    part = f"{path}.part"
    try:
        with open(part, "w", encoding="utf-8", errors="replace") as file:
            count = _write(file, items, title, note, name)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
        raise
    return count


def _write(file: Any, items: Iterable[PageItem], title: str, note: str, name: str) -> int:
    texts = {
        "title": html.escape(title),
        "note": html.escape(note),
        "style": _read("page.css"),
        "scripts": "\n".join(map(_read, SCRIPTS)),
    }
    head, tail = _read("template.html").split("{{items}}\n")
    file.write(_fill(head, texts))
    name = name if name.endswith(".json") else f"{name}.json"
    digest = hashlib.sha256(title.encode(errors="replace"))
    ids: set[int] = set()
    count = 0
    for item in items:
        data = as_data(item)
        if count and (item.finding is None) == bool(ids):
            raise ValueError(
                f"{item.title} has {'no' if item.finding is None else 'a'} finding, unlike the "
                "items before; expected one for all or for none"
            )
        if item.finding is not None:
            if item.finding.id in ids:
                raise ValueError(f"{item.title}: two findings have the id {item.finding.id}")
            ids.add(item.finding.id)
        text = _json(data)
        digest.update(text.encode())
        file.write(f'<script type="application/json" class="item">{text}</script>\n')
        file.write(f'<script type="text/plain" class="picture">{_data_url(item.image)}</script>\n')
        count += 1
    # Other findings have another key: decisions of an older page do not come back for them.
    about = {"title": title, "name": name, "key": f"gfocal-{digest.hexdigest()[:16]}"}
    file.write(f'<script type="application/json" id="about">{_json(about)}</script>\n')
    file.write(_fill(tail, texts))
    return count


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _fill(template: str, texts: dict[str, str]) -> str:
    """In one go: a title may have the name of a place in it."""
    pieces = template.split("{{")
    for index, piece in enumerate(pieces[1:], 1):
        key, rest = piece.split("}}", 1)
        pieces[index] = texts[key] + rest
    return "".join(pieces)


def _json(data: Any) -> str:
    """json that cannot end the script element around it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _data_url(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
