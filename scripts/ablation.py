"""Ablation: what each method is worth, on small networks and real images; written to docs/accuracy.md.

    python scripts/ablation.py [--nets resnet8] [--data cifar10] [--seeds 0 1 2] [--rows "QAT learned"] [--bits W4A4]
    python scripts/ablation.py --page                      # the page alone, of what has been measured

Every figure (network, data, seed, row, bits) is one line of results/ablation/cells.jsonl; what stands there is not
measured again, so that a run may be broken off. All rows of one seed start from the same float weights, and those that
train see the same batches in the same order, TFMOT's twin in tf_keras too. About three hours on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from ablation_nets import NETS, twin
from ablation_page import write_page

import tfqat

FOLDER = Path("results/ablation")
PAGE = Path("docs/accuracy.md")
BATCH = 64
CALIBRATION_BATCHES = 8
BITS = {"W8A8": (8, 8), "W4A8": (4, 8), "W4A4": (4, 4), "W2A8": (2, 8)}


@dataclass(frozen=True)
class Setting:
    """How networks are trained on one data set: images, epochs, rates, whether images are flipped and shifted."""

    path: str
    train: int
    test: int
    float_epochs: int
    qat_epochs: int
    augment: bool
    float_rate: float = 0.1
    qat_rate: float = 0.01
    weight_decay: float = 5e-4


SETTINGS = {
    "cifar10": Setting("cifar10_4000/cifar10_4000.npz", 3200, 800, 25, 5, augment=True),
    "mnist": Setting("mnist/mnist.npz", 4000, 5000, 8, 3, augment=False),
}


@dataclass(frozen=True)
class Recipe:
    """One row: how ranges are first found, what is repaired, and how it is trained."""

    method: str = "mse"
    tune: tuple[str, ...] = ()
    ranges: str | None = None  # None: not trained
    target: str = "sima"
    relu6: tuple[str, ...] = ()
    distilled: bool = False


ROWS: dict[str, Recipe] = {
    "PTQ minmax": Recipe("minmax"),
    "PTQ mse": Recipe("mse"),
    "PTQ entropy": Recipe("entropy"),
    "PTQ mse + CLE": Recipe(tune=("equalize",)),
    "PTQ mse + bias correction": Recipe(tune=("bias_correction",)),
    "PTQ mse + AdaRound": Recipe(tune=("adaround",)),
    "QAT moving average": Recipe(ranges="moving_average"),
    "QAT learned": Recipe(ranges="learned"),
    "QAT learned + distillation": Recipe(ranges="learned", distilled=True),
}
# What tfqat does where a spec says nothing, against what TFMOT does: TensorRT, ReLU becomes ReLU6.
DEFAULTS = Recipe(ranges="moving_average", target="tensorrt", relu6=("relu",))
FLOAT, TFQAT, TFMOT = "float", "tfqat, defaults", "TFMOT"


@dataclass(frozen=True)
class Subject:
    """One network on one data set, from one seed."""

    net: str
    data: str
    seed: int

    @property
    def setting(self) -> Setting:
        return SETTINGS[self.data]


class Images:
    """The images of one data set: batches to train on, in an order that the seed alone decides, and a test set."""

    def __init__(self, root: Path, setting: Setting) -> None:
        with np.load(root / setting.path) as file:
            whole = "x_test" in file
            train = _every(file["x_train" if whole else "x"], file["y_train" if whole else "y"], setting.train, whole)
            rest = (
                (file["x_test"], file["y_test"]) if whole else (file["x"][setting.train :], file["y"][setting.train :])
            )
            test = _every(*rest, setting.test, whole)
        (self.x, self.y), (self.test_x, self.test_y) = train, test
        self.augment, self.steps = setting.augment, setting.train // BATCH

    def batches(self, seed: int, epochs: int) -> tf.data.Dataset:
        """``epochs`` times all images, shuffled; flipped and shifted by up to 4 pixels where the setting says so."""
        draw = np.random.default_rng(seed)
        orders = [draw.permutation(len(self.x))[: self.steps * BATCH].reshape(-1, BATCH) for _ in range(epochs)]
        rows = tf.data.Dataset.from_tensor_slices(np.concatenate(orders)).enumerate()
        return rows.map(lambda step, row: self._batch(step, row, seed)).prefetch(2)

    def _batch(self, step: Any, row: Any, seed: int) -> tuple[Any, Any]:
        x, y = tf.gather(self.x, row), tf.gather(self.y, row)
        if not self.augment:
            return x, y
        random = (tf.cast(step, tf.int32), seed)
        side = self.x.shape[1]
        x = tf.image.stateless_random_flip_left_right(x, random)
        x = tf.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
        top, left = tf.unstack(tf.random.stateless_uniform((2,), random, 0, 9, tf.int32))
        return x[:, top : top + side, left : left + side], y

    def calibration(self) -> list[np.ndarray]:
        """The first training images, as they are."""
        return [self.x[at * BATCH : (at + 1) * BATCH] for at in range(CALIBRATION_BATCHES)]

    def accuracy(self, model: Any) -> float:
        """Share of the test images that the model (of either Keras) names rightly."""
        named = np.concatenate([np.argmax(model.predict_on_batch(part), -1) for part in _parts(self.test_x)])
        return float((named == self.test_y).mean())


def _every(pixels: np.ndarray, labels: np.ndarray, count: int, sorted_by_label: bool) -> tuple[np.ndarray, np.ndarray]:
    """So many images, in [-1, 1], and their labels: evenly spaced in a file that has one class after the other."""
    step = len(labels) // count if sorted_by_label else 1
    return _scaled(pixels[::step][:count]), labels[::step][:count].astype(np.int64)


def _scaled(pixels: np.ndarray) -> np.ndarray:
    images = pixels.astype(np.float32) / 127.5 - 1.0
    return images if images.ndim == 4 else images[..., None]


def _parts(images: np.ndarray) -> list[np.ndarray]:
    return [images[at : at + 200] for at in range(0, len(images), 200)]


def fit(model: Any, images: Images, seed: int, epochs: int, optimizer: Any) -> None:
    """Trains a model of either Keras."""
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(images.batches(seed, epochs), epochs=epochs, steps_per_epoch=images.steps, verbose=0)


def train_quantized(model: Any, images: Images, subject: Subject, library: Any = keras) -> None:
    """Quantization-aware training, the same for every row, in either Keras."""
    epochs = subject.setting.qat_epochs
    schedule = library.optimizers.schedules.CosineDecay(subject.setting.qat_rate, epochs * images.steps)
    fit(model, images, subject.seed + 1000, epochs, library.optimizers.SGD(schedule, momentum=0.9))


def float_model(subject: Subject, images: Images) -> keras.Model:
    """The trained float network, from the folder where it has been trained before."""
    keras.utils.set_random_seed(subject.seed)
    model = NETS[subject.net](images.x.shape[1:], 10)
    path = FOLDER / f"{subject.net}_{subject.data}_{subject.seed}.weights.h5"
    if path.exists():
        model.load_weights(path)
    else:
        setting = subject.setting
        schedule = keras.optimizers.schedules.CosineDecay(setting.float_rate, setting.float_epochs * images.steps)
        optimizer = keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=setting.weight_decay)
        fit(model, images, subject.seed, setting.float_epochs, optimizer)
        model.save_weights(path)
    return model


def quantized(model: keras.Model, recipe: Recipe, bits: str, images: Images, subject: Subject) -> keras.Model:
    """What the recipe makes of the float network."""
    rules = rules_for(bits)
    even = [name for name in recipe.tune if name == "equalize"]
    if even:
        model, _ = tfqat.equalize(model, rules=rules, relu6=recipe.relu6)
    ranges = recipe.ranges or "fixed"
    qat = tfqat.prepare(model, target=recipe.target, rules=rules, relu6=recipe.relu6, ranges=ranges)
    calibration = images.calibration()
    tfqat.calibrate(qat, calibration, method=recipe.method)
    repairs = [name for name in recipe.tune if name != "equalize"]
    if repairs:
        tfqat.tune(qat, repairs, calibration)
        tfqat.calibrate(qat, calibration, method=recipe.method)
    if recipe.distilled:
        tfqat.distill(qat, model)
    if recipe.ranges:
        train_quantized(qat, images, subject)
    return qat


def rules_for(bits: str) -> list[dict[str, Any]]:
    """The rules of a column; the image and the first convolution have 8 bits, as in LSQ (arXiv:1902.08153, 3.)."""
    weights, activations = BITS[bits]
    if (weights, activations) == (8, 8):
        return []
    asked = {"weight_bits": weights} | ({"activation_bits": activations} if activations < 8 else {})
    return [{"match": "stem", "weight_bits": 8}, {"match": "image", "activation_bits": 8}, {"match": "*", **asked}]


def tfmot(model: keras.Model, images: Images, subject: Subject) -> Any:
    """The twin in tf_keras, quantized by TFMOT as its guide does, and trained on the same batches."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    quantized = tfmot.quantization.keras.quantize_model(twin(model))
    train_quantized(quantized, images, subject, tf_keras)
    return quantized


