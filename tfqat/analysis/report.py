"""Analysis: what quantization costs a model, block by block, and why; the value that reports are written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tfqat.analysis.front import Front
from tfqat.analysis.score import Score
from tfqat.analysis.tensors import Channels, TensorReport

SCHEMA = 1
# Whole forms of a model, and what a reader calls them.
FORMS = {
    "float": "float",
    "quantized": "all quantized",
    "weights_only": "weights only",
    "activations_only": "activations only",
}


@dataclass(frozen=True)
class KernelReport:
    """A kernel's rounding, and the ranges of its channels."""

    rounding: TensorReport
    channels: Channels


@dataclass(frozen=True)
class BlockReport:
    """One block.

    Attributes:
        name, kind: see analysis.blocks.
        place: its number in the order of the model, from 0.
        sqnr_db: the worst of its tensors and kernel; None where nothing is lost.
        alone_quantized: the Score with this block on integers and all else in float; None where not measured.
        alone_float: the Score with this block in float and all else on integers; None where not measured.
        kernel: None without one.
        tensors: those that it quantizes.
    """

    name: str
    kind: str
    place: int
    sqnr_db: float | None
    alone_quantized: Score | None
    alone_float: Score | None
    kernel: KernelReport | None
    tensors: tuple[TensorReport, ...]


@dataclass(frozen=True)
class Analysis:
    """What was found; ``to_dict`` says it as JSON:

    ``schema``: 1. ``model``, ``target``: names. ``date``: ISO 8601, UTC. ``versions``: program -> version.
    ``samples``, ``asked``: how many were looked at, and asked for. ``labelled``: whether accuracies are known.
    ``seconds``, ``budget_seconds``: how long it took, and what it was given (null: no limit).
    ``forms``: ``float``, ``quantized`` (all blocks), ``weights_only``, ``activations_only`` -> score.
    ``not_measured``: names of the blocks that the budget did not reach. ``notes``: what a reader has to know besides.
    ``front``: models of mixed precision that were measured, null where that was not asked for (see ``Front``): each of
    ``points`` has ``floats`` (blocks in float), ``low`` (kernels of fewer bits), ``accuracy``, ``drop`` (points below
    ``float_accuracy``), ``int8_share`` and ``low_share`` (0 to 1); ``pareto`` (numbers of the points that none beats),
    ``chosen`` (the number of one, null where none keeps ``max_drop``), its ``rules``, and of each its ``reasons``.
    ``blocks``: worst first; by the output error of the block alone quantized, then those not measured, by SQNR.

    A score is ``accuracy`` (0 to 1; null without labels) and ``output_error`` (relative to the float form's outputs). A
    block has ``name``, ``kind``, ``place`` (its number in the model), ``sqnr_db``, ``alone_quantized`` and
    ``alone_float`` (scores, null where not measured), ``kernel`` (null without one) and ``tensors``. A tensor has
    ``name``, ``sqnr_db`` (null where nothing is lost), ``mse``, ``low``, ``high`` (its float values), ``clip_low``,
    ``clip_high`` (what its integers hold), ``clipped`` (share of values beyond) and ``histogram`` (``counts`` in equal
    bins from ``low`` to ``high``). A kernel has ``rounding``, the same of its weights, and ``channels``: ``low`` and
    ``high`` (one a channel), ``ratio`` (widest by narrowest) and ``dead`` (how many are all zero).
    """

    model: str
    target: str
    date: str
    versions: Mapping[str, str]
    samples: int
    asked: int
    seconds: float
    budget_seconds: float | None
    forms: Mapping[str, Score]
    blocks: tuple[BlockReport, ...]
    front: Front | None = None

    @property
    def labelled(self) -> bool:
        """Whether accuracies are known."""
        return self.forms["float"].accuracy is not None

    @property
    def not_measured(self) -> tuple[str, ...]:
        """Names of the blocks that the budget did not reach."""
        return tuple(block.name for block in self.blocks if block.alone_float is None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know besides the numbers."""
        notes = []
        if self.not_measured:
            missed = f"{len(self.not_measured)} of {len(self.blocks)} blocks"
            notes.append(
                f"Not measured within {self.budget_seconds:g} s: {missed} ({', '.join(self.not_measured)}). Give a "
                "larger budget, or fewer images."
            )
        if not self.labelled:
            notes.append("No accuracies: the data have no classes as labels, or the model gives no score for each.")
        return (*notes, *(self.front.notes if self.front else ()))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; numbers to six digits."""
        own = {name: getattr(self, name) for name in ("labelled", "not_measured", "notes")}
        front = None if self.front is None else self.front.to_dict()
        return _plain({"schema": SCHEMA, **asdict(self), **own, "front": front})


def worst_first(blocks: list[BlockReport]) -> tuple[BlockReport, ...]:
    """The blocks by the output error of each alone quantized; those not measured behind, by SQNR."""

    def key(block: BlockReport) -> tuple[bool, float]:
        if block.alone_quantized is not None:
            return False, -block.alone_quantized.output_error
        return True, float("inf") if block.sqnr_db is None else block.sqnr_db

    return tuple(sorted(blocks, key=key))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
