"""Report: how far the exported files agree with the trained model, stage by stage, and what is out of tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tfqat.verification.blocks import BlockScore

# How far a stage may be from the trained model.
SCORE, AGREEMENT = 0.005, 0.99
# End to end: at most this many times the trained model's own change under noise of this relative size.
NOISE, NOISE_FACTOR, NOISE_SEEDS = 3e-7, 2.0, 4
# Below this relative error nothing is wrong: a small model may have no value near an edge for noise to push over.
NOISE_FLOOR = 1e-3


@dataclass(frozen=True)
class Row:
    """One stage on the given images.

    Attributes:
        name: the stage.
        images: how many were run.
        correct: how many had the label's class on top; None without labels.
        agreeing: how many had the trained model's class on top; None where outputs are no classes.
        error: relative L2 error of the centered outputs, the largest of all outputs; None where not judged.
        judged: whether ``error`` is judged: not where the device rounds what the trained model does not.
        blocks: one score a quantized tensor.
        note: what else is to be said.
        measured: the task's figure, 0 to 1, where that is not the share of right classes.
    """

    name: str
    images: int
    correct: int | None = None
    agreeing: int | None = None
    error: float | None = None
    judged: bool = True
    blocks: tuple[BlockScore, ...] = ()
    note: str = ""
    measured: float | None = None

    @property
    def score(self) -> float | None:
        """The task's figure, else the share of the images whose class is right, 0 to 1."""
        if self.measured is not None or self.correct is None:
            return self.measured
        return self.correct / self.images

    @property
    def agreement(self) -> float | None:
        """Share of the images whose class is the trained model's, 0 to 1."""
        return None if self.agreeing is None else self.agreeing / self.images


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        trained: the trained model's own row.
        rows: the rows of the files.
        noise: the trained model's own error under noise, end to end.
        judged: how many images the errors were judged on.
        in_blocks: how many of them the blocks were judged on.
        disagreements: what the files say differently.
        figure: name of what the scores are.
    """

    trained: Row
    rows: tuple[Row, ...]
    noise: float
    judged: int
    in_blocks: int
    disagreements: tuple[str, ...] = ()
    figure: str = "accuracy"
    problems: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "problems", tuple(_problems(self)))

    @property
    def blocks(self) -> tuple[BlockScore, ...]:
        """The scores of all blocks of all rows."""
        return tuple(score for row in self.rows for score in row.blocks)

    @property
    def passed(self) -> bool:
        """Whether everything is within its tolerance."""
        return not self.problems

    def __str__(self) -> str:
        return "\n".join([*_lines(self), *(f"OUT OF TOLERANCE: {problem}" for problem in self.problems)])


def top1(outputs: np.ndarray) -> np.ndarray | None:
    """The class on top for each image (each place of an image); None where the last axis holds no classes."""
    return outputs.argmax(axis=-1) if outputs.ndim >= 2 and outputs.shape[-1] > 1 else None


def _problems(report: Report) -> list[str]:
    found = list(report.disagreements)
    limit = NOISE_FACTOR * max(report.noise, NOISE_FLOOR)
    for row in report.rows:
        found += _row_problems(row, report.trained, report.figure)
        found += _block_problems(row)
        if row.judged and row.error is not None and not row.error <= limit:
            found.append(f"{row.name}: end-to-end error {row.error:.2e} is above {limit:.2e}")
    return found


def _block_problems(row: Row) -> list[str]:
    failed = [score for score in row.blocks if not score.passed]
    if not failed:
        return []
    worst = max(failed, key=lambda score: score.differing / score.elements)
    return [
        f"{row.name}: {len(failed)} of {len(row.blocks)} blocks differ from the trained model, the worst is "
        f"{worst.tensor!r}: {worst.differing} of {worst.elements} elements, up to {worst.largest} steps"
    ]


def _row_problems(row: Row, trained: Row, figure: str) -> list[str]:
    found = []
    if _apart(row, trained):
        found.append(
            f"{row.name}: {figure} {row.score:.2%} is more than {100 * SCORE:g} point from the trained model's "
            f"{trained.score:.2%}"
        )
    # Without labels the images may be noise, on which a net may sit on the edge between classes everywhere.
    if (
        row.correct is not None
        and row.agreeing is not None
        and row.images - row.agreeing > math.ceil((1 - AGREEMENT) * row.images)
    ):
        found.append(f"{row.name}: names the trained model's class on {row.agreement:.2%} of the images, not 99 %")
    return found


def _apart(row: Row, trained: Row) -> bool:
    if row.measured is not None and trained.measured is not None:
        return abs(row.measured - trained.measured) > SCORE
    if row.correct is None or trained.correct is None:
        return False
    return abs(row.correct - trained.correct) > math.ceil(SCORE * row.images)


def _lines(report: Report) -> Sequence[str]:
    lines = [row.note for row in report.rows if row.note]
    for row in report.rows:
        parts = [f"{row.name}: {row.images} images"]
        parts += [] if row.score is None else [f"{report.figure} {row.score:.2%} (QAT {report.trained.score:.2%})"]
        parts += [] if row.agreement is None else [f"same class as QAT on {row.agreement:.2%}"]
        parts += [] if row.error is None else [f"end-to-end error {row.error:.2e}"]
        lines.append(", ".join(parts))
    lines += [_blocks_line(row, report.in_blocks) for row in report.rows if row.blocks]
    lines.append(f"QAT's own end-to-end error under {NOISE:g} noise on {report.judged} images: {report.noise:.2e}")
    return lines


def _blocks_line(row: Row, images: int) -> str:
    same = 1 - sum(s.differing for s in row.blocks) / sum(s.elements for s in row.blocks)
    farthest = max(score.largest for score in row.blocks)
    least = 1 - max(s.differing / s.elements for s in row.blocks)
    return (
        f"Blocks of the {row.name}, each fed QAT's own input of {images} image{'s' * (images > 1)}: "
        f"{len(row.blocks)}, {same:.4%} of the elements on the same integer (least in one block {least:.4%}), the "
        f"farthest {farthest} step apart"
    )
