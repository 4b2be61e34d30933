"""Evaluate: the accuracy and loss of a trained model on its spec's validation images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tfqat import data as datasets
from tfqat.data.python import labels_explained
from tfqat.data.user_function import user_function
from tfqat.errors import TfqatError
from tfqat.models.load import load_model
from tfqat.training.evaluation import Score, evaluate_model
from tfqat.training.results import Results


def evaluate(spec: Any) -> Score:
    """The Score of `qat.keras`, or of `float.keras` where the spec trains in float; prints it as a table.

    Raises:
        TfqatError: there is no such file yet.
    """
    results = Results(Path(spec.results_dir))
    path = results.qat_model if spec.training.enable_qat else results.float_model
    if not path.exists():
        raise TfqatError(f"No trained model at {str(path)!r}. Run `tfqat train` with this spec first.")
    if spec.model.python:
        user_function(spec.model.python, "model_config.python")  # importing its module registers the user's layers
    model = load_model(path)
    data = datasets.load(spec.dataset, spec.random_seed, model.output_shape[-1])
    with labels_explained():
        score = evaluate_model(model, data.validation)
    table = Table("model", title="Validation images")
    for heading in ("accuracy", "loss"):
        table.add_column(heading, justify="right")
    table.add_row(path.name, f"{score.accuracy:.2%}", f"{score.loss:.4f}")
    Console().print(table)
    return score
