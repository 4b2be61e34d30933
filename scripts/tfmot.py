"""Models that TFMOT quantized and trained, imported and deployed: how equal they are, in one table.

    python scripts/tfmot.py [--data ../shared/data/mnist/mnist.npz] [--models cnn mobilenetv2] [--folder results/tfmot]

Each model is trained by tf_keras and TFMOT in a process of its own (importing TFMOT turns tf.keras into tf_keras), on
MNIST: a small CNN, and MobileNetV2 (alpha 0.35) on the digits enlarged to 96 pixels. A model that is in the folder is
not trained again. The exit status is 1 where a figure is out of its bound.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 100
# At least this share of the logits within CLOSE, this share of the images in the same class; at most this many points.
LOGITS, CLOSE, SAME_CLASS, POINTS = 0.99, 1e-4, 0.999, 0.5
HEADINGS = ("model", "run", "accuracy", "to TFMOT", "same class", f"logits within {CLOSE:g}")


@dataclass(frozen=True)
class Setting:
    """How one model is trained: images, epochs in float and quantized, what its images are made of."""

    train: int
    test: int
    float_epochs: int
    qat_epochs: int
    enlarged: bool


SETTINGS = {"cnn": Setting(20000, 10000, 2, 1, False), "mobilenetv2": Setting(8000, 2000, 4, 1, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data/mnist/mnist.npz")
    parser.add_argument("--models", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--folder", type=Path, default=Path("results/tfmot"))
    parser.add_argument("--images", type=int, help="train on so many, in place of each model's own number")
    parser.add_argument("--train", choices=list(SETTINGS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.train:
        train(arguments.train, arguments.data, arguments.folder, arguments.images or SETTINGS[arguments.train].train)
        return
    if not Path(arguments.data).exists():
        sys.exit(f"{arguments.data} is not there; name an .npz file with MNIST's arrays: --data PATH")
    for name in arguments.models:
        make(name, arguments)
    rows = [row for name in arguments.models for row in measured(name, arguments.data, arguments.folder)]
    print(
        "\n".join(f"| {' | '.join(row)} |" for row in (HEADINGS, ["---"] * len(HEADINGS), *(row[:-1] for row in rows)))
    )
    failed = [f"{row[0]}, {row[1]}" for row in rows if row[-1] == "failed"]
    sys.exit(f"out of bounds: {'; '.join(failed)}" if failed else 0)


def make(name: str, arguments: argparse.Namespace) -> None:
    """Trains a model in a process of its own, unless it is there."""
    folder = arguments.folder
    if (folder / f"{name}.h5").exists() and (folder / f"{name}.npz").exists():
        return
    command = [sys.executable, __file__, "--train", name, "--data", arguments.data, "--folder", str(folder)]
    command += ["--images", str(arguments.images)] if arguments.images else []
    subprocess.run(command, check=True, env=os.environ | {"TF_USE_LEGACY_KERAS": "1"})


def images_of(pixels: np.ndarray, setting: Setting) -> np.ndarray:
    """Digits in [0, 1], (n, 28, 28, 1); or in [-1, 1], three times as large with a margin, (n, 96, 96, 3)."""
    if not setting.enlarged:
        return pixels[..., None].astype(np.float32) / 255
    large = np.pad(pixels.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (6, 6), (6, 6)))
    return large[..., None].repeat(3, axis=3).astype(np.float32) / 127.5 - 1


def test_batches(name: str, data: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """The test images and labels, every n-th of MNIST's, in batches."""
    setting = SETTINGS[name]
    with np.load(data) as file:
        step = len(file["y_test"]) // setting.test
        pixels, labels = file["x_test"][::step], file["y_test"][::step].astype(np.int64)
    starts = range(0, len(labels), BATCH)
    return [(images_of(pixels[at : at + BATCH], setting), labels[at : at + BATCH]) for at in starts]


def measured(name: str, data: str, folder: Path) -> Iterator[tuple[str, ...]]:
    """The lines of one model's table, each with a last cell that says whether it is within its bounds."""
    import tfqat

    path, known = folder / f"{name}.h5", folder / f"{name}.npz"
    batches, logits = test_batches(name, data), np.load(known)["logits"]
    labels = np.concatenate([part for _, part in batches])
    yield (name, "TFMOT itself (tf_keras)", f"{_accuracy(logits, labels):.2%}", "", "", "", "")
    own = tfqat.from_tfmot(path)
    yield _own_row(name, _outputs(own, batches), logits, labels)
    for target in ("tensorrt", "tflite"):
        model = tfqat.from_tfmot(path, target, batches)
        outputs = _outputs(model, batches)
        row = (_accuracy(outputs, labels), _same(outputs, logits))
        yield _row(name, f"for {target} (Keras)", *row, _accuracy(logits, labels))
        tfqat.export(model, folder / f"{name}_{target}")
        report = tfqat.verify(model, folder / f"{name}_{target}", batches)
        print(report)
        for found in report.rows:
            yield _row(name, found.name, found.score or 0.0, None, _accuracy(logits, labels))


