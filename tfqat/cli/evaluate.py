"""`tfqat evaluate`: measures the trained model, or a file made of it, on the validation data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfqat.cli.options import CommandError, Debug, Overrides, SpecFile, Trust

EXAMPLE = "tfqat evaluate --spec specs/digits.yaml --model results/digits/export/model.qdq.onnx"


def evaluate(
    spec: SpecFile,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="FILE", help="A .keras, .onnx or .tflite file; else the trained model."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="FILE", help="The TensorRT cache beside a float .onnx.")
    ] = None,
    layer_precisions: Annotated[
        Path | None,
        typer.Option("--layer-precisions", metavar="FILE", help="layer_precisions.txt beside that cache."),
    ] = None,
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="PATH", help="Where the JSON goes; - prints it, and nothing else."),
    ] = None,
    trust: Trust = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Measure a model or file on the validation data: top-1, top-5, each class, confusion matrix."""
    from tfqat.cli.run import run_job

    if model is None and (cache or layer_precisions):
        raise CommandError("--cache and --layer-precisions belong to a float ONNX; name it with --model.")
    if json is not None and json != "-" and (not json or Path(json).is_dir()):
        raise CommandError(f"--json: expected a file or -, received {json!r}")
    run_job("evaluate", "evaluate", spec, overrides, model, cache, layer_precisions, json, trust)
