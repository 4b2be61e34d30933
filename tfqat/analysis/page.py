"""Page: the report of an analysis as one HTML file; see pages.page for what all pages have.

The tables are made here; ``page.html`` says where they stand, and ``page.js`` draws the plots from what is in
``report.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from tfqat.analysis.report import FORMS
from tfqat.core.listing import some
from tfqat.pages.page import Cell, filled, page, table

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
QUOTE = '"'
SORTED_BY = "output error, alone quantized"


def page_of(document: Mapping[str, Any], text: str) -> str:
    """The page.

    Args:
        document: what ``Analysis.to_dict`` gives.
        text: the same as JSON.
    """
    folder = files("tfqat.analysis")
    template, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.js"))
    parts = {"forms": _forms(document), "blocks": _blocks(document), "front": _front(document["front"])}
    title = f"{document['model']} for {document['target']}"
    return page(title, _facts(document), document["notes"], filled(template, parts), text, script)


def _front(front: Mapping[str, Any] | None) -> str:
    """The models of mixed precision; nothing where none was looked for."""
    if front is None:
        return ""
    points = front["points"]
    low = [] if front["low_bits"] is None else [f"in {front['low_bits']} bits"]
    order = sorted(range(len(points)), key=lambda n: (-points[n]["int8_share"], -points[n]["low_share"], n))
    rows = []
    for number in order:
        point = points[number]
        shares = [f"{point['int8_share']:.1%}", *([f"{point['low_share']:.1%}"] if low else [])]
        said = "chosen" if number == front["chosen"] else "" if number in front["pareto"] else "another is better"
        floats = some(point["floats"], 4) or "nothing"
        rows.append([floats, f"{point['accuracy']:.2%}", f"{0 - point['drop']:+.2f}", *shares, said])
    marked = None if front["chosen"] is None else order.index(front["chosen"])
    heads = ["in float", "accuracy", "points", "on integers", *low, ""]
    rules = [
        [", ".join(f"{key}: {json.dumps(value).strip(QUOTE)}" for key, value in rule.items()), reason]
        for rule, reason in zip(front["rules"], front["reasons"], strict=True)
    ]
    told = f"<h3>Rules of the chosen one</h3>{table('rules', ['rule', 'measured'], rules, (0, 1))}" if rules else ""
    return (
        f"<section><h2>Mixed precision</h2><p>{escape(front['sentence'])}</p>"
        '<p class="soft">Each model was quantized without training and measured: accuracy against the share of the '
        "multiply-accumulates on integers; the bound is dashed.</p>"
        '<div id="front" class="plot"></div><p id="front-said" class="said soft" aria-live="polite"></p>'
        f"{table('points', heads, rows, (0, len(heads) - 1), marked)}{told}</section>"
    )


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
