"""The lines that a script prints of a finished run: its stages, and those of them that are out of their bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tfqat.training import stages


def lines_of(rows: list[stages.Stage]) -> Iterator[tuple[str, ...]]:
    """Name, program, score, points to float and to QAT, size of each stage."""
    scores = {row.name: row.score for row in rows}
    for row in rows:
        points = [100 * (row.score - scores[name]) for name in (stages.FLOAT, stages.QAT)]
        size = "" if row.file_size is None else f"{row.file_size / 1e6:.2f} MB"
        yield (row.name, row.run_by, f"{row.score:.2%}", *(f"{point:+.2f}" for point in points), size)


def out_of_bounds(rows: list[stages.Stage], below_float: float, from_qat: float) -> Iterator[str]:
    """The stages that are out of their bounds, in points."""
    scores = {row.name: 100 * row.score for row in rows}
    if scores[stages.QAT] < scores[stages.FLOAT] - below_float:
        yield f"QAT is {scores[stages.FLOAT] - scores[stages.QAT]:.2f} points below float"
    for row in rows:
        if row.run_by != "Keras" and abs(scores[row.name] - scores[stages.QAT]) > from_qat:
            yield f"{row.name} is {scores[row.name] - scores[stages.QAT]:+.2f} points from QAT"


def tell(lines: Sequence[Sequence[str]]) -> None:
    """Prints a table, each line after the word RESULT."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("RESULT " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def end(failed: Sequence[str]) -> int:
    """Says whether all is within its bounds; returns the exit status."""
    print(f"FAILED: {'; '.join(failed)}" if failed else "All within bounds.")
    return 1 if failed else 0
