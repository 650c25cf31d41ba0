"""Which findings are on the page."""

from types import SimpleNamespace

from gfocal.inspect.audit import surest


def findings(kinds):
    return [SimpleNamespace(id=i, kind=kind) for i, kind in enumerate(kinds, 1)]


def ids(kinds, limit):
    return [x.id for x in surest(findings(kinds), limit)]


def test_no_kind_fills_the_page():
    """m: missing, b: bad_side, d: duplicate. The first of each, then the second of each, ..."""
    kinds = "mmmmmbmdb"
    assert ids(kinds, 3) == [1, 6, 8]
    assert ids(kinds, 5) == [1, 2, 6, 8, 9]
    assert ids(kinds, 7) == [1, 2, 3, 4, 6, 8, 9]
    assert ids(kinds, 100) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert ids(kinds, 0) == ids("", 5) == []
