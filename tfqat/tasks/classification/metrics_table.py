"""Metrics table: Metrics as rich tables; of many classes the ones that matter most, since the JSON has all."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from tfqat.tasks.classification.metrics import Metrics

_MOST_CLASSES = 20
_SHOWN = 10


def metrics_tables(name: str, run_by: str, metrics: Metrics) -> Group:
    """The tables: of all images, of the classes, of what is taken for what."""
    whole = Table("model", "run by", title="Validation images")
    for heading in ("images", "top-1", "top-5", "loss"):
        whole.add_column(heading, justify="right")
    whole.add_row(
        *(name, run_by, f"{metrics.images:,}", _percent(metrics.top1), _percent(metrics.top5)),
        f"{metrics.loss:.4f}",
    )
    small = len(metrics.classes) <= _MOST_CLASSES
    return Group(whole, _class_table(metrics, small), _matrix(metrics) if small else _pairs(metrics))


def _class_table(metrics: Metrics, small: bool) -> Table:
    """Each class; of many the ones that are recognized worst."""
    shown = metrics.classes
    if not small:
        present = (found for found in metrics.classes if found.support)
        shown = tuple(sorted(present, key=lambda found: found.recall or 0.0))[:_SHOWN]
    table = Table("class", title="Classes" if small else f"The {len(shown)} classes of the lowest recall")
    for heading in ("precision", "recall", "images"):
        table.add_column(heading, justify="right")
    for found in shown:
        table.add_row(found.name, _percent(found.precision), _percent(found.recall), f"{found.support:,}")
    return table


def _matrix(metrics: Metrics) -> Table:
    table = Table("label", title="Confusion matrix: rows are labels, columns what the model says")
    for found in metrics.classes:
        table.add_column(found.name, justify="right")
    for found, row in zip(metrics.classes, metrics.confusion, strict=True):
        table.add_row(found.name, *(str(count) if count else "." for count in row))
    return table


def _pairs(metrics: Metrics) -> Table:
    table = Table("label", "taken for", title="What is taken for what most often")
    table.add_column("images", justify="right")
    for label, said, count in metrics.most_confused[:_SHOWN]:
        table.add_row(label, said, f"{count:,}")
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
