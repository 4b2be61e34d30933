"""Spelling: ops that are handed to tf2onnx in other words than Keras', since it makes less, or nothing, of Keras'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from tfqat.graph.graph import Graph, Op


def _nearest(graph: Graph, op: Op, images: Any, outputs: list[Any]) -> list[Any]:
    """UpSampling2D as one resize; the repeats that Keras computes it with become fifteen nodes."""
    config = op.source.config
    if config.get("data_format") == "channels_first" or None in images.shape[1:3]:
        return outputs
    factors = [config["size"]] * 2 if isinstance(config["size"], int) else config["size"]
    sizes = [int(size) * int(factor) for size, factor in zip(images.shape[1:3], factors, strict=True)]
    return [tf.raw_ops.ResizeNearestNeighbor(images=images, size=sizes)]


def _reshaped(graph: Graph, op: Op, value: Any, outputs: list[Any]) -> list[Any]:
    """A reshape to a constant shape; Keras computes the batch dimension, which becomes six nodes."""
    shape = graph.shapes[op.outputs[0]]
    if sum(size is None for size in shape) > 1:
        return outputs
    return [tf.reshape(value, [-1 if size is None else size for size in shape])]


def _grouped(graph: Graph, op: Op, images: Any, outputs: list[Any]) -> list[Any]:
    """A grouped convolution as TensorFlow's op; Keras hands it to XLA, of which there is no ONNX form."""
    layer = op.source.built
    if layer.groups == 1 or layer.data_format == "channels_first":
        return outputs
    padding, strides, dilations = layer.padding.upper(), list(layer.strides), list(layer.dilation_rate)
    found = tf.nn.convolution(images, _kernel_of(layer), strides=strides, padding=padding, dilations=dilations)
    return [_with_bias(layer, found)]


def _product(graph: Graph, op: Op, value: Any, outputs: list[Any]) -> list[Any]:
    """A Dense on more than two axes as one product; Keras' reshapes would part it from its bias and activation."""
    layer = op.source.built
    return outputs if value.shape.rank == 2 else [_with_bias(layer, tf.matmul(value, _kernel_of(layer)))]


def _kernel_of(layer: Any) -> Any:
    return tf.cast(tf.convert_to_tensor(layer.kernel), layer.compute_dtype)


def _with_bias(layer: Any, value: Any) -> Any:
    return value + tf.cast(tf.convert_to_tensor(layer.bias), value.dtype) if layer.use_bias else value


# Kinds that read better in ONNX when spelled otherwise than Keras does.
SPELLINGS = {
    "up_sampling2d": _nearest,
    "flatten": _reshaped,
    "reshape": _reshaped,
    "conv2d": _grouped,
    "dense": _product,
}


def _combined(inner: str, combine: str, reverse: bool, context: Any, node: Any, name: str, args: Sequence[Any]) -> None:
    """tf2onnx' handler of an op that it lacks: ``combine(inner(x), 1)``, or ``combine(1, inner(x))``."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    inputs, outputs = list(node.input), list(node.output)
    context.remove_node(node.name)
    first = context.make_node(inner, inputs, name=f"{name}/{inner.lower()}", shapes=shapes, dtypes=dtypes).output[0]
    one = context.make_const(f"{name}/one", np.ones((), np.float32)).output[0]
    terms = [one, first] if reverse else [first, one]
    context.make_node(combine, terms, name=name, outputs=outputs, shapes=shapes, dtypes=dtypes)


# TensorFlow op -> tf2onnx handler: Keras' exact GELU has Erfc(x) = 1 - Erf(x), its CELU Expm1(x) = Exp(x) - 1.
HANDLERS: dict[str, tuple[Callable[..., None], list[Any]]] = {
    "Erfc": (partial(_combined, "Erf", "Sub", True), []),
    "Expm1": (partial(_combined, "Exp", "Sub", False), []),
}