Make = Callable[[keras.Model, Images, Subject], Any]


def cells(subject: Subject) -> Iterator[tuple[str, str, Make]]:
    """Row, bits and how the model of that cell is made of the float one."""
    yield FLOAT, "", lambda model, images, subject: model
    yield TFQAT, "W8A8", lambda model, images, subject: quantized(model, DEFAULTS, "W8A8", images, subject)
    yield TFMOT, "W8A8", tfmot
    for row, recipe in ROWS.items():
        for bits in BITS:
            yield row, bits, lambda m, i, s, recipe=recipe, bits=bits: quantized(m, recipe, bits, i, s)


def measure(subject: Subject, arguments: argparse.Namespace) -> None:
    """Measures the cells of one subject that are asked for and not known yet."""
    known = {tuple(cell[key] for key in ("net", "data", "seed", "row", "bits")) for cell in read_cells()}
    wanted = [
        (row, bits, make)
        for row, bits, make in cells(subject)
        if row in arguments.rows and (not bits or bits in arguments.bits)
        if (subject.net, subject.data, subject.seed, row, bits) not in known
    ]
    if not wanted:
        return
    images = Images(arguments.root, subject.setting)
    model = float_model(subject, images)
    for row, bits, make in wanted:
        start = time.perf_counter()
        accuracy = images.accuracy(make(model, images, subject))
        seconds = round(time.perf_counter() - start, 1)
        _add({**asdict(subject), "row": row, "bits": bits, "accuracy": accuracy, "seconds": seconds})


def read_cells() -> list[dict[str, Any]]:
    """All that has been measured."""
    path = FOLDER / "cells.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _add(cell: dict[str, Any]) -> None:
    with (FOLDER / "cells.jsonl").open("a") as file:
        file.write(f"{json.dumps(cell)}\n")
    print(" ".join(str(value) for value in cell.values()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--data", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=[FLOAT, TFQAT, TFMOT, *ROWS])
    parser.add_argument("--bits", nargs="+", default=list(BITS), choices=list(BITS))
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not arguments.page:
        missing = [str(arguments.root / SETTINGS[name].path) for name in arguments.data]
        missing = [path for path in missing if not Path(path).exists()]
        if missing:
            sys.exit(f"{', '.join(missing)}: not there; --root names the folder of the data sets.")
        for seed in arguments.seeds:
            for data in arguments.data:
                for net in arguments.nets:
                    measure(Subject(net, data, seed), arguments)
    epochs = " and ".join(f"{setting.qat_epochs} epochs on {name}" for name, setting in SETTINGS.items())
    write_page(read_cells(), epochs, PAGE)


if __name__ == "__main__":
    main()
