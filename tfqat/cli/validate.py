"""`tfqat validate`: says whether a spec is valid, or names every mistake in it."""

from __future__ import annotations

from typing import Annotated

import typer

from tfqat.cli.options import Debug, Overrides, SpecFile

EXAMPLE = "tfqat validate --spec specs/digits.yaml training_config.num_epochs=1"


def validate(
    spec: SpecFile,
    overrides: Overrides = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", metavar="", help="Print the whole spec, defaults included.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Check a spec without running it: names every mistake at once."""
    from tfqat.spec import dump_spec, load_spec

    loaded = load_spec(spec, overrides or ())
    if resolved:
        print(dump_spec(loaded), end="")
    else:
        print(f"{spec}: valid")
