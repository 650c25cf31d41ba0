"""A browser for the tests of pages; they are skipped where there is none."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gfocal.inspect.page import write_page
from tests.helpers.pages import Page, browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One for all tests of a file. Other tests need not have its processes and its event loop."""
    try:
        with browser() as found:
            yield found
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(str(error))


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens a page of items in a window, from its file. In the end no page has had an error, and
    none has loaded anything."""
    context = chromium.new_context()
    pages: list[Page] = []

    def open_page(items: Any, size: tuple[int, int] = (1280, 900), **options: Any) -> Page:
        path = tmp_path / f"{len(pages)}.html"
        write_page(path, items, **{"title": "Findings", **options})
        page = Page(context.new_page())
        pages.append(page)
        page.tab.set_viewport_size({"width": size[0], "height": size[1]})
        page.tab.set_default_timeout(5000)
        page.tab.goto(path.as_uri())
        return page

    yield open_page
    context.close()
    for page in pages:
        assert page.is_clean(), (page.errors, page.requests)
