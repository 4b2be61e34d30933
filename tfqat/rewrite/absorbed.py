"""AbsorbedReLU6: a ReLU6 left to the Quantizer right behind it, which clips all the same.

After ReLU6 all values lie in ``[0, amax]``, ``amax <= 6``, and a symmetric Scheme of b bits with scale
``amax / (2^(b-1) - 1)`` uses just the integers from 0 up: that is the (b-1)-bit fake quantization of ``[0, amax]``,
which clips by itself. One kernel each way instead of two, on most tensors of a model (measured: 5 % of a step).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras

from tfqat.graph.graph import Graph, Op, Source, replace_ops
from tfqat.rewrite.quantizer import Quantizer


@keras.saving.register_keras_serializable("tfqat")
class AbsorbedReLU6(keras.layers.ReLU):
    """keras.layers.ReLU(6) that passes its input on, because the Quantizer behind it (``absorbs_relu6``) clips.

    Its own output is not clipped: take the Quantizer's. ``finalize`` makes it a stock ReLU again.
    """

    def call(self, inputs: Any) -> Any:
        return inputs


def absorb(graph: Graph) -> Graph:
    """The graph with each ReLU6 absorbed by the Quantizer that alone reads it, where its range is its own.

    A tied range may exceed 6, so there the ReLU6 stays.
    """
    quantizers = {op.inputs[0]: op.name for op in graph.ops if op.source.cls is Quantizer and _can_absorb(op.source)}
    absorbed = {
        op.name: quantizers[op.outputs[0]]
        for op in graph.ops
        if op.kind == "relu6" and op.outputs[0] in quantizers and graph.sole_consumer(op.outputs[0]) is not None
    }
    absorbing = set(absorbed.values())

    def change(op: Op) -> Op:
        if op.name in absorbed:
            return replace(op, source=_relu6(op.source, AbsorbedReLU6, op.name), args=op.args[:1], kwargs={})
        if op.name in absorbing:
            return replace(op, source=replace(op.source, config={**op.source.config, "absorbs_relu6": True}))
        return op

    return replace_ops(graph, change)


def release(graph: Graph) -> Graph:
    """The graph with stock ReLU6 in place of the absorbed ones, and Quantizers that absorb none."""

    def change(op: Op) -> Op:
        if op.source.cls is AbsorbedReLU6:
            return replace(op, source=_relu6(op.source, keras.layers.ReLU, op.source.key))
        if op.source.config.get("absorbs_relu6"):
            return replace(op, source=replace(op.source, config={**op.source.config, "absorbs_relu6": False}))
        return op

    return replace_ops(graph, change)


def _can_absorb(source: Source) -> bool:
    config = source.config
    scheme = config["scheme"]
    # The one kernel for both has a bit less, and TensorFlow's wants at least two.
    return config["group"] is None and scheme.symmetric and scheme.signed and scheme.bits > 2


def _relu6(source: Source, cls: type, key: Any) -> Source:
    dtype = {name: source.config[name] for name in ("dtype",) if name in source.config}
    return Source(cls, {"max_value": 6.0, **dtype}, (), (key, cls.__name__), cls(max_value=6.0, **dtype))
