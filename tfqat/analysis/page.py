"""Page: the report as one HTML file that opens without a network, on a phone and in dark mode.

The tables are made here and are complete by themselves; ``page.html`` has the looks, and draws the plots from the same
JSON as ``report.json``. Nothing but its own script may run (a Content-Security-Policy with its hash), and names of the
model are escaped wherever they stand.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from tfqat.analysis.report import FORMS

# Heading, and whether the column holds text; the first columns are what a phone shows.
COLUMNS = (
    ("block", True),
    ("output error, alone quantized", False),
    ("accuracy, alone quantized", False),
    ("output error, alone float", False),
    ("accuracy, alone float", False),
    ("SQNR dB", False),
    ("clipped", False),
    ("channel ratio", False),
    ("kind", True),
    ("place", False),
)
SORTED_BY = "output error, alone quantized"

# What is shown, and the number that it is sorted by; None where it is not known.
Cell = tuple[str, Any]


def page_of(document: Mapping[str, Any], text: str) -> str:
    """The page.

    Args:
        document: what ``Analysis.to_dict`` gives.
        text: the same as JSON.
    """
    template = files("tfqat.analysis").joinpath("page.html").read_text(encoding="utf-8")
    parts = {
        "script_hash": _hash(template),
        "title": escape(f"{document['model']} for {document['target']}"),
        "facts": escape(_facts(document)),
        "notes": "".join(f'<p class="note">{escape(note)}</p>' for note in document["notes"]),
        "forms": _forms(document),
        "blocks": _blocks(document),
        # No markup can begin inside it; the same JSON to whoever parses it.
        "report": text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found.group(1)], template)


def _hash(template: str) -> str:
    script = template[template.rindex("<script>") + len("<script>") : template.rindex("</script>")]
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _facts(document: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    return f"{document['samples']} samples, {document['seconds']:.1f} s, {document['date']}; {versions}"


def _forms(document: Mapping[str, Any]) -> str:
    scores, rows = document["forms"], []
    most = max(score["output_error"] for score in scores.values())
    for name, score in scores.items():
        cells = [FORMS[name], _accuracy(score), _change(score, scores["float"])[0]]
        body = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f"<tr>{body}<td>{_error(score, most)[0]}</td></tr>")
    heads = "".join(f"<th>{name}</th>" for name in ("quantized", "accuracy", "points", "output error"))
    return f'<table id="forms"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _blocks(document: Mapping[str, Any]) -> str:
    blocks, scores = document["blocks"], document["forms"]
    most = [
        max((block[what]["output_error"] for block in blocks if block[what]), default=0.0)
        for what in ("alone_quantized", "alone_float")
    ]
    heads = "".join(_head(name, text) for name, text in COLUMNS)
    rows = "".join(_row(number, block, scores, most) for number, block in enumerate(blocks))
    return f'<table id="blocks"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _head(name: str, text: bool) -> str:
    attributes = (' class="text"' if text else "") + (' aria-sort="descending"' if name == SORTED_BY else "")
    return f'<th{attributes}><button type="button">{name}</button></th>'


def _row(number: int, block: Mapping[str, Any], scores: Mapping[str, Any], most: Sequence[float]) -> str:
    clipped = max((tensor["clipped"] for tensor in block["tensors"]), default=0.0)
    ratio = block["kernel"]["channels"]["ratio"] if block["kernel"] else None
    name = escape(block["name"])
    cells: list[Cell] = [
        (f'<button type="button">{name}</button>', block["name"]),
        _error(block["alone_quantized"], most[0]),
        _change(block["alone_quantized"], scores["float"]),
        _error(block["alone_float"], most[1]),
        _change(block["alone_float"], scores["quantized"]),
        ("no loss" if block["sqnr_db"] is None else f"{block['sqnr_db']:.1f}", block["sqnr_db"]),
        (f"{clipped:.3%}", clipped),
        ("" if ratio is None else f"{ratio:.3g}", ratio),
        (escape(block["kind"]), block["kind"]),
        (str(block["place"]), block["place"]),
    ]
    body = "".join(_cell(*cell, text) for cell, (_, text) in zip(cells, COLUMNS, strict=True))
    return f'<tr data-block="{number}">{body}</tr>'


def _cell(shown: str, value: Any, text: bool) -> str:
    kind = ' class="text"' if text else ""
    return f'<td{kind} data-value="{"" if value is None else escape(str(value))}">{shown}</td>'


def _accuracy(score: Mapping[str, Any]) -> str:
    return "" if score["accuracy"] is None else f"{score['accuracy']:.2%}"


def _change(score: Mapping[str, Any] | None, base: Mapping[str, Any]) -> Cell:
    """In points."""
    if score is None:
        return "not measured", None
    if score["accuracy"] is None or base["accuracy"] is None:
        return "", None
    points = 100 * (score["accuracy"] - base["accuracy"])
    return f"{points:+.2f}", points


def _error(score: Mapping[str, Any] | None, most: float) -> Cell:
    if score is None:
        return "not measured", None
    error = score["output_error"]
    share = 100 * error / most if most else 0
    return f'{error:.2%}<span class="meter"><i style="width:{share:.0f}%"></i></span>', error
