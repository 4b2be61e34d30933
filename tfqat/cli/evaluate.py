"""`tfqat evaluate`: measures the trained model, or a file made of it, on the validation data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfqat.cli.options import (
    CacheFile,
    CommandError,
    Debug,
    LayerPrecisions,
    ModelFile,
    Overrides,
    SpecFile,
    Trust,
    check_files,
)

EXAMPLE = "tfqat evaluate --spec specs/digits.yaml --model results/digits/export/model.qdq.onnx"


def evaluate(
    spec: SpecFile,
    model: ModelFile = None,
    cache: CacheFile = None,
    layer_precisions: LayerPrecisions = None,
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

    check_files(model, cache, layer_precisions)
    if json is not None and json != "-" and (not json or Path(json).is_dir()):
        raise CommandError(f"--json: expected a file or -, received {json!r}")
    run_job("evaluate", "evaluate", spec, overrides, model, cache, layer_precisions, json, trust)
