"""Classification: labels of image files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tfqat.errors import TfqatError
from tfqat.spec.schema import Spec
from tfqat.tasks import task_of
from tfqat.verification.model_file import ModelFileError

NAMES = ("cat", "dog", "owl")


@pytest.fixture
def task():
    return task_of(
        Spec.model_validate(
            {
                "results_dir": "unused",
                "dataset_config": {"kind": "image_folder", "train_dir": "a", "val_dir": "b"},
                "model_config": {"python": "a:b"},
            }
        )
    )


def test_logits_become_probabilities(task):
    logits = np.array([[0.0, 2.0, 1.0], [3.0, -1.0, -5.0]], np.float32)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = task.findings("a.onnx", [logits], [], NAMES, None)
    assert [one.label for one in found] == ["dog", "cat"]
    for one, row in zip(found, expected, strict=True):
        assert one.confidence == pytest.approx(row.max())
        assert one.rows() == [(one.label, one.confidence)]
        told = one.to_dict()
        assert (told["label"], told["confidence"]) == (one.label, one.confidence)
        assert list(told["probabilities"]) == list(NAMES)
        np.testing.assert_allclose(list(told["probabilities"].values()), row, rtol=1e-6)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_probabilities_stay(task, kind):
    shares = np.array([[0.2, 0.7, 0.1], [1, 0, 0]], kind)
    found = task.findings("a.onnx", [shares], [], NAMES, None)
    np.testing.assert_array_equal([list(one.probabilities.values()) for one in found], shares)


def test_what_does_not_fit(task):
    with pytest.raises(TfqatError, match=r"--threshold is for boxes; .* Leave it out"):
        task.findings("a.onnx", [np.ones((2, 3))], [], NAMES, 0.5)
    for wrong in (np.ones((2, 4)), np.ones((2, 3, 3))):
        with pytest.raises(ModelFileError, match=r"a\.onnx gives outputs of shape .*, expected \(3,\)"):
            task.findings("a.onnx", [wrong], [], NAMES, None)


def test_drawn_with_its_label(task):
    (one,) = task.findings("a.onnx", [np.array([[0.0, 9.0, 0.0]])], [], NAMES, None)
    plain = Image.new("L", (120, 80), 200)
    picture = np.asarray(task.drawn(plain, one, NAMES))
    assert picture.shape == (80, 120, 3)
    changed = (picture != 200).any(2)
    rows, columns = np.nonzero(changed)
    assert rows.max() < 25, "the label is at the top"
    assert columns.max() < 100
    assert (picture[changed] > 220).all(1).sum() > 20, "white letters"
