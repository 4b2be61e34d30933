"""Candidate: INT8 blocks that may go to float together, with what their rounding costs the model.

A kernel's rounding ends with its own block; a tensor's only where all blocks around it, which give and read it, are
float. So each block is a candidate, and so are those around each tensor. What a candidate costs is measured on the
float form with that rounding alone which the placement with its rules has not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfqat.analysis.blocks import Block, is_quantizer
from tfqat.analysis.forms import Forms
from tfqat.analysis.int8_blocks import Int8Block, Int8Blocks, rules_for
from tfqat.analysis.samples import Samples
from tfqat.analysis.sensitivity import sensitivity_of
from tfqat.errors import TfqatError
from tfqat.graph.placement import Placement

# What a block without multiply-accumulates costs, as a share of all: each change of precision takes time on a device.
CHANGE = 0.01

Plan = Callable[[list[dict[str, Any]]], Placement]


@dataclass(frozen=True)
class Candidate:
    """``gain``: square of the output error by its rounding alone; ``cost``: share of multiply-accumulates.

    Errors of many blocks add up by their squares, roughly; and what one costs beside all others says nothing where
    these have spoilt the output already.
    """

    blocks: tuple[Int8Block, ...]
    gain: float
    cost: float
    reason: str


def candidates_of(
    forms: Forms, known: Int8Blocks, plan: Plan, samples: Samples, rows: int, deadline: float | None
) -> tuple[list[Candidate], int]:
    """The candidates that gain something, by gain for cost, and how many were not reached in time.

    Args:
        forms: the model, all on integers.
        known: its INT8 blocks.
        plan: the placement with some rules more.
        samples: on which.
        rows: how many at a time.
        deadline: a time of ``time.monotonic``.
    """
    sets = _sets(known)
    before = plan([])
    switched = {name: off for name, blocks in sets.items() if (off := _off(forms, before, _after(plan, blocks)))}
    blocks = [Block(name, "candidate", None, off) for name, off in switched.items()]
    found = sensitivity_of(forms, blocks, samples, rows, deadline)
    total = sum(block.macs for block in known.blocks) or 1
    measured = []
    for name, (alone, _) in found.alone.items():
        cost = sum(block.macs for block in sets[name]) / total + CHANGE * len(sets[name])
        whose = "its rounding" if len(sets[name]) == 1 else "their rounding"
        reason = f"{whose} alone changes the output by {alone.output_error:.2%}"
        measured.append(Candidate(sets[name], alone.output_error**2, cost, reason))
    useful = sorted((c for c in measured if c.gain > 0), key=lambda c: -c.gain / c.cost)
    return useful, len(switched) - len(found.alone)


def low_bit_order(
    forms: Forms, kernels: Sequence[str], samples: Samples, rows: int, deadline: float | None
) -> dict[str, float]:
    """The kernels of a model whose kernels have few bits, with the output error of each alone, least first."""
    blocks = [Block(name, "candidate", name, ()) for name in kernels]
    alone = sensitivity_of(forms, blocks, samples, rows, deadline).alone
    errors = {name: quantized.output_error for name, (quantized, _) in alone.items()}
    return dict(sorted(errors.items(), key=lambda item: item[1]))


def _sets(known: Int8Blocks) -> dict[str, tuple[Int8Block, ...]]:
    """Name -> blocks that go to float together; each set once."""
    found: dict[tuple[Int8Block, ...], str] = {(block,): block.name for block in known.blocks if not block.output}
    for tensor, blocks in known.around.items():
        if blocks and blocks not in found and not all(block.output for block in blocks):
            found[blocks] = f"around {tensor}"
    return {name: blocks for blocks, name in found.items()}


def _after(plan: Plan, blocks: tuple[Int8Block, ...]) -> Placement | None:
    """The placement with the blocks in float; None where a rule of the user's does not allow it."""
    try:
        return plan(rules_for(blocks))
    except TfqatError:
        return None


def _off(forms: Forms, before: Placement, after: Placement | None) -> tuple[str, ...]:
    """The ops that round no longer; none where no kernel is left that rounds."""
    if after is None or not after.weights:
        return ()
    quantizers = {op.inputs[0]: op.name for op in forms.graph.ops if is_quantizer(op)}
    kernels = [name for name in before.weights if name not in after.weights and name in forms.kernels]
    tensors = [quantizers[t] for t in before.activations if t not in after.activations and t in quantizers]
    return (*kernels, *tensors)


def reasons_of(candidates: Sequence[Candidate], floats: Collection[Int8Block]) -> Mapping[str, str]:
    """Block in float -> why: its own rounding, or that of a tensor around it where most of the loss is there."""
    gains = {c.blocks[0]: c.gain for c in candidates if len(c.blocks) == 1}
    own: Callable[[Int8Block], float] = lambda block: gains.get(block, 0.0)  # noqa: E731
    found: dict[str, str] = {}
    for block in floats:
        around = [c for c in candidates if block in c.blocks and all(other in floats for other in c.blocks)]
        # What a tensor's own rounding adds to that of the blocks around it.
        worst = max(around, key=lambda c: c.gain if len(c.blocks) == 1 else c.gain - 2 * sum(own(b) for b in c.blocks))
        others = [other.name for other in worst.blocks if other is not block]
        found[block.name] = worst.reason + (f" (together with {', '.join(others)})" if others else "")
    return found
