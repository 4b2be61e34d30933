"""Split: the finalized model parted into a float Keras model and the Encodings, which is what exporters take."""

from __future__ import annotations

from dataclasses import replace

import keras

from tfqat.core.encoding import Encoding, Encodings
from tfqat.graph.build import build
from tfqat.graph.graph import Graph, Op, bypass, replace_ops
from tfqat.rewrite.absorbed import release
from tfqat.rewrite.batch_norm import FreezableBatchNormalization
from tfqat.rewrite.finalize import finalize
from tfqat.rewrite.kernels import QUANTIZED_LAYERS, QuantizedKernel
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.quantizer import Quantizer, RangeEstimator
from tfqat.view.view import view

_STOCK = {cls: cls.__mro__[2] for cls in QUANTIZED_LAYERS.values()} | {
    FreezableBatchNormalization: keras.layers.BatchNormalization
}
_OWN_KEYS = ("weight_scheme", "finalized", "scale_by", "rate_multiplier", "fused_kernel")


def split(model: QuantizedModel) -> tuple[keras.Model, Encodings]:
    """The float model (stock layers, kernels ``s * q``) and the Encodings by names of its view's tensors.

    Range-sharing ops pass their input's Encoding on, with origin ``shared``; observed tensors have ``calibrated``.
    """
    final = finalize(model)
    graph = view(final)
    plan = final.placement
    learned = _learned(graph)
    weights = {
        op.name: op.source.built.kernel_encoding() for op in graph.ops if isinstance(op.source.built, QuantizedKernel)
    }
    plain = without_quantizers(graph)
    activations = _carried(plain, learned, plan.shared_ops)
    float_ops = {name: reason for name, reason in plan.float_ops.items() if name in {op.name for op in plain.ops}}
    return build(plain), Encodings(plan.target, activations, weights, float_ops)


def without_quantizers(graph: Graph) -> Graph:
    """The view of a prepared or finalized model with stock layers, the weights that it has, and no Quantizer."""
    ranges = [op.name for op in graph.ops if _is_range(op)]
    return bypass(replace_ops(release(graph), _stock), ranges)


def _is_range(op: Op) -> bool:
    return isinstance(op.source.built, RangeEstimator)


def _learned(graph: Graph) -> dict[str, Encoding]:
    """Tensor -> Encoding of the Quantizer or observer that reads it."""
    found = {}
    for op in graph.ops:
        if _is_range(op):
            origin = "learned" if isinstance(op.source.built, Quantizer) else "calibrated"
            found[op.inputs[0]] = op.source.built.encoding(origin)
    return found


def _carried(graph: Graph, learned: dict[str, Encoding], sharing: frozenset[str]) -> dict[str, Encoding]:
    """The learned Encodings and those that range-sharing ops pass on, in the order in which tensors are computed."""
    found = {tensor: learned[tensor] for tensor in graph.inputs if tensor in learned}
    for op in graph.ops:
        known = op.name in sharing and op.inputs[0] in found
        for tensor in op.outputs:
            if tensor in learned:
                found[tensor] = learned[tensor]
            elif known:
                found[tensor] = replace(found[op.inputs[0]], origin="shared")
    return found


def _stock(op: Op) -> Op:
    """The op with the stock Keras layer in place of a quantized one."""
    source = op.source
    if source.cls not in _STOCK:
        return op
    config = {key: value for key, value in source.config.items() if key not in _OWN_KEYS}
    # The stock layer's weights come first: kernel and bias, or BatchNorm's own without the flag that freezes them.
    count = 1 + config["use_bias"] if "use_bias" in config else len(source.values) - 1
    kept = replace(source, cls=_STOCK[source.cls], config=config, values=source.values[:count], built=None)
    return replace(op, source=kept)
