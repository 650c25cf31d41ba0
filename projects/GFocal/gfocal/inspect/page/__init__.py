"""A page to look at in a browser: one file, without network, server or other files."""

from .items import PageBox, PageFinding, PageItem, fitted
from .writing import write_page

__all__ = ["PageBox", "PageFinding", "PageItem", "fitted", "write_page"]
