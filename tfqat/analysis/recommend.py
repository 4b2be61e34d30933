"""Recommend: the rules of mixed precision by which a model loses no more accuracy than allowed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfqat.analysis.candidates import Candidate, Plan, candidates_of, low_bit_order, reasons_of
from tfqat.analysis.forms import Forms, as_arrays, as_tensors, forms_of
from tfqat.analysis.front import Front, Point
from tfqat.analysis.int8_blocks import Int8Block, Int8Blocks, int8_blocks_of, low_bit_rules, rules_for
from tfqat.analysis.samples import Samples, batch_size_of, read_samples
from tfqat.analysis.score import is_scores
from tfqat.analysis.search import Floats, Search
from tfqat.analysis.sensitivity import rows_for
from tfqat.analysis.statistics import ROWS, statistics_of
from tfqat.errors import TfqatError
from tfqat.graph.build import build
from tfqat.graph.graph import Graph
from tfqat.graph.placement import Placement
from tfqat.graph.run import run
from tfqat.rewrite.model import QuantizedModel
from tfqat.view.view import view

Rules = list[dict[str, Any]]


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        max_drop: points of accuracy that may be lost against the float model.
        low_bits: 2 to 7: kernels may have so few bits; None leaves them.
        integers_only: the format that no block may stay float in; None where all can hold float blocks.
    """

    max_drop: float = 0.5
    low_bits: int | None = None
    integers_only: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise TfqatError(f"max_drop: expected points of accuracy from 0, received {self.max_drop!r}.")
        if self.low_bits is not None and self.low_bits not in range(2, 8):
            raise TfqatError(f"low_bits: expected a whole number from 2 to 7, or none, received {self.low_bits!r}.")


@dataclass(frozen=True, eq=False)
class Subject:
    """The model that is looked at.

    Attributes:
        model: the float model.
        graph: it as its target runs it.
        plan: its placement with some rules before those that are there.
        quantize: it quantized without training, with some rules before those that are there.
    """

    model: keras.Model
    graph: Graph
    plan: Plan
    quantize: Callable[[Rules], QuantizedModel]


def front_of(subject: Subject, dataset: Any, wish: Wish, images: int, budget: float | None) -> Front:
    """Measures models of mixed precision, each as it would be exported, and chooses one.

    Raises:
        TfqatError: data without labels, or a model that gives no score for each class.
    """
    return _Recommender(subject, dataset, wish, images, budget).front()


