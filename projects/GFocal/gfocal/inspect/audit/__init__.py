"""The audit of labels: which annotations may be wrong, and how."""

from .auditing import LEAST_SCORE, Audit
from .cards import page_items, surest
from .cleaning import accepted, cleaned
from .findings import Finding
from .judging import KINDS
from .labels import Labels, read_labels

__all__ = [
    "KINDS",
    "LEAST_SCORE",
    "Audit",
    "Finding",
    "Labels",
    "accepted",
    "cleaned",
    "page_items",
    "read_labels",
    "surest",
]
