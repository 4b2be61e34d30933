"""Ablation page: docs/accuracy.md, what scripts/ablation.py measured, and each expectation shown or refuted."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = ("W8A8", "W4A8", "W4A4", "W2A8")
FLOAT, TFQAT, TFMOT = "float", "tfqat, defaults", "TFMOT"
LEARNED, AVERAGE, DISTILLED = "QAT learned", "QAT moving average", "QAT learned + distillation"
NEAREST, ADAROUND = "PTQ mse", "PTQ mse + AdaRound"
# Points that "not below" allows at least, by data set.
ALLOWED = {"cifar10": 1.0, "mnist": 0.2}
NAMES = {"cifar10": "CIFAR-10, 3,200 images", "mnist": "MNIST, 4,000 images"}

TEXT = """\
# Accuracy

What each method is worth on two small networks (MobileNetV2-style, 56,000 parameters; resnet8, 79,000) and two small
data sets (CIFAR-10: 3,200 images to train and 800 to test; MNIST: 4,000 and 5,000). Written by
`python scripts/ablation.py`, {date}, with {versions}.

- Figures are test accuracy in percent, mean ± standard deviation over the seeds 0, 1 and 2. All rows of a seed start
  from the same float weights; rows that train see the same batches in the same order
  ({epochs}; SGD with momentum, a cosine schedule from 0.01).
- W4A8: kernels of 4 bits, activations of 8; the image and the first convolution have 8 bits in all columns, the last
  layer is float. Target `sima`: asymmetric activations of any number of bits, a scale for each output channel.
- *PTQ*: calibrated with 512 training images; the methods behind + are added to `mse`, one at a time. *QAT*: starts
  from PTQ mse. ReLU stays ReLU, since cross-layer equalization needs it.
- *PTQ* and *moving average* take a kernel's scale from its largest weight; *learned* trains it (LSQ).
- *entropy* is the search of TensorRT's calibrator. It clips hard where many values are equal, as behind the uniform
  background of MNIST: a range with a bin for each integer keeps such peaks apart, and the divergence is least there.
{tables}
## Expectations

Differences are paired: the same seed on both sides. *Not below* allows one standard error of the mean difference, or
1 point on CIFAR-10 and 0.2 on MNIST, whichever is larger.

