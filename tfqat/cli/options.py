"""Options: arguments that several subcommands share, and the error of a command that is asked for wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfqat.errors import TfqatError


class CommandError(TfqatError):
    """A command that cannot be run as it was asked for: exit code 2."""


SpecFile = Annotated[Path, typer.Option("--spec", "-s", metavar="FILE", help="The spec, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Dotted overrides of the spec, such as training_config.num_epochs=1."),
]
Debug = Annotated[bool, typer.Option("--debug", metavar="", help="Show the traceback of an error.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        metavar="",
        help="Run Python code that a model file carries (Lambda layers). Say so only where you trust whoever made the "
        "file; it is not remembered from command to command.",
    ),
]
Restart = Annotated[
    bool, typer.Option("--restart", metavar="", help="Remove an earlier run in the results folder first.")
]
