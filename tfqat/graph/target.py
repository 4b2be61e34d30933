"""Target: what one accelerator wants; schemes, blocks, range-sharing ops, exporters."""

from __future__ import annotations

from dataclasses import dataclass, field

from tfqat.core.scheme import Scheme
from tfqat.graph.block import Block


@dataclass(frozen=True)
class Target:
    """What one accelerator wants of a quantized model.

    Attributes:
        name: the name of its file in ``targets/``.
        activation: Scheme of every activation.
        weight: Scheme of every kernel; its axis is filled in per kind of op.
        weighted: kinds whose kernels and inputs are quantized.
        own_range: kinds without weights that run on integers and give a tensor with a range of its own.
        shared_range: kinds whose output has the range of their input, and whose inputs share one.
        composite: activations that the device may run as several elementwise kernels; what they read inside a
            block is observed, so that those kernels find a range.
        blocks: chains without a Q/DQ inside, tried together, the longest wins.
        residual_heads: heads of the blocks whose unquantized output one Add may take in.
        float_outputs: whether the last weighted op and what follows it stay float.
        exporters: formats that it writes, by name of the file in ``exporters/``.
        source: the vendor's page behind all this.
    """

    name: str
    activation: Scheme
    weight: Scheme
    weighted: frozenset[str]
    own_range: frozenset[str]
    shared_range: frozenset[str]
    blocks: tuple[Block, ...]
    exporters: tuple[str, ...]
    source: str
    composite: frozenset[str] = frozenset()
    residual_heads: frozenset[str] = frozenset()
    float_outputs: bool = True
    notes: tuple[str, ...] = field(default=())
