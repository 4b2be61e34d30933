"""Analyze: measures what quantization costs a prepared model, block by block."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfqat.analysis.blocks import Block, blocks_of
from tfqat.analysis.files import write_analysis
from tfqat.analysis.forms import forms_of
from tfqat.analysis.report import Analysis, BlockReport, worst_first
from tfqat.analysis.samples import batch_size_of, read_samples
from tfqat.analysis.sensitivity import Sensitivity, rows_for, sensitivity_of
from tfqat.analysis.statistics import ROWS, Statistics, statistics_of
from tfqat.analysis.tensors import worst_sqnr
from tfqat.errors import TfqatError
from tfqat.rewrite.model import QuantizedModel, check_calibrated

IMAGES = 800
PACKAGES = ("tfqat", "keras", "tensorflow", "numpy")


def analyze(
    model: keras.Model,
    dataset: Any,
    images: int = IMAGES,
    budget: float | None = None,
    output: str | os.PathLike[str] | None = None,
) -> Analysis:
    """What quantization costs a prepared model: each block alone quantized and alone float, and each tensor's rounding.

    A block is a kernel with what is fused to it, up to and including the Quantizer of its output; or a Quantizer
    without a kernel (see analysis.blocks). Blocks are measured in the order of their own SQNR, worst first.

    Args:
        model: what ``prepare`` returned, calibrated or trained; it is left as it is.
        dataset: batches as ``model.fit`` takes them, or one array, or ``(x, y)`` of arrays; integer labels give
            accuracies, without any the error of the outputs says what is lost.
        images: how many samples are looked at, at most.
        budget: seconds after which no other block is begun; the whole forms and all tensors are always measured.
        output: folder that the report is written to (see analysis.files); None writes nothing.

    Raises:
        TfqatError: a finalized model, one without ranges, a wrong argument, values that are NaN or infinite.
        OSError: the folder cannot be written.
    """
    check_arguments(images, budget)
    check_calibrated(model)
    if output is not None:
        Path(output).mkdir(parents=True, exist_ok=True)  # what cannot be is found now, and not after the work
    found = _analysis(model, dataset, images, budget)
    if output is not None:
        write_analysis(found, output)
    return found


def _analysis(model: QuantizedModel, dataset: Any, images: int, budget: float | None) -> Analysis:
    begun = time.monotonic()
    forms = forms_of(model)
    samples = read_samples(forms.graph, dataset, images)
    fixed = batch_size_of(forms.graph)
    known = statistics_of(forms, samples, fixed or ROWS)
    places = {block.name: place for place, block in enumerate(blocks_of(forms.graph))}
    blocks = sorted(blocks_of(forms.graph), key=lambda block: _own_sqnr(block, known))
    rows = fixed or rows_for(len(samples), known.bytes_each)
    found = sensitivity_of(forms, blocks, samples, rows, None if budget is None else begun + budget)
    return Analysis(
        model=model.name,
        target=model.placement.target,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
        samples=len(samples),
        asked=images,
        seconds=time.monotonic() - begun,
        budget_seconds=budget,
        forms=found.forms,
        blocks=worst_first([_report(block, places[block.name], known, found) for block in blocks]),
    )


def check_arguments(images: int, budget: float | None) -> None:
    """Raises TfqatError where a number makes no sense."""
    if isinstance(images, bool) or not isinstance(images, int | np.integer) or images < 1:
        raise TfqatError(f"images: expected a whole number of at least 1, received {images!r}.")
    if budget is not None and not (math.isfinite(budget) and budget > 0):
        raise TfqatError(f"budget: expected seconds above 0, or None for no limit, received {budget!r}.")


def _own_sqnr(block: Block, known: Statistics) -> float:
    kernel, tensors = known.of(block)
    own = worst_sqnr([*tensors, *([kernel.rounding] if kernel else [])])
    return math.inf if own is None else own


def _report(block: Block, place: int, known: Statistics, found: Sensitivity) -> BlockReport:
    kernel, tensors = known.of(block)
    own = _own_sqnr(block, known)
    alone, without = found.alone.get(block.name, (None, None))
    return BlockReport(block.name, block.kind, place, None if math.isinf(own) else own, alone, without, kernel, tensors)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # TensorFlow, beside another backend
            found[name] = version(name)
    return found
