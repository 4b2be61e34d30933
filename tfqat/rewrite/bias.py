"""Bias: rounded to int32 with scale ``s_input * s_kernel``, for devices that add it to the integer accumulator."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfqat.core.encoding import usable
from tfqat.core.scheme import broadcast
from tfqat.graph.graph import Graph, Op, replace_ops
from tfqat.rewrite.kernels import QUANTIZED_LAYERS
from tfqat.rewrite.quantizer import Quantizer

_LARGEST = 2**31 - 1


def integer_biases(graph: Graph, sharing: Collection[str]) -> Graph:
    """The finalized graph with the bias of each INT8 layer as ``s_input * s_kernel * integer``.

    Where an integer would not fit int32 (a channel whose kernel is almost zero beside its bias), the channel's kernel
    gets a coarser scale; its weights are less than the bias' own rounding there.

    Args:
        graph: a finalized model's: kernels on their grids, Quantizers frozen.
        sharing: names of the ops whose output has the range of their input.

    Source: TensorFlow Lite 8-bit quantization specification, bias of CONV_2D and others.
    """

    def change(op: Op) -> Op:
        layer_is_int8 = op.source.cls in QUANTIZED_LAYERS.values() and op.source.config["use_bias"]
        scale = _input_scale(graph, op.inputs[0], sharing) if layer_is_int8 else None
        return op if scale is None else _rounded(op, scale)

    return replace_ops(graph, change)


def _input_scale(graph: Graph, tensor: str, sharing: Collection[str]) -> float | None:
    """The scale of the Quantizer behind ``tensor``; None where it is not quantized."""
    op = graph.producer(tensor)
    while op is not None and op.source.cls is not Quantizer and op.name in sharing:
        op = graph.producer(op.inputs[0])
    if op is None or op.source.cls is not Quantizer:
        return None
    layer = Quantizer.from_config({**op.source.config, "name": None})
    layer.build(())
    layer.extent.assign(_array(op.source.values[0]))
    return float(usable(layer.encoding()).scale)


def _rounded(op: Op, input_scale: float) -> Op:
    kernel, bias, scale, *rest = (_array(value) for value in op.source.values)
    fitting = np.abs(bias).astype(np.float64) / (input_scale * (_LARGEST // 2))
    coarser = np.maximum(scale, fitting if scale.ndim else fitting.max(initial=0)).astype(np.float32)
    if (coarser != scale).any():
        axis = op.source.config["weight_scheme"]["axis"]
        kernel = _moved(kernel, scale, coarser, tuple(axis))
    step = input_scale * coarser.astype(np.float64)
    values = (kernel, (np.rint(bias / step) * step).astype(np.float32), coarser, *rest)
    # Calls of one layer that read different grids have biases of their own.
    return replace(op, source=replace(op.source, values=values, key=(op.source.key, input_scale), built=None))


def _moved(kernel: np.ndarray, scale: np.ndarray, coarser: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    """The kernel on the coarser grid, where it is coarser."""
    old, new = (broadcast(s, kernel.ndim, kernel.shape, axis) for s in (scale, coarser))
    return np.where(old == new, kernel, np.rint(kernel / new) * new).astype(np.float32)


def _array(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value) if isinstance(value, keras.Variable) else value, np.float32)
