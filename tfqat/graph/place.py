"""Place: decides the Placement of a graph on a target; nothing is rewritten.

Each op is in one block, the longest that matches. The output of each INT8 block gets a Quantizer, and so does whatever
else an INT8 op reads; range-sharing ops take their input's range. Source: the target's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from tfqat.errors import TfqatError
from tfqat.graph.bits import activations_of_bits, check_bits, weights_of_bits
from tfqat.graph.block import Block, Match, match_blocks
from tfqat.graph.causes import CAUSES, CONSTANT
from tfqat.graph.constants import constants_in, inner_constants, with_constants
from tfqat.graph.graph import Graph, Op
from tfqat.graph.kinds import IDENTITY, OTHER_WEIGHTED, PREPROCESSING
from tfqat.graph.placement import Placement
from tfqat.graph.ranges import Ranges
from tfqat.graph.residual import fused_branches
from tfqat.graph.rows import Row, macs_of
from tfqat.graph.rules import WEIGHTS, Rule, check_all_match, decide
from tfqat.graph.tail import Tail, find_tail
from tfqat.graph.target import Target
from tfqat.graph.weights_only import check_weights_only


def place(graph: Graph, target: Target, rules: tuple[Rule, ...] = (), changes: tuple[str, ...] = ()) -> Placement:
    """The plan for a graph on a target; nothing is rewritten.

    Raises:
        TfqatError: a rule matches no op, or asks to quantize what the target cannot.
    """
    check_all_match(rules, graph)
    plan = _Placer(graph, target, rules).place(changes)
    _check_honoured(rules, plan)
    check_bits(rules, plan.weights, plan.activations)
    check_weights_only(rules, plan, target)
    return plan


class _Placer:
    """The decisions for one graph, in the order in which they depend on each other."""

    def __init__(self, graph: Graph, target: Target, rules: tuple[Rule, ...]) -> None:
        self.constants = constants_in(graph)
        self.graph = graph = graph if target.integer_constants else with_constants(graph)
        self.target, self.rules = target, rules
        self.tail = find_tail(graph) if target.float_outputs else Tail(frozenset(), frozenset())
        self.kept = self._reasons_for_float()
        self.weights_only = self._asked_weights_only()
        floats = inner_constants(graph) if target.integer_constants else self.constants
        self.ranges = Ranges(graph, target, self.kept, floats)
        branches = fused_branches(graph, target.residual_heads, self.kept, target.blocks)
        # What a device fuses to an op that a rule keeps in float is computed in float as well.
        heads = [name for name in self.kept if decide(rules, name, "quantize")]
        fuses = lambda block, a, b: _fuses(block, a, b, branches)  # noqa: E731
        self.matches = match_blocks(graph, target.blocks, fuses, self.kept, heads)
        self.members = {op.name: match for match in self.matches for op in match.ops}
        self.left = self._left_tensors()

    def place(self, changes: tuple[str, ...]) -> Placement:
        quantized = self._quantized_tensors()
        ranged = self.ranges.on_grid(quantized)
        groups = self.ranges.groups(quantized, ranged)
        fixed = {tensor: bounds for tensor in quantized if (bounds := self.ranges.fixed(tensor)) is not None}
        schemes = self.ranges.schemes(quantized, groups, {match.output: match.head for match in self.matches})
        kernels = {op.name: self.target.weight_scheme(op.kind) for op in self.graph.ops if self._has_int8_weights(op)}
        return Placement(
            target=self.target.name,
            rows=tuple(self._row(op, ranged) for op in self.graph.ops),
            weights=weights_of_bits(kernels, self.rules),
            activations=activations_of_bits(schemes, self.rules, self.matches, groups, fixed),
            groups=groups,
            observed=tuple(self._observed(quantized)),
            changes=changes,
            fixed=fixed,
            config=self.target.config,
        )

    def _reasons_for_float(self) -> dict[str, str]:
        """Op name -> why it stays float, for what is decided before blocks are matched."""
        reasons: dict[str, str] = {}
        for op in self._preprocessing() if self.target.float_inputs else ():
            reasons[op.name] = "before the first Quantizer"
        for op in self.graph.ops:
            if self._is_constant(op):
                reasons[op.name] = CONSTANT
            elif op.reason:
                reasons[op.name] = op.reason
            elif op.name in self.tail.ops:
                reasons[op.name] = "output layer: outputs stay float"
            asked = decide(self.rules, op.name, "quantize")
            if asked and not asked[0]:
                reasons[op.name] = f"rule {asked[1].match!r}"
        return reasons

    def _preprocessing(self) -> list[Op]:
        found = []
        for tensor in self.graph.inputs:
            op = self.graph.sole_consumer(tensor)
            while op is not None and len(op.outputs) == 1 and _prepares(op):
                found.append(op)
                op = self.graph.sole_consumer(op.outputs[0])
        return found

    def _asked_weights_only(self) -> dict[str, str]:
        """Op name -> the rule that asks to quantize its kernel alone."""
        asked = {
            op.name: decide(self.rules, op.name, "quantize") for op in self.graph.ops if self._has_int8_weights(op)
        }
        return {name: f"rule {found[1].match!r}" for name, found in asked.items() if found and found[0] == WEIGHTS}

    def _has_int8_weights(self, op: Op) -> bool:
        if op.kind not in self.target.weighted or self.kept.get(op.name) == CONSTANT:
            return False
        asked = decide(self.rules, op.name, "quantize")
        return op.name not in self.kept or bool(asked and asked[0])

    def _is_int8(self, match: Match) -> bool:
        head, target = match.head, self.target
        if head.name in self.kept or head.name in self.weights_only or not self.ranges.has_range(match.output):
            return False
        if not self.ranges.masks.isdisjoint(head.inputs):
            return False
        kinds = target.weighted | target.own_range | target.tied_range | target.fixed_range.keys()
        return head.kind in kinds or self.ranges.mixes(head)

    def _quantized_tensors(self) -> list[str]:
        """The tensors with a Quantizer, in order: outputs of INT8 blocks, and what INT8 ops read besides."""
        wanted = {match.output for match in self.matches if self._gives_int8(match)}
        if self.target.quantized_inputs and not self.target.float_inputs:
            wanted.update(self.graph.inputs)
        if self.target.quantized_outputs is not None:
            outputs = set(self.graph.outputs)
            wanted = wanted | outputs if self.target.quantized_outputs else wanted - outputs
        for op in reversed(self.graph.ops):
            match = self.members[op.name]
            if op is match.head or (op.kind == "add" and not (match.block and match.block.takes_floats)):
                wanted.update(self._needed_inputs(op, match, wanted))
        sources = {t for t in wanted if self.ranges.has_range(t) and not self._shared_output(t)}
        tensors = (*self.graph.inputs, *(tensor for op in self.graph.ops for tensor in op.outputs))
        return [tensor for tensor in tensors if tensor in sources]

    def _gives_int8(self, match: Match) -> bool:
        return self._is_int8(match) and not self.ranges.shares(match.head) and not self._is_left(match)

    def _is_left(self, match: Match) -> bool:
        """Whether the target leaves the block's output as it is."""
        ends = [op.kind for op in match.ops if op.kind not in IDENTITY | {"batch_normalization"}] or [match.head.kind]
        return ends[-1] in self.target.unquantized

    def _left_tensors(self) -> set[str]:
        """The tensors that are left as they are, and what ops that share ranges make of them."""
        left = set() if self.target.quantized_inputs else set(self.graph.inputs)
        for op in self.graph.ops:
            if not left.isdisjoint(op.inputs) if self.ranges.shares(op) else self._is_left(self.members[op.name]):
                left.update(op.outputs)
        return left

    def _needed_inputs(self, op: Op, match: Match, wanted: set[str]) -> list[str]:
        """What must be quantized for this op: nothing where it runs in float."""
        inner = {tensor for member in match.ops[:-1] for tensor in member.outputs}
        needs = self._is_int8(match) or self._reads_int8(op)
        passes = self.ranges.shares(op) and not wanted.isdisjoint(op.outputs)
        if not (needs or passes):
            return []
        anyway = passes or op.kind in self.target.requantized
        asked = [tensor for tensor in op.inputs if tensor not in inner and (anyway or tensor not in self.left)]
        in_float = not self._is_int8(match) and not passes
        return [tensor for tensor in asked if not (in_float and self._comes_from_float(tensor))]

    def _comes_from_float(self, tensor: str) -> bool:
        """Whether a float op computes the tensor: between two of them there is nothing to round for."""
        op = self.graph.producer(tensor)
        while op is not None and self.ranges.shares(op):
            op = self.graph.producer(op.inputs[0])
        return op is not None and op.kind not in PREPROCESSING and not self._is_int8(self.members[op.name])

    def _reads_int8(self, op: Op) -> bool:
        """A float output layer still reads INT8: its weights are what costs accuracy."""
        weighted_tail = op.name in self.tail.ops and op.kind in self.target.weighted | {"matmul"}
        asked = decide(self.rules, op.name, "quantize")
        return weighted_tail and not (asked and asked[0] is not True)

    def _shared_output(self, tensor: str) -> bool:
        op = self.graph.producer(tensor)
        return op is not None and self.ranges.shares(op)

    def _observed(self, quantized: list[str]) -> list[str]:
        known = set(quantized)
        found = []
        for match in self.matches:
            if not self._is_int8(match):
                continue
            scores = match.block is not None and match.block.takes_floats
            for before, op in pairwise(match.ops):
                tensor = before.outputs[0] if scores else op.inputs[0]
                watched = self.ranges.has_range(tensor) if scores else op.kind in self.target.composite
                if watched and tensor not in known:
                    found.append(tensor)
        return found

    def _row(self, op: Op, ranged: set[str]) -> Row:
        state, reason = self._verdict(op, ranged)
        macs = 0 if self._is_constant(op) else macs_of(self.graph, op)
        return Row(op.name, op.kind, state, reason, macs, op.name in self.tail.ops)

    def _verdict(self, op: Op, ranged: set[str]) -> tuple[str, str]:
        match = self.members[op.name]
        if op.name in self.weights_only:
            return "float", f"{self.weights_only[op.name]}: its kernel alone"
        if self._has_int8_weights(op):
            return "int8", _block_text(match)
        if op.name in self.kept:
            return "float", self.kept[op.name]
        if op is not match.head:
            return ("int8" if self._is_int8(match) else "float"), f"fused into {match.head.name}"
        if self.ranges.shares(op):
            on_grid = ranged.issuperset(op.inputs)
            return ("shared", "range of its input") if on_grid else ("float", "its input stays float")
        if self._is_int8(match):
            return "int8", "rounded to the range of its input" if self.ranges.is_tied(op) else _block_text(match)
        return "float", self._why_float(op)

    def _is_constant(self, op: Op) -> bool:
        return self.constants.issuperset(op.outputs)

    def _why_float(self, op: Op) -> str:
        if self._is_constant(op):
            return CONSTANT
        if op.kind == "batch_normalization":
            return "no weighted op to fold into: stays a float multiply-add"
        if not self.ranges.masks.isdisjoint((*op.inputs, *op.outputs)):
            return "a mask of large numbers: never quantized"
        if not self.ranges.has_range(op.outputs[0]):
            return "computes integers or booleans, nothing to quantize"
        weighted = " (weighted)" if op.kind in OTHER_WEIGHTED else ""
        cause = self.target.causes.get(op.kind) or CAUSES.get(op.kind)
        return f"{self.target.name} has no INT8 form of {op.kind}{weighted}" + (f": {cause}" if cause else "")


def _check_honoured(rules: tuple[Rule, ...], plan: Placement) -> None:
    for rule in rules:
        if not rule.quantize:
            continue
        rows = [row for row in plan.rows if rule.covers(row.op) and decide(rules, row.op, "quantize") == (True, rule)]
        if rows and all(row.state == "float" for row in rows):
            reasons = "; ".join(f"{row.op} ({row.kind}): {row.reason}" for row in rows[:5])
            raise TfqatError(f"Rule {rule.match!r} asks to quantize what must stay float. {reasons}. Remove the rule.")


def _block_text(match: Match) -> str:
    fused = [op.kind for op in match.ops[1:] if op.kind not in IDENTITY]
    return f"fused with {', '.join(fused)}" if fused else "own range"


def _prepares(op: Op) -> bool:
    return op.kind in PREPROCESSING or op.kind.endswith("_constant") or op.kind in IDENTITY


def _fuses(block: Block, before: Op, op: Op, branches: Mapping[str, str]) -> bool:
    if op.kind == "add" and not block.takes_floats:
        return branches.get(op.name) == before.outputs[0]
    return True
