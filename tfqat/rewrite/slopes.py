"""Slope: of a PReLU, rounded to symmetric int8 with one scale, for devices that multiply by integers only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfqat.core.encoding import encoding_of_slopes
from tfqat.graph.graph import Graph, Op, replace_ops
from tfqat.rewrite.quantizer import Quantizer


def integer_slopes(graph: Graph) -> Graph:
    """The finalized graph with the slopes of each PReLU that runs in INT8 as ``scale * integer``.

    Source: TensorFlow Lite's int8 PRELU, whose slopes are a tensor of int8.
    """

    def change(op: Op) -> Op:
        quantized = any(reader.source.cls is Quantizer for reader in graph.consumers(op.outputs[0]))
        if op.kind != "prelu" or not quantized:
            return op
        slopes = _array(op.source.values[0])
        rounded = encoding_of_slopes(slopes).fake_quantize(slopes)
        return replace(op, source=replace(op.source, values=(rounded, *op.source.values[1:]), built=None))

    return replace_ops(graph, change)


def _array(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value) if isinstance(value, keras.Variable) else value, np.float32)
