"""Which rows of a source are captioned, by the user's own conditions: pure functions of a row."""

from pipeline.selection.conditions import JSON, RowFacts, Truth, evaluate_condition, evaluate_test
from pipeline.selection.selection import OF_THE_IMAGE, Duplicates, Selection, Skip, selection_of

__all__ = [
    "JSON",
    "OF_THE_IMAGE",
    "Duplicates",
    "RowFacts",
    "Selection",
    "Skip",
    "Truth",
    "evaluate_condition",
    "evaluate_test",
    "selection_of",
]
