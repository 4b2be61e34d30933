"""What counts as out of tolerance."""

from __future__ import annotations

import pytest

from tfqat.verification.blocks import BlockScore
from tfqat.verification.report import Report, Row

TRAINED = Row("QAT", 599, 590, 599)


def report(correct=590, agreeing=599, error=1e-4, noise=1e-4, blocks=(), disagreements=()) -> Report:
    rows = (Row("Q/DQ ONNX", 599, correct, agreeing, error, blocks=tuple(blocks)),)
    return Report(TRAINED, rows, noise, 64, 64, tuple(disagreements))


# 0.5 point of 599 images is 3 of them, 1 % is 6.
PASSED = {
    "equal": {},
    "3 images fewer": {"correct": 587},
    "3 images more": {"correct": 593},
    "6 other classes": {"agreeing": 593},
    "twice the noise": {"error": 2e-2, "noise": 1e-2},
    "below the floor": {"error": 1e-3, "noise": 0.0},
    "an edge in a thousand": {"blocks": [BlockScore("a", 10_000, 10, 1)]},
    "one in a small tensor": {"blocks": [BlockScore("a", 20, 1, 1)]},
}
FAILED = {
    "4 images fewer": ({"correct": 586}, "accuracy"),
    "4 images more": ({"correct": 594}, "accuracy"),
    "7 other classes": ({"agreeing": 592}, "99 %"),
    "more than twice the noise": ({"error": 2.1e-2, "noise": 1e-2}, "end-to-end"),
    "NaN": ({"error": float("nan")}, "end-to-end"),
    "eleven in ten thousand": ({"blocks": [BlockScore("a", 10_000, 11, 1)]}, "'a'"),
    "two steps": ({"blocks": [BlockScore("a", 10_000, 1, 2)]}, "2 steps"),
    "files that disagree": ({"disagreements": ["the cache differs"]}, "the cache differs"),
}


@pytest.mark.parametrize("given", PASSED.values(), ids=PASSED)
def test_within_tolerance(given):
    assert report(**given).problems == ()


@pytest.mark.parametrize(("given", "says"), FAILED.values(), ids=FAILED)
def test_out_of_tolerance(given, says):
    found = report(**given)
    assert not found.passed
    assert len(found.problems) == 1
    assert says in found.problems[0]
    assert f"OUT OF TOLERANCE: {found.problems[0]}" in str(found)


def test_without_labels_only_parity_counts():
    rows = (Row("Q/DQ ONNX", 16, None, 9, 1e-4),)
    assert Report(Row("QAT", 16, None, 16), rows, 1e-4, 16, 16).passed
