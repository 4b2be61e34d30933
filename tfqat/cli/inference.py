"""`tfqat inference`: what the trained model, or a file made of it, says of image files."""

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

EXAMPLE = "tfqat inference --spec specs/efficientdet_bccd.yaml --input photos --draw"


def inference(
    spec: SpecFile,
    input: Annotated[Path, typer.Option("--input", metavar="PATH", help="An image, or a folder of images.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FOLDER", help="Where the files go; else <results_dir>/inference."),
    ] = None,
    model: ModelFile = None,
    cache: CacheFile = None,
    layer_precisions: LayerPrecisions = None,
    draw: Annotated[
        bool, typer.Option("--draw", help="Write the images, too, with boxes and labels drawn on them.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", metavar="SHARE", help="Confidence below which no box is told; else 0.3."),
    ] = None,
    trust: Trust = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Run a model on image files: result.json, result.csv (path, label, confidence, box) and drawn images."""
    from tfqat.cli.run import run_job

    check_files(model, cache, layer_precisions)
    if threshold is not None and not 0 <= threshold <= 1:
        raise CommandError(f"--threshold: expected a share from 0 to 1, received {threshold:g}")
    files = (model, cache, layer_precisions)
    run_job("inference", "inference", spec, overrides, input, output, *files, draw, threshold, trust)
