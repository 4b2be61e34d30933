"""Writes the tables of README.md anew, from what the other scripts last printed.

    bash scripts/demo.sh                                       # stage-table, placement-table: results/digits
    python scripts/bench.py | tee results/bench.txt            # bench-table
    python scripts/models.py | tee results/models.txt          # models-table
    python scripts/readme.py

A table whose source is not there keeps its text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from tfqat.training import stages

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"


def stage_table() -> str:
    """The stages of the digits, as `tfqat verify` ends."""
    console = Console(file=io.StringIO(), width=90)
    stages.print_stages(stages.read_stages(RESULTS / "digits/stages.json"), console)
    return console.file.getvalue().rstrip()


def placement_table() -> str:
    """The first ops, the last ones and the totals of the digits' placement."""
    lines = (RESULTS / "digits/placement.txt").read_text().splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("op "))
    table = lines[header:]
    return "\n".join([lines[0], "...", *table[:14], "...", *table[-6:]])


def bench_table() -> str:
    """What bench.py printed."""
    return (RESULTS / "bench.txt").read_text().strip()


def models_table() -> str:
    """The result lines that models.py printed."""
    lines = (RESULTS / "models.txt").read_text().splitlines()
    return "\n".join(line.removeprefix("RESULT ").rstrip() for line in lines if line.startswith("RESULT "))


TABLES: dict[str, Callable[[], str]] = {
    "stage-table": stage_table,
    "placement-table": placement_table,
    "bench-table": bench_table,
    "models-table": models_table,
}


def main() -> None:
    path = ROOT / "README.md"
    text = path.read_text()
    for name, table in TABLES.items():
        try:
            body = table()
        except FileNotFoundError as error:
            print(f"{name}: kept, {error.filename} is not there")
            continue
        block = f"<!-- {name} -->\n```\n{body}\n```\n<!-- /{name} -->"
        text, count = re.subn(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _, b=block: b, text, flags=re.DOTALL)
        print(f"{name}: written" if count else f"{name}: README.md has no place for it")
    path.write_text(text)


if __name__ == "__main__":
    main()
