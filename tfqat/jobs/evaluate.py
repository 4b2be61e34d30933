"""Evaluate: the accuracy and loss of a trained model on its spec's validation images."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from tfqat import data as datasets
from tfqat.data.python import labels_explained
from tfqat.jobs.trained import trained_model, trained_path
from tfqat.training.evaluation import Score, evaluate_model


def evaluate(spec: Any) -> Score:
    """The Score of `qat.keras`, or of `float.keras` where the spec trains in float; prints it as a table.

    Raises:
        TfqatError: there is no such file yet.
    """
    model = trained_model(spec)
    data = datasets.load(spec.dataset, spec.random_seed, model.output_shape[-1])
    with labels_explained():
        score = evaluate_model(model, data.validation)
    table = Table("model", title="Validation images")
    for heading in ("accuracy", "loss"):
        table.add_column(heading, justify="right")
    table.add_row(trained_path(spec).name, f"{score.accuracy:.2%}", f"{score.loss:.4f}")
    Console().print(table)
    return score
