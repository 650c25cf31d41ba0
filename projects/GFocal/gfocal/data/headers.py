"""Headers of image files: size, orientation and kind of pixels, without decoding the pixels.

A file whose end is not that of a whole JPEG or PNG is decoded, to see whether it is cut off.

Headers are remembered in the process by path, time of change and size. From ``CACHED_FROM`` images
on they are kept on disk too, in ``$XDG_CACHE_HOME/gfocal`` (~/.cache/gfocal): a resume, or another
training on the same images, reads no header twice.

Units: pixels.
"""

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from .images import EXTENSIONS

__all__ = ["CACHED_FROM", "Header", "read_header", "read_headers"]

CACHED_FROM = 2000  # images
_THREADS = 8  # a network disk answers many at a time
_TRIED = 256  # files, in one thread
_SLOW = 0.001  # seconds a file, from which on threads pay
_ORIENTATION = 274  # EXIF's tag
_TAILS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_VERSION = 1  # of the files on disk


class Header(NamedTuple):
    """What the header of an image file says.

    Attributes:
        width, height: of the stored pixels.
        orientation: EXIF's, 1 to 8; 1 is upright.
        mode: PIL's name of the kind of pixels, e.g. "RGB", "L", "I;16".
        defect: why the file cannot be read, e.g. "is empty"; "" if it can.
    """

    width: int = 0
    height: int = 0
    orientation: int = 1
    mode: str = ""
    defect: str = ""

    @property
    def turned(self) -> bool:
        """Whether the orientation exchanges width and height."""
        return self.orientation >= 5

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) after the orientation is applied, as the image is read."""
        return (self.height, self.width) if self.turned else (self.width, self.height)


_known: dict[str, tuple[int, int, Header]] = {}  # path -> time of change (ns), bytes, header


def read_header(path: str) -> Header:
    """Reads one header. A failure is a ``defect``, not an exception."""
    try:
        size = os.path.getsize(path)
        if not size:
            return Header(defect="is empty (0 bytes)")
        with warnings.catch_warnings(), open(path, "rb") as f:
            warnings.simplefilter("ignore")
            with Image.open(f) as image:
                exif = image.getexif() if "exif" in image.info or image.format == "TIFF" else {}
                orientation = exif.get(_ORIENTATION, 1)
                if not (isinstance(orientation, int) and 1 <= orientation <= 8):
                    orientation = 1
                header = Header(*image.size, orientation, image.mode)
                return header._replace(defect=_defect_of_end(f, image, size) or _of_mode(header))
    except FileNotFoundError:
        return Header(defect="is not there")
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return Header(defect=f"has more than {limit} pixels, PIL's limit")
    except Exception as error:  # noqa: BLE001 (a broken file can raise anything)
        return Header(defect=f"cannot be read ({type(error).__name__}: {str(error)[:120]})")


def _defect_of_end(f, image: Image.Image, size: int) -> str:
    """ "" if the file ends as it should or can be decoded all the same."""
    tail = _TAILS.get(image.format or "")
    if tail is None:
        return ""
    position = f.tell()
    f.seek(max(0, size - 16))
    end = f.read()
    f.seek(position)
    if tail in end:
        return ""
    try:
        image.load()
    except Exception as error:  # noqa: BLE001
        return f"is cut off or damaged ({error})"
    return ""


def _of_mode(header: Header) -> str:
    return "has floating-point pixels (mode F)" if header.mode == "F" else ""


def read_headers(paths: Sequence[str]) -> list[Header | None]:
    """The headers of many files, with a progress bar for many.

    Returns:
        A header for each path; None for one that is not on a local disk, or that PIL does not know
        and that has no image's extension (such as .npy, which a mapper of one's own may read).
    """
    local = [path for path in dict.fromkeys(paths) if "://" not in path]
    cache = _cache_file(local) if len(local) >= CACHED_FROM else None
    if cache is not None and any(path not in _known for path in local):
        _known.update(_load(cache))
    todo = [
        (path, stat)
        for path, stat in zip(local, _each(_stat, local))
        if path not in _known or _known[path][:2] != stat
    ]
    quiet = None if len(todo) >= CACHED_FROM else True  # None: a bar on a terminal only
    found = _each(read_header, [path for path, _ in todo])
    for (path, stat), header in zip(
        todo, tqdm(found, "Reading image headers", len(todo), disable=quiet)
    ):
        _known[path] = (*stat, header)
    if cache is not None and todo:
        _save(cache, local)
    return [_judged(path) for path in paths]


def _each(read: Callable[[str], Any], paths: Sequence[str]) -> Iterator[Any]:
    """``read(path)`` of each path, in order. Threads help where a disk or network is waited for,
    and for files at hand they only hinder each other: the first files tell."""
    begin = time.perf_counter()
    yield from map(read, paths[:_TRIED])
    if time.perf_counter() - begin < _TRIED * _SLOW:
        yield from map(read, paths[_TRIED:])
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(read, paths[_TRIED:])


def _judged(path: str) -> Header | None:
    header = _known[path][2] if path in _known else None
    unknown = header is not None and header.defect.startswith("cannot be read (Unidentified")
    return None if unknown and not path.lower().endswith(EXTENSIONS) else header


def _stat(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
        return stat.st_mtime_ns, stat.st_size
    except OSError:
        return -1, -1


def _cache_file(paths: Sequence[str]) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folders = sorted({os.path.abspath(os.path.dirname(path)) for path in paths})
    key = hashlib.sha256("\n".join(folders).encode(errors="surrogateescape")).hexdigest()[:24]
    return Path(root) / "gfocal" / f"headers_{_VERSION}_{key}.json"


def _load(file: Path) -> Iterator[tuple[str, tuple[int, int, Header]]]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        for path, (time, size, *header) in json.loads(file.read_text()).items():
            yield path, (time, size, Header(*header))


def _save(file: Path, paths: Sequence[str]) -> None:
    """Writes a cache. A folder that cannot be written is no error: there is none then."""
    known = {**dict(_load(file)), **{path: _known[path] for path in paths}}
    rows = {path: [time, size, *header] for path, (time, size, header) in known.items()}
    temporary = file.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError, UnicodeError):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(rows))
        os.replace(temporary, file)
