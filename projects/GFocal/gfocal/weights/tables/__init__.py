"""The tables of names, a file a detector."""

from collections.abc import Iterable

from ..names import DetectorTable
from .centernet import CENTERNET
from .cornernet import CORNERNET
from .foveabox import FOVEABOX
from .gfl import GFL
from .ssd import SSD

__all__ = ["CENTERNET", "CORNERNET", "FOVEABOX", "GFL", "SSD", "TABLES", "table_of"]

# The first that knows a name counts.
TABLES = (GFL, SSD, CENTERNET, CORNERNET, FOVEABOX)


def table_of(names: Iterable[str]) -> DetectorTable:
    """The detector whose weights have these names, mmdetection's or ours; GFL if none is known by
    them."""
    names = list(names)
    for table in TABLES:
        if any(part in name for part in (table.theirs, table.ours) for name in names):
            return table
    return GFL
