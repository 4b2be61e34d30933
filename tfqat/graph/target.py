"""Target: what one accelerator wants; schemes, blocks, range-sharing ops, exporters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tfqat.core.scheme import Scheme
from tfqat.graph.block import Block
from tfqat.graph.kinds import KERNEL_AXES

Range = tuple[float, float]


@dataclass(frozen=True)
class Target:
    """What one accelerator wants of a quantized model.

    Its numbers:

    Attributes:
        activation: Scheme of every activation.
        weight: Scheme of every kernel; its axis is filled in per kind of op.
        per_tensor: kinds whose kernels have one scale. BatchNorm is folded into them before anything is quantized,
            since one scale for the whole kernel does not commute with folding.
        activation_of, weight_of: kind of op -> Scheme where it is another: of the kind's output, of its kernel.
        heads_decide: whether ``activation_of`` goes by the head of a block, whose operator applies the activation
            itself, rather than by the op that gives the tensor.
        activation_choices: name -> Scheme of every activation, where the user may choose.
        nonnegative: Scheme of activations that are known to have no negative values, None where it is no other.
        fixed_range: kind -> real range (low, high) of its output, where the device knows no other.
        integer_bias: whether a bias is int32 with scale ``s_input * s_kernel``; finalizing rounds it to that.
        integer_constants: whether what depends on no model input is stored as integers, with a range as data have; else
            it is a float among the numbers of the op that reads it.
        int8_weights: whether Q/DQ ONNX stores kernels as int8 where the user does not choose.

    What it runs:

    Attributes:
        weighted: kinds whose kernels and inputs are quantized.
        weights_only: kind -> bits of a kernel that it reads beside float activations, where a rule asks for that.
        own_range: kinds without weights that run on integers and give a tensor with a range of its own.
        shared_range: kinds that pass integers on: their output has the range of their input, their inputs share one.
        tied_range: kinds that compute new values on the grid of their input, and so are rounded to it again.
        composite: activations that the device may run as several elementwise kernels; what they read inside a
            block is observed, so that those kernels find a range.
        spelled_out: kinds that it runs as several ops, each with a range: ``silu`` is ``x * sigmoid(x)``.
        blocks: chains without a Q/DQ inside, tried together, the longest wins.
        residual_heads: heads of the blocks whose unquantized output one Add may take in.
        unquantized: kinds at the end of a block whose output is left as it is.
        requantized: kinds that quantize what they read, also where it was left as it is.
        float_inputs: whether a Rescaling, Normalization or cast at the start stays float.
        quantized_inputs: whether model inputs are quantized, also where no kind in ``requantized`` reads them.
        quantized_outputs: whether model outputs are quantized, None where the op that gives them decides.
        float_outputs: whether the last weighted op and what follows it stay float.
        complete: whether every tensor needs a scale at export, those inside blocks and the float tail included.
        causes: kind of op -> why this device has no INT8 form of it.

    Its files:

    Attributes:
        name: the name of its file in ``targets/``, or of the file that it was read from.
        exporters: formats that it can be written in (``exporters.registry``), the usual one first.
        source: the vendor's page behind all this.
        config: the document that it was read from, where it is no file in ``targets/``.
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
    weights_only: Mapping[str, frozenset[int]] = field(default_factory=dict)
    per_tensor: frozenset[str] = frozenset()
    activation_of: Mapping[str, Scheme] = field(default_factory=dict)
    weight_of: Mapping[str, Scheme] = field(default_factory=dict)
    heads_decide: bool = False
    activation_choices: Mapping[str, Scheme] = field(default_factory=dict)
    nonnegative: Scheme | None = None
    fixed_range: Mapping[str, Range] = field(default_factory=dict)
    integer_bias: bool = False
    integer_constants: bool = False
    int8_weights: bool = False
    tied_range: frozenset[str] = frozenset()
    composite: frozenset[str] = frozenset()
    spelled_out: frozenset[str] = frozenset()
    residual_heads: frozenset[str] = frozenset()
    unquantized: frozenset[str] = frozenset()
    requantized: frozenset[str] = frozenset()
    float_inputs: bool = True
    quantized_inputs: bool = True
    quantized_outputs: bool | None = None
    float_outputs: bool = True
    complete: bool = False
    causes: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None

    def weight_scheme(self, kind: str) -> Scheme:
        """The Scheme of the kernel of an op of this kind, its channel axes filled in."""
        axis = () if kind in self.per_tensor else KERNEL_AXES[kind]
        return replace(self.weight_of.get(kind, self.weight), axis=axis)

    def folds_first(self, kind: str) -> bool:
        """Whether BatchNorm is folded into an op of this kind before its kernel is quantized."""
        return kind in self.weighted and (kind in self.per_tensor or not self.weight_scheme(kind).symmetric)
