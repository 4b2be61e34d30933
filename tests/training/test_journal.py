"""status.jsonl and metrics.csv."""

from __future__ import annotations

import csv
import json

import pytest

from tfqat.errors import TfqatError
from tfqat.training import journal
from tfqat.training.results import Results

VALUES = {"loss": 0.1 + 0.2, "accuracy": 1 / 3, "val_loss": 2.0, "val_accuracy": 0.5, "learning_rate": 1e-30}


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path)


def test_a_line_is_one_json_object_with_the_keys_of_the_format(results):
    journal.add_status(results, "STARTED", "one\ntwo")
    journal.add_status(results, "RUNNING", "Epoch 1 done.", "float", 1, {"loss": 0.5})
    first, second = map(json.loads, results.status.read_text().splitlines())
    assert {"time", "status", "epoch", "kpi", "message"} <= first.keys()
    assert first["message"] == "one\ntwo"
    assert (second["status"], second["epoch"], second["kpi"]) == ("RUNNING", 1, {"loss": 0.5})


def test_metrics_read_back_exactly(results):
    journal.add_metrics(results, "float", 1, VALUES)
    with results.metrics.open() as file:
        (row,) = csv.DictReader(file)
    assert {name: float(row[name]) for name in VALUES} == VALUES


def test_epochs_without_a_checkpoint_are_forgotten(results):
    for phase, epochs in (("float", 2), ("qat", 3)):
        for epoch in range(1, epochs + 1):
            journal.add_metrics(results, phase, epoch, VALUES)
            journal.add_status(results, "RUNNING", "", phase, epoch)
    journal.add_status(results, "FAILURE", "")
    journal.forget_after(results, "qat", 1)
    left = [("float", 1), ("float", 2), ("qat", 1)]
    assert [(row["phase"], int(row["epoch"])) for row in journal.read_metrics(results)] == left
    lines = journal.read_statuses(results)
    assert [(line["phase"], line["epoch"]) for line in lines] == [*left, (None, None)]


def test_a_damaged_status_file_is_named(results):
    results.status.write_text("junk\n")
    with pytest.raises(TfqatError, match=r"status\.jsonl holds a line that is no JSON.*--restart"):
        journal.read_statuses(results)