{expectations}
{tfmot}"""


class Cells:
    """The accuracies, in points: one array over the seeds for a network, data set, row and column."""

    def __init__(self, cells: Iterable[Mapping[str, Any]]) -> None:
        self._found: dict[tuple[str, ...], dict[int, float]] = {}
        for cell in cells:
            key = (cell["net"], cell["data"], cell["row"], cell["bits"])
            self._found.setdefault(key, {})[cell["seed"]] = 100 * cell["accuracy"]

    @property
    def subjects(self) -> list[tuple[str, str]]:
        """Networks and data sets, in the order of the page."""
        return sorted({key[:2] for key in self._found})

    def rows(self, subject: tuple[str, str]) -> list[str]:
        """The rows with a column each, in the order in which they were first measured."""
        return list(dict.fromkeys(key[2] for key in self._found if key[:2] == subject and key[2] not in (TFQAT, TFMOT)))

    def seeds(self, subject: tuple[str, str], row: str, bits: str) -> dict[int, float]:
        """Seed -> points."""
        return self._found.get((*subject, row, "" if row == FLOAT else bits), {})

    def differences(self, subject: tuple[str, str], row: str, other: str, bits: str) -> np.ndarray:
        """``row`` less ``other``, for each seed that both have."""
        first, second = self.seeds(subject, row, bits), self.seeds(subject, other, bits)
        return np.array([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())])


def write_page(cells: Iterable[Mapping[str, Any]], epochs: str, path: Path) -> None:
    """Writes the page of all that has been measured."""
    found = Cells(cells)
    tables = "".join(f"\n## {net}, {NAMES[data]}\n\n{_table(found, (net, data))}\n" for net, data in found.subjects)
    text = TEXT.format(
        date=date.today(),
        versions=_versions(),
        epochs=epochs,
        tables=tables,
        expectations=_lines(("expectation", "network, data", "measured", "verdict"), _expectations(found)),
        tfmot=_tfmot(found),
    )
    path.write_text(text, encoding="utf-8")


def _versions() -> str:
    import keras
    import tensorflow as tf

    import tfqat

    return (
        f"tfqat {tfqat.__version__}, keras {keras.__version__}, tensorflow {tf.__version__}, {platform.machine()} CPU"
    )


def _table(found: Cells, subject: tuple[str, str]) -> str:
    rows = []
    for row in found.rows(subject):
        columns = COLUMNS if row != FLOAT else COLUMNS[:1]
        figures = [_spread(found.seeds(subject, row, bits).values()) for bits in columns]
        rows.append((row, *figures, *[""] * (len(COLUMNS) - len(figures))))
    return _lines(("", *COLUMNS), rows)


def _spread(values: Iterable[float]) -> str:
    numbers = np.array(list(values))
    if not numbers.size:
        return "not measured"
    spread = f" ± {numbers.std(ddof=1):.2f}" if numbers.size > 1 else " (one seed)"
    return f"{numbers.mean():.2f}{spread}"


def _expectations(found: Cells) -> Iterator[tuple[str, ...]]:
    for subject in found.subjects:
        place = f"{subject[0]}, {subject[1]}"
        for row in (AVERAGE, LEARNED, DISTILLED):
            yield f"{row}, W8A8: not below float", place, *_not_below(found, subject, row, FLOAT, "W8A8", 0.0)
        yield (
            f"{LEARNED}, W4A8: within 1 point more of float",
            place,
            *_not_below(found, subject, LEARNED, FLOAT, "W4A8", 1.0),
        )
        yield f"{LEARNED}, W4A4: 5 points above {AVERAGE}, or within 1 of float", place, *_low_bits(found, subject)
        for bits in ("W4A8", "W4A4", "W2A8"):
            yield f"AdaRound, {bits}: recovers half of what nearest loses", place, *_recovers(found, subject, bits)


def _not_below(found: Cells, subject: tuple[str, str], row: str, other: str, bits: str, more: float) -> tuple[str, str]:
    gaps = found.differences(subject, row, other, bits)
    if not gaps.size:
        return "not measured", ""
    error = gaps.std(ddof=1) / np.sqrt(gaps.size) if gaps.size > 1 else 0.0
    allowed = max(error, ALLOWED[subject[1]]) + more
    measured = f"{gaps.mean():+.2f} (standard error {error:.2f}, allowed {-allowed:.2f})"
    return measured, "shown" if gaps.mean() >= -allowed else "refuted"


def _low_bits(found: Cells, subject: tuple[str, str]) -> tuple[str, str]:
    above = found.differences(subject, LEARNED, AVERAGE, "W4A4")
    below = found.differences(subject, LEARNED, FLOAT, "W4A4")
    if not (above.size and below.size):
        return "not measured", ""
    fine = above.mean() >= 5 or below.mean() >= -1
    return f"{above.mean():+.2f} to moving average, {below.mean():+.2f} to float", "shown" if fine else "refuted"


def _recovers(found: Cells, subject: tuple[str, str], bits: str) -> tuple[str, str]:
    lost = -found.differences(subject, NEAREST, FLOAT, bits)
    back = found.differences(subject, ADAROUND, NEAREST, bits)
    if not (lost.size and back.size):
        return "not measured", ""
    measured = f"{back.mean():+.2f} of {lost.mean():.2f} lost"
    if lost.mean() < 4:
        return measured, "no case: nearest loses less than 4 points"
    return measured, "shown" if back.mean() >= lost.mean() / 2 else "refuted"


def _tfmot(found: Cells) -> str:
    rows = []
    for subject in found.subjects:
        if found.differences(subject, TFQAT, TFMOT, "W8A8").size:
            figures = [_spread(found.seeds(subject, row, "W8A8").values()) for row in (FLOAT, TFQAT, TFMOT)]
            compared = _not_below(found, subject, TFQAT, TFMOT, "W8A8", 0.0)
            rows.append((f"{subject[0]}, {subject[1]}", *figures, *compared))
    if not rows:
        return ""
    table = _lines(("", FLOAT, TFQAT, TFMOT, "tfqat less TFMOT", "not below"), rows)
    return (
        "\n## Against TFMOT\n\nThe twin of each network in tf_keras with the same weights, quantized by "
        "`tfmot.quantization.keras.quantize_model`,\nand the network prepared by tfqat as it does where a spec says "
        "nothing (target tensorrt, ReLU becomes ReLU6,\nmoving average): the same batches, epochs and learning rates, "
        "W8A8."
        f"\n\n{table}\n"
    )


def _lines(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, ("---",) * len(headings), *rows))
