"""Journal: what happened in a run, as status.jsonl (one JSON object a line) and metrics.csv (one row an epoch).

Both files are written anew with each entry, so that a killed run leaves no half line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from tfqat.core.files import write_text
from tfqat.errors import TfqatError
from tfqat.training.results import Results

# What each row begins with. The loss of training is all that is minimized; the task's figures and the terms besides the
# labels' loss stand behind it.
FIRST = ("phase", "epoch")


def add_status(
    results: Results,
    status: str,
    message: str,
    phase: str | None = None,
    epoch: int | None = None,
    kpi: Mapping[str, float] | None = None,
) -> None:
    """Appends one line to status.jsonl.

    Args:
        results: the run's folder.
        status: STARTED, RUNNING, SUCCESS or FAILURE.
        message: one sentence.
        phase: float or qat.
        epoch: epochs of the phase that are done.
        kpi: name -> number.
    """
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": status,
        "phase": phase,
        "epoch": epoch,
        "kpi": {name: round(float(value), 6) for name, value in (kpi or {}).items()},
        "message": message,
    }
    _write_statuses(results, [*read_statuses(results), line])


def read_statuses(results: Results) -> list[dict[str, Any]]:
    """The lines of status.jsonl, oldest first; none where there is no such file.

    Raises:
        TfqatError: the file was damaged or edited; tfqat writes it whole or not at all.
    """
    if not results.status.exists():
        return []
    try:
        return [json.loads(line) for line in results.status.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise TfqatError(
            f"{results.status} holds a line that is no JSON: {error}. Remove the file, or run `tfqat train --restart`."
        ) from error


def add_metrics(results: Results, phase: str, epoch: int, values: Mapping[str, float]) -> None:
    """Appends the row of one epoch to metrics.csv; the numbers are written so that they read back exactly."""
    row = {"phase": phase, "epoch": str(epoch)}
    row |= {name: repr(float(value)) for name, value in values.items()}
    _write_metrics(results, [*read_metrics(results), row])


def read_metrics(results: Results) -> list[dict[str, str]]:
    """The rows of metrics.csv."""
    if not results.metrics.exists():
        return []
    with results.metrics.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def forget_after(results: Results, phase: str, epoch: int) -> None:
    """Drops what was noted of the phase's epochs after ``epoch``: without a checkpoint they are run once more."""
    lost: Callable[[Mapping[str, Any]], bool] = lambda entry: (  # noqa: E731
        entry["phase"] == phase and entry["epoch"] not in (None, "") and int(entry["epoch"]) > epoch
    )
    rows, lines = read_metrics(results), read_statuses(results)
    if any(map(lost, rows)):
        _write_metrics(results, [row for row in rows if not lost(row)])
    if any(map(lost, lines)):
        _write_statuses(results, [line for line in lines if not lost(line)])


def _write_statuses(results: Results, lines: list[dict[str, Any]]) -> None:
    write_text(results.status, "".join(json.dumps(line) + "\n" for line in lines))


def _write_metrics(results: Results, rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    columns = dict.fromkeys([*FIRST, *(name for row in rows for name in row)])
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(results.metrics, text.getvalue())