class _Recommender:
    def __init__(self, subject: Subject, dataset: Any, wish: Wish, images: int, budget: float | None) -> None:
        self.subject, self.wish = subject, wish
        self.deadline = None if budget is None else time.monotonic() + budget
        self.base = subject.quantize([])
        self.forms = forms_of(self.base)
        self.samples = read_samples(self.forms.graph, dataset, images)
        self.fixed = batch_size_of(self.forms.graph)
        self.float_accuracy = self._accuracy(view(build(view(subject.model))))
        self.before = subject.plan([])
        self.known: Int8Blocks = int8_blocks_of(subject.graph, self.before)
        self.search = Search(self._measure, wish.max_drop, self.deadline, self.before.weights)
        self.candidates: list[Candidate] = []
        self.errors: dict[str, float] = {}
        self.notes: list[str] = []

    def front(self) -> Front:
        """What was found."""
        if not self.search.all_on_integers():
            self._to_float()
        if self.wish.low_bits is not None and self.search.chosen is not None:
            self._to_low(self.wish.low_bits)
        if self.search.out_of_time:
            self.notes.append("The time was over before the search was; give a larger budget, or fewer images.")
        rules, reasons = self._rules()
        return Front(
            self.wish.max_drop,
            self.float_accuracy,
            len(self.samples),
            self.wish.low_bits,
            self.search.points,
            self.search.chosen,
            tuple(rules),
            tuple(reasons),
            tuple(self.notes),
        )

    def _to_float(self) -> None:
        if self.wish.integers_only is not None:
            self.notes.append(
                f"The format {self.wish.integers_only} holds integers only, so no block can stay in float there. Train "
                "(`tfqat train`), or export in another format."
            )
            return
        half = None if self.deadline is None else (time.monotonic() + self.deadline) / 2
        found = candidates_of(self.forms, self.known, self.subject.plan, self.samples, self._rows(self.forms), half)
        self.candidates, missed = found
        if missed:
            self.notes.append(f"{missed} sets of blocks were not looked at in the time that there was.")
        self.search.to_float(self.candidates)

    def _to_low(self, bits: int) -> None:
        floats = self.search.floats
        kernels = [
            name
            for block in self.known.blocks
            if block not in floats
            for name in block.kernels
            if self.before.weights[name].bits > bits
        ]
        if not kernels:
            return
        low = forms_of(self.subject.quantize([*self._float_rules(floats), *low_bit_rules(kernels, bits)]))
        half = None if self.deadline is None else (time.monotonic() + self.deadline) / 2
        self.errors = low_bit_order(low, kernels, self.samples, self._rows(low), half)
        self.search.to_low(list(self.errors))

    def _measure(self, floats: Floats, low: tuple[str, ...]) -> Point:
        rules = self._float_rules(floats)
        if low and self.wish.low_bits is not None:
            rules += low_bit_rules(low, self.wish.low_bits)
        model = self.subject.quantize(rules) if rules else self.base
        forms = forms_of(model)
        accuracy = self._accuracy(forms.form(forms.switches))
        return Point(
            floats=tuple(block.name for block in self._ordered(floats)),
            low=tuple(low),
            accuracy=accuracy,
            drop=round(100 * (self.float_accuracy - accuracy), 9) + 0.0,
            int8_share=model.placement.int8_mac_share,
            low_share=_low_share(model.placement, low),
        )

    def _accuracy(self, graph: Graph) -> float:
        right = 0
        for part in self.samples.parts(self.fixed or ROWS):
            found = run(graph, as_tensors(part.inputs), keep=graph.outputs)
            outputs = as_arrays(found[name] for name in graph.outputs)
            if part.labels is None or not is_scores(outputs):
                raise TfqatError(
                    "No accuracy can be measured: expected integer labels with the data, and a model with one output "
                    "that has a score for each class."
                )
            right += int(np.count_nonzero(outputs[0].argmax(-1) == part.labels))
        return right / len(self.samples)

    def _rows(self, forms: Forms) -> int:
        few = Samples({name: array[:1] for name, array in self.samples.inputs.items()}, None)
        known = statistics_of(forms, self.samples if self.fixed else few, self.fixed or 1)
        return self.fixed or rows_for(len(self.samples), known.bytes_each)

    def _ordered(self, floats: Floats) -> list[Int8Block]:
        return [block for block in self.known.blocks if block in floats]

    def _float_rules(self, floats: Floats) -> Rules:
        return rules_for(self._ordered(floats))

    def _rules(self) -> tuple[Rules, list[str]]:
        """Those of the chosen point, and the reason of each."""
        if self.search.chosen is None:
            return [], []
        point, why = self.search.points[self.search.chosen], reasons_of(self.candidates, self.search.floats)
        rules, reasons = [], []
        for block in self._ordered(self.search.floats):
            more = rules_for([block])
            rules += more
            reasons += [f"{block.name} in float: {why[block.name]}", *[f"of {block.name}"] * (len(more) - 1)]
        if point.low and self.wish.low_bits is not None:
            rules += low_bit_rules(point.low, self.wish.low_bits)
            reasons += [
                f"{name} with {self.wish.low_bits} bits: alone it changes the output by {self.errors[name]:.2%}"
                for name in point.low
            ]
        return rules, reasons


def _low_share(placement: Placement, low: Sequence[str]) -> float:
    rows = [row for row in placement.rows if not row.output]
    total = sum(row.macs for row in rows)
    return sum(row.macs for row in rows if row.op in low) / total if total else 0.0
