"""Part: a piece of a composite layer that the hardware sees as an op of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from tfqat.graph.graph import Op, Ref, Source
from tfqat.graph.kinds import activation_kind

Shape = tuple[int | None, ...]
PREVIOUS = -1
# Activations that look at more than one value: a reshape or a permute does not commute with them.
MIXING = frozenset("softmax log_softmax sparsemax glu".split())


@dataclass(frozen=True, eq=False)
class Part:
    """One piece: its op, and what it reads.

    ``reads`` has indices of the whole op's inputs; PREVIOUS stands for the piece before it, -2 for the one before that.
    ``shape`` is that of its output where it is not the whole op's.
    """

    op: Op
    reads: tuple[int, ...]
    shape: Shape | None = None


def all_of(op: Op) -> Part:
    """The op as its own only piece."""
    return Part(op, tuple(range(len(op.inputs))))


def kept_whole(op: Op, reason: str) -> list[Part]:
    """The op as it is, in float for that reason."""
    return [all_of(replace(op, reason=reason))]


def piece(whole: Op, name: str, kind: str, source: Source) -> Op:
    """An op of one input that is part of another; ``name`` is its own."""
    return replace(whole, name=name, layer_name=name, kind=kind, source=source, args=(Ref(0),), kwargs={})


def derived(whole: Op, cls: type, config: Mapping[str, Any], values: tuple[Any, ...], part: Any) -> Source:
    """A layer made out of the whole one's; ``part`` tells it from the others."""
    base = {key: whole.source.config[key] for key in ("trainable", "dtype") if key in whole.source.config}
    return Source(cls, base | dict(config), values, (whole.source.key, part))


def activation_of(whole: Op) -> list[Part]:
    """The fused activation of a layer as an op behind the piece before; none where it is linear."""
    kind = activation_kind(whole.source.config.get("activation"))
    if kind == "linear":
        return []
    config = {key: whole.source.config.get(key) for key in ("activation", "activity_regularizer")}
    source = derived(whole, keras.layers.Activation, config, (), kind)
    return [Part(piece(whole, f"{whole.layer_name}/{kind}", kind, source), (PREVIOUS,))]


def regularizer_of(whole: Op) -> dict[str, Any]:
    """The activity_regularizer of a layer without a fused activation, which would have it else."""
    given = whole.source.config.get("activity_regularizer")
    linear = activation_kind(whole.source.config.get("activation")) == "linear"
    return {"activity_regularizer": given} if given and linear else {}
