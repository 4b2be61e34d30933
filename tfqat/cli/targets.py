"""`tfqat targets`: lists the accelerators, and which files each is exported to."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tfqat.cli.options import Debug

EXAMPLE = "tfqat targets --json"


def targets(
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print JSON instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """List the accelerators: their integers, and the files that each is exported to."""
    from tfqat.jobs.targets import listed_targets, target_text

    rows = listed_targets()
    print(json.dumps([row.to_dict() for row in rows], indent=1) if as_json else target_text(rows))
