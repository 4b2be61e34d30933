"""`tfqat init`: writes a commented starter spec."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from tfqat.cli.options import CommandError, Debug

EXAMPLE = "tfqat init my_model.yaml"


def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write.")] = Path("spec.yaml"),
    force: Annotated[bool, typer.Option("--force", metavar="", help="Overwrite the file where it exists.")] = False,
    debug: Debug = False,
) -> None:
    """Write a commented starter spec that trains on the embedded digits."""
    from tfqat.core.files import write_text

    if path.is_dir():
        raise CommandError(f"{path} is a folder; name a file, such as {path / 'spec.yaml'}")
    if not path.parent.is_dir():
        raise CommandError(f"{path} cannot be written: there is no folder {path.parent}")
    if path.exists() and not force:
        raise CommandError(f"{path} exists; name another file, or overwrite it with --force")
    write_text(path, (files("tfqat.spec") / "starter.yaml").read_text(encoding="utf-8"))
    print(f"{path} written. Next: tfqat train --spec {path}")
