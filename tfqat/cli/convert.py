"""`tfqat convert`: writes the scales of one file format in another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tfqat.cli.options import Debug

EXAMPLE = "tfqat convert old.cache model.onnx --to qdq_onnx --output model.qdq.onnx"


def convert(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="One file that holds scales (encodings.json, a TensorRT cache, a Q/DQ ONNX, AIMET JSON) and what "
            "belongs to it (the float ONNX, layer_precisions.txt); known by their content, in any order.",
        ),
    ],
    to: Annotated[
        Literal["encodings", "cache", "qdq_onnx", "aimet"],
        typer.Option("--to", metavar="FORMAT", help="What to write: encodings, cache, qdq_onnx or aimet."),
    ],
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="PATH", help="The file to write, or a folder; companions go beside it."),
    ],
    tensorrt_version: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="For a cache's header; else the one that came with the scales, or 8.6.1."),
    ] = None,
    aimet_version: Annotated[
        Literal["0.6.1", "1.0.0", "2.0.0"],
        typer.Option(metavar="VERSION", help="Of AIMET encodings: 0.6.1, 1.0.0 or 2.0.0."),
    ] = "1.0.0",
    opset: Annotated[int | None, typer.Option(metavar="N", help="Of a Q/DQ ONNX; else that of the float ONNX.")] = None,
    int8_weights: Annotated[
        bool, typer.Option("--int8-weights", metavar="", help="Kernels in a Q/DQ ONNX as int8 (TensorRT 10 and later).")
    ] = False,
    lossless: Annotated[
        bool, typer.Option("--lossless", metavar="", help="Fail where the new files would leave anything out.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Convert between encodings.json, TensorRT caches, Q/DQ ONNX and AIMET encodings; lists what is left out."""
    from tfqat.jobs import convert as job

    job.convert(
        inputs,
        to,
        output,
        lossless=lossless,
        tensorrt_version=tensorrt_version,
        aimet_version=aimet_version,
        opset=opset,
        int8_weights=int8_weights,
    )
