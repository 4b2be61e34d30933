"""Sensitivity: the Score of a model's forms: whole ones, and those in which one block is alone on integers or in float.

The tensors of the float and of the quantized form are kept for as many samples as MEMORY holds; a form with one block
switched computes what lies behind that block and nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tfqat.analysis.blocks import Block
from tfqat.analysis.forms import Forms, Rerun, as_arrays, as_tensors, rerun
from tfqat.analysis.samples import Samples
from tfqat.analysis.score import Score, Tally
from tfqat.graph.graph import Graph
from tfqat.graph.run import run

# Bytes that the tensors of both forms may take together.
MEMORY = 2**30


@dataclass(frozen=True)
class Sensitivity:
    """The Score of each whole form by name, and of each block that was measured: alone quantized, alone float."""

    forms: Mapping[str, Score]
    alone: Mapping[str, tuple[Score, Score]]


def sensitivity_of(
    forms: Forms, blocks: Sequence[Block], samples: Samples, rows: int, deadline: float | None
) -> Sensitivity:
    """Measures the blocks in the given order.

    Args:
        forms: the model.
        blocks: the order in which they are done.
        samples: on which.
        rows: how many at a time.
        deadline: a time of ``time.monotonic`` after which no other block is begun; None for none. Each part of the
            samples gets its share of the time, and a block counts where all parts reached it.
    """
    begun, parts = time.monotonic(), math.ceil(len(samples) / rows)
    measured = _Measured(forms, blocks)
    for number, part in enumerate(samples.parts(rows), start=1):
        measured.add(part, math.inf if deadline is None else begun + (deadline - begun) * number / parts)
    return measured.sensitivity()


def rows_for(samples: int, bytes_each: float) -> int:
    """How many samples at a time: what MEMORY holds, in parts of like size."""
    fit = max(1, int(MEMORY / max(2 * bytes_each, 1)))
    return math.ceil(samples / math.ceil(samples / fit))


class _Measured:
    """The forms of a model, and what each has scored so far.

    Attributes:
        reached: how many blocks all parts of the samples have got to.
    """

    def __init__(self, forms: Forms, blocks: Sequence[Block]) -> None:
        self.blocks, self.reached = blocks, len(blocks)
        self.floats, self.quantized = forms.form(()), forms.form(forms.switches)
        self.whole = {
            "float": rerun(self.floats, self.floats),
            "quantized": rerun(self.quantized, self.floats),
            "weights_only": rerun(forms.form(forms.kernels), self.floats),
            "activations_only": rerun(forms.form(forms.switches - forms.kernels), self.floats),
        }
        self.alone = [rerun(forms.form(block.ops), self.floats) for block in blocks]
        self.without = [rerun(forms.form(forms.switches - block.ops), self.quantized) for block in blocks]
        self.tallies = {name: Tally() for name in self.whole}
        self.tallies_alone = [(Tally(), Tally()) for _ in blocks]

    def add(self, part: Samples, end: float) -> None:
        """Measures some samples; no other block is begun after the time ``end``."""
        values = as_tensors(part.inputs)
        known = run(self.floats, values, keep=_kept(self.floats, [*self.whole.values(), *self.alone]))
        rounded = run(self.quantized, values, keep=_kept(self.quantized, self.without))
        reference = as_arrays(known[name] for name in self.floats.outputs)
        for name, form in self.whole.items():
            self.tallies[name].add(form.outputs(known), reference, part.labels)
        for number in range(self.reached):
            if time.monotonic() > end:
                self.reached = number
                break
            alone, without = self.tallies_alone[number]
            alone.add(self.alone[number].outputs(known), reference, part.labels)
            without.add(self.without[number].outputs(rounded), reference, part.labels)

    def sensitivity(self) -> Sensitivity:
        """What was measured."""
        done = zip(self.blocks[: self.reached], self.tallies_alone, strict=False)
        alone = {block.name: (quantized.score(), floating.score()) for block, (quantized, floating) in done}
        return Sensitivity({name: tally.score() for name, tally in self.tallies.items()}, alone)


def _kept(form: Graph, readers: Sequence[Rerun]) -> frozenset[str]:
    return frozenset(form.outputs).union(*(reader.reads for reader in readers))
