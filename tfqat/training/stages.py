"""Stage: one form of the model on its way to the device, with what it scores and weighs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tfqat.core.files import write_text

FLOAT = "float"
RELU6 = "float + ReLU6"
PTQ = "PTQ (calibrated only)"
TUNED = "PTQ +"  # and the methods
TFMOT = "TFMOT, as it was trained"
IMPORTED = "TFMOT's ranges on the target"
QAT = "QAT"
FINALIZED = "finalized"


@dataclass(frozen=True)
class Stage:
    """One row of the stage table.

    Attributes:
        name: what the model has become.
        run_by: the program that ran it.
        score: what it reaches on the validation images, 0 to 1: its task's figure.
        figure: name of that.
        file_size: bytes of the file that it was read from; None where it is no file.
    """

    name: str
    run_by: str
    score: float
    file_size: int | None = None
    figure: str = "accuracy"


def read_stages(path: Path) -> list[Stage]:
    """The rows in ``path``, in the order in which they were added; none where there is no such file."""
    if not path.exists():
        return []
    return [Stage(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def add_stages(path: Path, stages: Iterable[Stage]) -> list[Stage]:
    """Adds rows to the file; one of the same name takes the old one's place. Returns all rows."""
    rows = {stage.name: stage for stage in read_stages(path)} | {stage.name: stage for stage in stages}
    write_text(path, json.dumps([asdict(stage) for stage in rows.values()], indent=1) + "\n")
    return list(rows.values())


def print_stages(stages: Iterable[Stage], console: Console | None = None) -> None:
    """Prints the table: score, difference to the first row in points, file size."""
    (console or Console()).print(stage_table(list(stages)))


def stage_table(stages: list[Stage]) -> Table:
    """The table of ``stages``; differences are to the first one."""
    table = Table("stage", "run by", title="Stages, on the same validation images")
    for heading in (stages[0].figure if stages else "score", "difference", "file size"):
        table.add_column(heading, justify="right")
    for stage in stages:
        table.add_row(*cells_of(stage, stages[0]))
    return table


def cells_of(stage: Stage, first: Stage) -> tuple[str, ...]:
    """A row of the table: name, program, score, difference to the first row in points, file size."""
    difference = "" if stage is first else f"{100 * (stage.score - first.score):+.2f}"
    return stage.name, stage.run_by, f"{stage.score:.2%}", difference, _size(stage.file_size)


def _size(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
