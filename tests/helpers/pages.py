"""Pages of hand-made findings and predictions, and a browser to look at them.

Pictures of a page, for the docs: python -m tests.helpers.pages FOLDER PAGE.html [KIND]
"""

import contextlib
import io
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gfocal.inspect.page import PageBox, PageFinding, PageItem

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WINDOWS = {"wide": (1280, 940), "narrow": (400, 1150)}
NASTY = (
    """</script><script>window.injected=1</script><!--<b onclick='x'>"&amp;' {{items}} """
    "\u2028\u00e9\ud800"
)


class Page:
    """A page in a browser; what it asked the network for, and what went wrong in it."""

    def __init__(self, tab: Any):
        self.tab = tab
        self.requests: list[str] = []
        self.errors: list[str] = []
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on(
            "console",
            lambda message: (
                message.type in ("error", "warning") and self.errors.append(message.text)
            ),
        )

    def texts(self, selector: str) -> list[str]:
        """What is written in the elements that are seen."""
        return [x.inner_text().strip() for x in self.tab.locator(selector).all() if x.is_visible()]

    def is_clean(self) -> bool:
        """Nothing went wrong, and nothing but the file was loaded."""
        foreign = [url for url in self.requests[1:] if not url.startswith(("data:", "file:"))]
        own = {url for url in self.requests if url.startswith("file:")}
        return self.errors == [] and foreign == [] and len(own) == 1


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A Chromium of this machine, without a window.

    Raises:
        ImportError: playwright is not installed.
        FileNotFoundError: there is no Chromium on the PATH.
    """
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise FileNotFoundError("there is no Chromium on the PATH (Debian: apt install chromium)")
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()


def box(
    places: Sequence[float], role: str = "prediction", name: str = "disk", **more: Any
) -> PageBox:
    return PageBox(tuple(places), role, name, **more)


def peaked(places: Sequence[float], step: float = 2.0, bins: int = 9) -> dict[str, np.ndarray]:
    """Sides at the middle of their bins: probability 0.6 there, 0.2 at the bins beside it."""
    outward = np.array([-1, -1, 1, 1])[:, None] * step * (np.arange(bins) - bins // 2)
    probabilities = np.zeros((4, bins))
    probabilities[:, bins // 2 - 1 : bins // 2 + 2] = 0.2, 0.6, 0.2
    return {"probabilities": probabilities, "bin_edges": np.array(places)[:, None] + outward}


def picture(height: int = 80, width: int = 120, seed: int = 0) -> np.ndarray:
    """Smooth, with some grain, as a photograph."""
    rng = np.random.default_rng(seed)
    low = rng.integers(60, 200, (1 + height // 16, 1 + width // 16, 3)).repeat(16, 0).repeat(16, 1)
    grain = rng.normal(0, 4, (height, width, 3))
    return (low[:height, :width] + grain).clip(0, 255).astype(np.uint8)


def finding(
    number: int,
    kind: str = "bad_side",
    score: float = 0.5,
    name: str = "disk",
    sides: tuple[str, ...] = ("left",),
    size: tuple[int, int] = (80, 120),
) -> PageItem:
    """Of an image whose part from (100, 50) on is shown at twice its size. The annotation's left
    side is 8 px from the detection's, 4 of its standard deviations."""
    places = (115, 60, 140, 80)
    seen = box(places, score=0.9, name=name, stds=(2, 2, 2, 2), **peaked(places))
    return PageItem(
        image=picture(*size, seed=number % 7),
        origin=(100, 50),
        scale=2.0,
        title=f"photo {number}.jpg",
        boxes=[
            box((107, 60, 140, 80), "annotation", name),
            box((115, 60, 140, 80), "suggestion", name),
            seen,
        ],
        finding=PageFinding(number, kind, score, name, f"Sentence {number}.", sides),
    )


def predictions(number: int, boxes: Sequence[PageBox]) -> PageItem:
    """The boxes on an image of 160 x 120 px, shown as it is."""
    return PageItem(picture(120, 160, number), (0, 0), 1.0, f"photo {number}.jpg", boxes)


class _Scripts(HTMLParser):
    """The script elements of a page: (attributes, text)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag == "script"
        if self._inside:
            self.found.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            attributes, text = self.found[-1]
            self.found[-1] = (attributes, text + data)


def scripts_of(path: Path, name: str) -> list[str]:
    """The texts of a page's script elements of a class or id."""
    return [
        text
        for attributes, text in parsed(path).found
        if name in (attributes.get("class"), attributes.get("id"))
    ]


def parsed(path: Path) -> _Scripts:
    parser = _Scripts()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def main(folder: str, page: str, kind: str = "") -> None:
    """Writes NAME_wide.png and NAME_narrow.png of a page; of an audit the findings of a kind only,
    if there is one ("bad side")."""
    stem = re.sub(r"\W", "_", Path(page).stem)
    with browser() as chromium:
        for name, (width, height) in WINDOWS.items():
            tab = chromium.new_page(viewport={"width": width, "height": height})
            tab.goto(Path(page).resolve().as_uri())
            for tick in tab.locator(".tick").all() if kind else ():
                tick.locator("input").set_checked(tick.inner_text().strip().startswith(kind))
            tab.locator("img[src]:visible").first.wait_for()
            image = Image.open(io.BytesIO(tab.screenshot()))
            # 256 colours: a third of the bytes.
            image.convert("RGB").quantize(256).save(f"{folder}/{stem}_{name}.png", optimize=True)
            tab.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
