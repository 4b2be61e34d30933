"""Digits: scikit-learn's 1,797 handwritten digits (8 x 8, real handwriting, installed with the package)."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfqat.data.pipeline import Data, Split, check_labels, seeded

# One third is held out. The split is a constant of the data set, or accuracies of two seeds could not be compared.
TEST_IMAGES = 599
SPLIT_SEED = 0


def load(dataset: Any, seed: int, num_classes: int | None = None) -> Data:
    """Images in [0, 1], ``(image_size, image_size, 1)``, upscaled bilinearly; 1,198 for training, 599 held out.

    Source: UCI "Optical Recognition of Handwritten Digits", test part, as `sklearn.datasets.load_digits` has it.
    """
    # scikit-learn takes a second to import, so only where it is needed.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    check_labels(digits.target, num_classes, "The digits data set")
    images = _upscaled(digits.images.astype(np.float32) / 16.0, dataset.image_size)
    x_train, x_test, y_train, y_test = train_test_split(
        images, digits.target.astype(np.int32), test_size=TEST_IMAGES, stratify=digits.target, random_state=SPLIT_SEED
    )
    names = tuple(str(digit) for digit in range(10))
    parts = Split(x_train, y_train, tf.identity), Split(x_test, y_test, tf.identity)
    return seeded(*parts, input_shape(dataset), dataset.batch_size, seed, names)


def input_shape(dataset: Any) -> tuple[int, int, int]:
    """One gray image."""
    return (dataset.image_size, dataset.image_size, 1)


def _upscaled(images: np.ndarray, size: int) -> np.ndarray:
    return tf.image.resize(images[..., None], (size, size)).numpy()
