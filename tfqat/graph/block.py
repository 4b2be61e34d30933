"""Block: a chain of ops that the hardware runs as one kernel, so that no Q/DQ stands inside it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from tfqat.graph.graph import Graph, Op
from tfqat.graph.kinds import IDENTITY


@dataclass(frozen=True)
class Step:
    """One place of a chain: the kinds that fit, and whether it may be left out."""

    kinds: frozenset[str]
    optional: bool = False


@dataclass(frozen=True)
class Block:
    """A chain that fuses: its name, its steps from first to last, and the vendor's page that says so.

    ``takes_floats`` says that what its ops read besides each other stays as it is (a mask, a bias on scores).
    """

    name: str
    steps: tuple[Step, ...]
    source: str
    takes_floats: bool = False


@dataclass(frozen=True, eq=False)
class Match:
    """A block found in a graph: its ops in order, the first of which is the head."""

    block: Block | None
    ops: tuple[Op, ...]

    @property
    def head(self) -> Op:
        return self.ops[0]

    @property
    def output(self) -> str:
        """The tensor that leaves the block."""
        return self.ops[-1].outputs[0]


def chain(name: str, source: str, *steps: Collection[str] | Step, takes_floats: bool = False) -> Block:
    """A Block whose first step is required; the others are optional, but for those given as a Step."""
    made = [step if isinstance(step, Step) else Step(frozenset(step), index > 0) for index, step in enumerate(steps)]
    return Block(name, tuple(made), source, takes_floats)


def match_blocks(
    graph: Graph,
    blocks: tuple[Block, ...],
    fusable: Callable[[Block, Op, Op], bool],
    skip: Collection[str],
    heads: Collection[str] = (),
) -> list[Match]:
    """Each op in exactly one match: the longest block that starts at it, or itself alone.

    An op joins a block only as the sole reader of the op before it, if ``fusable(block, op before, op)`` allows it and
    it is not named in ``skip``. What ``skip`` names is alone, unless ``heads`` names it, too: it may begin a block.
    """
    taken: set[str] = set()
    matches = []
    for op in graph.ops:
        if op.name in taken:
            continue
        begins = op.name not in skip or op.name in heads
        found = [_follow(graph, block, op, fusable, skip) for block in blocks] if begins else []
        longest = max(found, key=lambda match: len(match.ops), default=Match(None, (op,)))
        match = longest if longest.ops else Match(None, (op,))
        taken.update(member.name for member in match.ops)
        matches.append(match)
    return matches


def _follow(
    graph: Graph, block: Block, head: Op, fusable: Callable[[Block, Op, Op], bool], skip: Collection[str]
) -> Match:
    if head.kind not in block.steps[0].kinds:
        return Match(block, ())
    ops = [head]
    for step in block.steps[1:]:
        following, between = _next(graph, ops[-1], skip)
        before = between[-1] if between else ops[-1]
        if following is not None and following.kind in step.kinds and fusable(block, before, following):
            ops += [*between, following]
        elif not step.optional:
            return Match(block, ())
    return Match(block, tuple(ops))


def _next(graph: Graph, op: Op, skip: Collection[str]) -> tuple[Op | None, list[Op]]:
    """The sole reader of an op, looking through identities, and the identities looked through."""
    between: list[Op] = []
    while True:
        following = graph.sole_consumer(op.outputs[0]) if len(op.outputs) == 1 else None
        if following is None or following.name in skip:
            return None, []
        if following.kind not in IDENTITY:
            return following, between
        between.append(following)
        op = following