def _own_row(name: str, outputs: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> tuple[str, ...]:
    close, same = float((np.abs(outputs - logits) <= CLOSE).mean()), _same(outputs, logits)
    row = _row(name, "imported (Keras 3)", _accuracy(outputs, labels), same, _accuracy(logits, labels))
    fine = close >= LOGITS and same >= SAME_CLASS
    return (*row[:5], f"{close:.2%}, farthest {np.abs(outputs - logits).max():.1e}", row[-1] if fine else "failed")


def _row(name: str, run: str, accuracy: float, same: float | None, reference: float) -> tuple[str, ...]:
    points = 100 * (accuracy - reference)
    verdict = "" if points >= -POINTS else "failed"
    return (name, run, f"{accuracy:.2%}", f"{points:+.2f}", "" if same is None else f"{same:.2%}", "", verdict)


def _outputs(model: Any, batches: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.concatenate([model.predict_on_batch(images) for images, _ in batches])


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def _same(outputs: np.ndarray, logits: np.ndarray) -> float:
    return float((outputs.argmax(axis=1) == logits.argmax(axis=1)).mean())


def train(name: str, data: str, folder: Path, count: int) -> None:
    """Trains in float, quantizes by TFMOT, trains on; writes the model and its logits of the test images."""
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    setting = SETTINGS[name]
    tf_keras.utils.set_random_seed(0)
    with np.load(data) as file:
        chosen = np.random.default_rng(0).permutation(len(file["y_train"]))[:count]
        pixels, labels = file["x_train"][chosen], file["y_train"][chosen].astype(np.int64)

    def batches(numbers: Any) -> tuple[np.ndarray, np.ndarray]:
        return images_of(pixels[numbers], setting), labels[numbers]

    shape = (None, *images_of(pixels[:1], setting).shape[1:])

    def read(numbers: Any) -> Any:
        images, truth = tf.numpy_function(batches, [numbers], (tf.float32, tf.int64))
        return tf.ensure_shape(images, shape), tf.ensure_shape(truth, (None,))

    dataset = tf.data.Dataset.range(len(labels)).shuffle(len(labels), seed=0).batch(32).map(read).prefetch(2)
    model = {"cnn": cnn, "mobilenetv2": mobilenetv2}[name](tf_keras)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(2e-3), loss, ["accuracy"])
    model.fit(dataset, epochs=setting.float_epochs, verbose=2)
    quantized = tfmot.quantization.keras.quantize_model(model)
    quantized.compile(tf_keras.optimizers.Adam(2e-4), loss, ["accuracy"])
    quantized.fit(dataset, epochs=setting.qat_epochs, verbose=2)
    quantized.save(folder / f"{name}.h5")
    logits = np.concatenate([quantized.predict_on_batch(images) for images, _ in test_batches(name, data)])
    np.savez(folder / f"{name}.npz", logits=logits)


def cnn(tf_keras: Any) -> Any:
    """Two convolutions with BatchNorm, two without, a depthwise one and a residual; 28 x 28 x 1 -> 10 logits."""
    layers = tf_keras.layers
    image = layers.Input((28, 28, 1), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="conv1")(image)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(momentum=0.9, name="bn1")(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    y = layers.Conv2D(16, 1, use_bias=False, name="pointwise")(y)
    x = layers.Add(name="add")([x, layers.BatchNormalization(momentum=0.9, name="bn2")(y)])
    x = layers.Conv2D(32, 3, activation="relu", name="conv2")(layers.ReLU(name="relu2")(x))
    x = layers.Conv2D(32, 3, activation="relu", name="conv3")(layers.MaxPooling2D(name="pool")(x))
    x = layers.Dense(64, activation="relu", name="hidden")(layers.Flatten(name="flatten")(x))
    return tf_keras.Model(image, layers.Dense(10, name="logits")(x), name="cnn")


def mobilenetv2(tf_keras: Any) -> Any:
    """MobileNetV2, alpha 0.35, 96 x 96 x 3 -> 10 logits."""
    model = tf_keras.applications.MobileNetV2((96, 96, 3), 0.35, weights=None, classes=10, classifier_activation=None)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = 0.9  # a thousand steps are too few for 0.999
    return model


if __name__ == "__main__":
    main()
