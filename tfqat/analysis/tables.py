"""Tables: an analysis as the terminal shows it."""

from __future__ import annotations

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from tfqat.analysis.front import Front
from tfqat.analysis.report import FORMS, Analysis, BlockReport
from tfqat.analysis.score import Score
from tfqat.core.listing import some

# Blocks that are shown; the report has all.
WORST = 10


def analysis_tables(found: Analysis) -> Group:
    """The whole forms, the worst blocks, and what is to be known besides."""
    front: list[Table | str] = [] if found.front is None else [front_table(found.front), escape(found.front.sentence)]
    return Group(_forms(found), _blocks(found), *front, *map(escape, found.notes))


def front_table(front: Front) -> Table:
    """The models of mixed precision, most on integers first."""
    table = Table("in float", title=f"Mixed precision, without training; at most {front.max_drop:g} points below float")
    low = front.low_bits is not None
    headings = ("accuracy", "difference", "integers", *([f"{front.low_bits} bits"] if low else []), "")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    order = sorted(range(len(front.points)), key=lambda number: front.points[number].rank, reverse=True)
    for number in order:
        point = front.points[number]
        shares = [f"{point.int8_share:.1%}", *([f"{point.low_share:.1%}"] if low else [])]
        said = "chosen" if number == front.chosen else "" if number in front.pareto else "beaten"
        table.add_row(
            escape(some(point.floats, 3)) if point.floats else "nothing",
            f"{point.accuracy:.2%}",
            f"{0 - point.drop:+.2f}",
            *shares,
            said,
        )
    return table


def _forms(found: Analysis) -> Table:
    asked = "" if found.samples == found.asked else f" (of at most {found.asked})"
    table = Table("quantized", title=escape(f"{found.model} for {found.target}, {found.samples} samples{asked}"))
    for heading in ("accuracy", "difference", "output error"):
        table.add_column(heading, justify="right")
    base = found.forms["float"]
    for name, score in found.forms.items():
        accuracy = "" if score.accuracy is None else f"{score.accuracy:.2%}"
        table.add_row(FORMS[name], accuracy, _change(score, base), f"{score.output_error:.2%}")
    return table


def _blocks(found: Analysis) -> Table:
    shown = found.blocks[:WORST]
    which = f"the worst {len(shown)} of {len(found.blocks)}" if len(shown) < len(found.blocks) else "worst first"
    measured = "change of accuracy, output error" if found.labelled else "output error"
    table = Table("block", title=f"Blocks, {which}: {measured}")
    for heading in ("SQNR dB", "clipped", "alone quantized", "alone float"):
        table.add_column(heading, justify="right", no_wrap=True)
    for block in shown:
        table.add_row(escape(block.name), *_cells(block, found))
    return table


def _cells(block: BlockReport, found: Analysis) -> list[str]:
    sqnr = "no loss" if block.sqnr_db is None else f"{block.sqnr_db:.1f}"
    clipped = max((tensor.clipped for tensor in block.tensors), default=0.0)
    scores = (block.alone_quantized, found.forms["float"]), (block.alone_float, found.forms["quantized"])
    return [sqnr, f"{clipped:.3%}", *(_beside(score, base) for score, base in scores)]


def _beside(score: Score | None, base: Score) -> str:
    if score is None:
        return "not measured"
    return f"{_change(score, base)}  {score.output_error:.2%}".strip()


def _change(score: Score, base: Score) -> str:
    """In points; nothing without labels."""
    if score.accuracy is None or base.accuracy is None:
        return ""
    return f"{100 * (score.accuracy - base.accuracy):+.2f}"
