"""Analyze: what quantization costs the trained model of a spec, block by block, on its validation images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from tfqat import data as datasets
from tfqat.analysis.analyze import analyze
from tfqat.analysis.files import FILES
from tfqat.analysis.report import Analysis
from tfqat.analysis.tables import analysis_tables
from tfqat.data.python import labels_explained
from tfqat.jobs.trained import quantized_model

FOLDER = "analysis"


def analyze_spec(
    spec: Any, images: int, budget: float | None = None, output: Path | None = None, trust: bool = False
) -> Analysis:
    """Analyses the quantization-aware trained model of a spec, prints tables and writes the report.

    Args:
        spec: the spec.
        images: validation images that are looked at, at most.
        budget: seconds after which no other block is begun; None for no limit.
        output: folder of the report; ``<results_dir>/analysis`` where None.
        trust: whether Python code in the trained model's file may run (Lambda layers).

    Raises:
        TfqatError: there is no trained model yet, or see :func:`tfqat.analysis.analyze.analyze`.
        OSError: the report cannot be written.
    """
    model = quantized_model(spec, trust)
    data = datasets.load(spec.dataset, spec.random_seed, model.output_shape[-1])
    folder = Path(spec.results_dir) / FOLDER if output is None else output
    with labels_explained():
        found = analyze(model, data.validation, images, budget, folder)
    Console().print(analysis_tables(found))
    print(f"Written to {' and '.join(str(folder / name) for name in FILES)}")
    return found
