"""Page: one report as one HTML file.

Its tables are complete by themselves; plots are drawn from the same JSON that the page carries. Nothing but its own
script may run (a Content-Security-Policy with its hash), nothing is loaded, and what comes from a model or a spec is
escaped wherever it stands.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import count

# What is shown (markup), and the value that it is sorted by; None where it is not known.
Cell = tuple[str, object]


def page(title: str, facts: str, notes: Iterable[str], body: str, text: str, script: str) -> str:
    """The page.

    Args:
        title: what it is about.
        facts: one line below.
        notes: what has to be known besides.
        body: markup.
        text: JSON, which ``script`` knows as ``report``.
        script: what draws the plots; see ``plots.js`` for what it may call.
    """
    whole = f'"use strict";\n(() => {{\n{_own("plots.js")}\n{script}}})();\n'
    parts = {
        "script_hash": "sha256-" + base64.b64encode(hashlib.sha256(whole.encode()).digest()).decode(),
        "title": escape(title),
        "facts": escape(facts),
        "notes": "".join(f'<p class="note">{escape(note)}</p>' for note in notes),
        "body": body,
        # No markup can begin inside it; the same JSON to whoever parses it.
        "report": text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"),
        "script": whole,
    }
    return filled(_own("page.html"), parts)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with each ``{{name}}`` replaced, what is put in left as it is."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found.group(1)], template)


def table(
    name: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    texts: Iterable[int] = (0,),
    chosen: int | None = None,
) -> str:
    """A table of plain cells, which are escaped; the columns ``texts`` hold words, the row ``chosen`` is marked."""
    words = set(texts)

    def line(tag: str, cells: Sequence[str], mark: str = "") -> str:
        shown = ((' class="text"' if number in words else "", escape(cell)) for number, cell in enumerate(cells))
        return f"<tr{mark}>" + "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in shown) + "</tr>"

    marks = (' class="chosen"' if number == chosen else "" for number in count())
    body = "".join(line("td", row, mark) for row, mark in zip(rows, marks, strict=False))
    plain = f'<table id="{name}" class="plain"><thead>{line("th", heads)}</thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{plain}</div>'


def _own(name: str) -> str:
    return files("tfqat.pages").joinpath(name).read_text(encoding="utf-8")
