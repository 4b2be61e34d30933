"""Metrics against numbers worked out by hand, and against Keras' own."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from rich.console import Console

from tfqat.tasks.classification.metrics import metrics_of
from tfqat.tasks.classification.metrics_table import metrics_tables

# Six images of three classes; the second is taken for class 2, class 1 is never said.
SCORES = np.array([[9, 0, 0], [0, 1, 2], [0, 0, 3], [0, 0, 4], [5, 0, 1], [1, 0, 2]], np.float32)
LABELS = np.array([0, 1, 2, 2, 0, 0])


def test_by_hand():
    found = metrics_of(SCORES, LABELS, ("a", "b", "c"))
    assert found.images == 6
    assert found.top1 == pytest.approx(4 / 6)
    assert found.top5 is None
    assert [(c.name, c.precision, c.recall, c.support) for c in found.classes] == [
        ("a", 1.0, pytest.approx(2 / 3), 3),
        ("b", None, 0.0, 1),
        ("c", 0.5, 1.0, 2),
    ]
    assert found.confusion.tolist() == [[2, 0, 1], [0, 0, 1], [0, 0, 2]]
    assert found.most_confused == [("a", "c", 1), ("b", "c", 1)]


def test_an_absent_class_has_no_recall():
    found = metrics_of(SCORES[:1], LABELS[:1])
    assert [c.recall for c in found.classes] == [1.0, None, None]
    assert [c.name for c in found.classes] == ["0", "1", "2"]
    assert json.loads(json.dumps(found.to_dict()))["classes"][1]["recall"] is None


def test_against_keras():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 12)).astype("float32"), rng.integers(0, 12, 200)
    found = metrics_of(scores, labels)
    top5 = keras.metrics.SparseTopKCategoricalAccuracy(5)
    assert found.top5 == pytest.approx(float(top5(labels, scores)))
    assert found.top1 == pytest.approx(float(keras.metrics.SparseCategoricalAccuracy()(labels, scores)))
    logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert found.loss == pytest.approx(float(logits(labels, scores)), rel=1e-5)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert metrics_of(shares, labels).loss == pytest.approx(found.loss, rel=1e-4)


def test_of_equal_scores_the_first_counts():
    scores = np.zeros((4, 8), np.float32)
    found = metrics_of(scores, np.array([0, 1, 4, 5]))
    assert found.top1 == 0.25
    assert found.top5 == 0.75


@pytest.mark.parametrize("classes", [3, 40])
def test_tables(classes):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, classes, 400)
    labels[:50] = 2
    scores = np.eye(classes, dtype=np.float32)[labels]
    scores[:50] = np.eye(classes, dtype=np.float32)[1]
    console = Console(width=200)
    with console.capture() as captured:
        console.print(metrics_tables("x.onnx", "onnxruntime", metrics_of(scores, labels)))
    text = captured.get()
    assert "x.onnx" in text
    assert ("Confusion matrix" in text) == (classes <= 20)
    if classes > 20:
        assert [cell.strip(" │") for cell in text.splitlines()[-2].split("│")[1:4]] == ["2", "1", "50"]
        assert "10 classes of the lowest recall" in text
