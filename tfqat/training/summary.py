"""Summary: a results folder as one HTML page, made of its files alone: stage table, curves, placement, spec."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from tfqat.core.files import write_text
from tfqat.graph.placement import Placement, placement_from_dict
from tfqat.graph.rows import Row
from tfqat.pages.page import filled, page, table
from tfqat.training.journal import FIRST, read_metrics, read_statuses
from tfqat.training.results import Results
from tfqat.training.stages import Stage, cells_of, read_stages

STATES = ("int8", "shared", "float")


def write_summary(results: Results) -> Path:
    """Writes ``summary.html`` anew; returns it.

    Raises:
        TfqatError: a file of the folder was damaged.
        OSError: it cannot be read or written.
    """
    plan = _placement(results.qat_model)
    rows = read_stages(results.stages)
    document = {"metrics": [_numbers(row) for row in read_metrics(results)], "figure": _figure(rows)}
    folder = files("tfqat.training")
    template, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("summary.html", "summary.js"))
    parts = {
        "stages": _stages(rows),
        "figure": escape(_figure(rows)),
        "curves": "" if document["metrics"] else "hidden",
        "placement": _placed(plan),
        "spec": escape(results.spec.read_text(encoding="utf-8")) if results.spec.exists() else "",
    }
    title = f"{results.folder.name}: " + (f"quantized for {plan.target}" if plan else "trained in float")
    text = json.dumps(document, allow_nan=False)
    return write_text(
        results.summary, page(title, _facts(results), _notes(results), filled(template, parts), text, script)
    )


def _placement(path: Path) -> Placement | None:
    """The plan that a file of a prepared model carries; None where there is none."""
    if not path.exists():
        return None
    with zipfile.ZipFile(path) as archive:
        plan = json.loads(archive.read("config.json"))["config"].get("placement")
    return plan and placement_from_dict(plan)


def _numbers(row: dict[str, str]) -> dict[str, Any]:
    """An epoch; what is not known, infinite or no number is None."""
    found: dict[str, Any] = {"phase": row["phase"], "epoch": int(row["epoch"])}
    for name in row.keys() - set(FIRST):
        value = float(row[name]) if row[name] else float("nan")
        found[name] = value if abs(value) < float("inf") else None
    return found


def _figure(rows: Sequence[Stage]) -> str:
    """What the models are compared by."""
    return rows[0].figure if rows else "accuracy"


def _facts(results: Results) -> str:
    lines = read_statuses(results)
    last = f"{lines[-1]['status']}, {lines[-1]['time']}; " if lines else ""
    return f"{last}{results.folder}"


def _notes(results: Results) -> list[str]:
    return [] if read_metrics(results) else ["No epoch was trained here, so there are no curves."]


def _stages(rows: Sequence[Stage]) -> str:
    heads = ["stage", _figure(rows), "points", "file size", "run by"]
    cells = [cells_of(row, rows[0]) for row in rows]
    return table("stages", heads, [(name, *numbers, runner) for name, runner, *numbers in cells], (0, 4))


def _placed(plan: Placement | None) -> str:
    if plan is None:
        return ""
    counts = Counter(row.state for row in plan.rows)
    facts = {state: f"{counts[state]} ops" for state in STATES}
    facts |= {"kernels": str(len(plan.weights)), "tensors": str(len(plan.activations))}
    facts["INT8 share"] = f"{plan.int8_mac_share:.1%}"
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    changes = "".join(f"<li>{escape(line)}</li>" for line in plan.changes)
    told = f"<details><summary>{len(plan.changes)} changes of the model</summary><ul>{changes}</ul></details>"
    choices = "".join(
        f'<label><input type="checkbox" value="{state}" checked> {state}</label>' for state in STATES if counts[state]
    )
    return (
        f"<section><h2>Placement for {escape(plan.target)}</h2><dl>{shown}</dl>"
        '<p class="soft">INT8 share: of the multiply-accumulates, output layers aside.</p>'
        f'<div class="choices" id="states">{choices}</div>{_ops(plan)}{told if changes else ""}</section>'
    )


def _ops(plan: Placement) -> str:
    inputs = [(name, "input", "", "", plan.range_text(name), "") for name in plan.inputs]
    rows = [*inputs, *(_op(row, plan) for row in plan.rows)]
    return table("ops", ["op", "state", "why", "MACs", "range after it", "kind"], rows, (0, 1, 2, 4, 5))


def _op(row: Row, plan: Placement) -> tuple[str, ...]:
    return (
        row.op,
        plan.state_text(row),
        row.reason,
        f"{row.macs:,}" if row.macs else "",
        plan.range_text(row.op),
        row.kind,
    )
