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
ModelFile = Annotated[
    Path | None,
    typer.Option("--model", metavar="FILE", help="A .keras, .onnx or .tflite file; else the trained model."),
]
CacheFile = Annotated[
    Path | None, typer.Option("--cache", metavar="FILE", help="The TensorRT cache beside a float .onnx.")
]
LayerPrecisions = Annotated[
    Path | None,
    typer.Option("--layer-precisions", metavar="FILE", help="layer_precisions.txt beside that cache."),
]
Restart = Annotated[
    bool, typer.Option("--restart", metavar="", help="Remove an earlier run in the results folder first.")
]


def check_files(model: Path | None, cache: Path | None, layer_precisions: Path | None) -> None:
    """Raises CommandError where files that belong to a float ONNX are named without it."""
    if model is None and (cache or layer_precisions):
        raise CommandError("--cache and --layer-precisions belong to a float ONNX; name it with --model.")
