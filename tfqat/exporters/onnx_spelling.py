"""Spelling: ops that are handed to tf2onnx in other words than Keras', since it makes less, or nothing, of Keras'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from onnx import TensorProto

from tfqat.graph.graph import Graph, Op, replace_ops
from tfqat.graph.kinds import KERNEL_AXES


def _nearest(graph: Graph, op: Op, images: Any, outputs: list[Any]) -> list[Any]:
    """UpSampling2D as one resize; the repeats that Keras computes it with become fifteen nodes."""
    config = op.source.config
    if config.get("data_format") == "channels_first" or None in images.shape[1:3]:
        return outputs
    factors = [config["size"]] * 2 if isinstance(config["size"], int) else config["size"]
    sizes = [int(size) * int(factor) for size, factor in zip(images.shape[1:3], factors, strict=True)]
    return [tf.raw_ops.ResizeNearestNeighbor(images=images, size=sizes)]


def runs_unsized(graph: Graph) -> Graph:
    """The graph with what Keras cannot run in a TensorFlow graph on images of unknown sizes in TensorFlow's words."""

    def changed(op: Op) -> Op:
        if op.kind != "up_sampling2d_smooth" or None not in graph.shapes[op.inputs[0]][1:]:
            return op
        return replace(op, source=replace(op.source, built=partial(_smooth, op.source.built)))

    return replace_ops(graph, changed)


def _smooth(layer: Any, images: Any) -> Any:
    """UpSampling2D between pixels; Keras' asks in Python whether the sizes are positive."""
    first = layer.data_format == "channels_first"
    images = tf.transpose(images, (0, 2, 3, 1)) if first else images
    found = tf.image.resize(images, tf.shape(images)[1:3] * layer.size, layer.interpolation)
    return tf.transpose(found, (0, 3, 1, 2)) if first else found


def _reshaped(graph: Graph, op: Op, value: Any, outputs: list[Any]) -> list[Any]:
    """A reshape to a constant shape; Keras computes the batch dimension, which becomes six nodes."""
    shape = graph.shapes[op.outputs[0]]
    if sum(size is None for size in shape) > 1:
        return outputs
    return [tf.reshape(value, [-1 if size is None else size for size in shape])]


def _convolution(graph: Graph, op: Op, values: Any, outputs: list[Any]) -> list[Any]:
    """A convolution that Keras hands to XLA, or to what tf2onnx does not understand, by ops that it does.

    Those with groups, with channels first, and transposed ones along one axis, which are run on images of height 1.
    """
    layer = op.source.built
    first, axes = layer.data_format == "channels_first", list(range(1, values.shape.rank - 1))
    narrow = op.kind == "conv1d_transpose"
    if not first and not narrow and getattr(layer, "groups", 1) == 1:
        return outputs
    values = tf.transpose(values, [0, *(axis + 1 for axis in axes), 1]) if first else values
    found = _transposed(layer, values) if narrow else _convolved(layer, op.kind, values)
    # Where the last axis is as long as there are channels, Keras adds the bias along it, also with channels first.
    misled = first and layer.use_bias and graph.shapes[op.outputs[0]][-1] == layer.bias.shape[0]
    found = found if misled else _with_bias(layer, found)
    found = tf.transpose(found, [0, len(axes) + 1, *axes]) if first else found
    return [_with_bias(layer, found) if misled else found]


def _convolved(layer: Any, kind: str, values: Any) -> Any:
    strides, dilations, kernel = tuple(layer.strides), tuple(layer.dilation_rate), _kernel_of(layer)
    if kind.startswith("depthwise"):
        return keras.ops.depthwise_conv(values, kernel, strides, layer.padding, "channels_last", dilations)
    if kind.endswith("transpose"):
        given = (layer.padding, layer.output_padding, "channels_last", dilations)
        return keras.ops.conv_transpose(values, kernel, strides, *given)
    padding = layer.padding.upper()
    if padding == "CAUSAL":
        values, padding = tf.pad(values, [(0, 0), (dilations[0] * (layer.kernel_size[0] - 1), 0), (0, 0)]), "VALID"
    return tf.nn.convolution(values, kernel, strides=strides, padding=padding, dilations=dilations)


def _transposed(layer: Any, values: Any) -> Any:
    pad = layer.output_padding
    found = keras.ops.conv_transpose(
        tf.expand_dims(values, 1),
        tf.expand_dims(_kernel_of(layer), 0),
        (1, *layer.strides),
        layer.padding,
        None if pad is None else (0, *([pad] if isinstance(pad, int) else pad)),
        "channels_last",
        (1, *layer.dilation_rate),
    )
    return tf.squeeze(found, 1)


def _extreme(find: Callable[..., Any], graph: Graph, op: Op, values: Any, outputs: list[Any]) -> list[Any]:
    """The place of the largest or smallest value; Keras tells -0.0 from 0.0 by their bits, which ONNX cannot."""
    axis = op.source.built.axis
    if axis is None:
        return outputs
    found = find(values, axis, output_type=tf.int32)
    return [tf.expand_dims(found, axis) if op.source.built.keepdims else found]


def _looked_up(graph: Graph, op: Op, numbers: Any, outputs: list[Any]) -> list[Any]:
    """Rows of a table; Keras counts negative numbers from its end, which becomes ten nodes, and which no token is."""
    numbers = numbers if numbers.dtype.is_integer else tf.cast(numbers, "int32")  # as Keras takes tokens in float
    return [tf.gather(tf.cast(tf.convert_to_tensor(op.source.built.embeddings), outputs[0].dtype), numbers)]


def _product(graph: Graph, op: Op, value: Any, outputs: list[Any]) -> list[Any]:
    """A Dense on more than two axes as one product; Keras' reshapes would part it from its bias and activation."""
    layer = op.source.built
    return outputs if value.shape.rank == 2 else [_with_bias(layer, tf.matmul(value, _kernel_of(layer)))]


def _kernel_of(layer: Any) -> Any:
    return tf.cast(tf.convert_to_tensor(layer.kernel), layer.compute_dtype)


def _with_bias(layer: Any, value: Any) -> Any:
    return value + tf.cast(tf.convert_to_tensor(layer.bias), value.dtype) if layer.use_bias else value


# Kinds that read better in ONNX when spelled otherwise than Keras does.
SPELLINGS: dict[str, Callable[..., list[Any]]] = {
    "up_sampling2d": _nearest,
    "flatten": _reshaped,
    "reshape": _reshaped,
    **dict.fromkeys(set(KERNEL_AXES) - {"dense"}, _convolution),
    "dense": _product,
    "embedding": _looked_up,
    "argmax": partial(_extreme, tf.argmax),
    "argmin": partial(_extreme, tf.argmin),
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


def _log1p(context: Any, node: Any, name: str, args: Sequence[Any]) -> None:
    """tf2onnx' handler of ``log(x + 1)``."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    inputs, outputs = list(node.input), list(node.output)
    context.remove_node(node.name)
    one = context.make_const(f"{name}/one", np.ones((), np.float32)).output[0]
    more = context.make_node("Add", [*inputs, one], name=f"{name}/add", shapes=shapes, dtypes=dtypes).output[0]
    context.make_node("Log", [more], name=name, outputs=outputs, shapes=shapes, dtypes=dtypes)


def _where(context: Any, node: Any, name: str, args: Sequence[Any]) -> None:
    """tf2onnx' handler of a choice, for which its own writes two products and a sum."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    inputs, outputs = list(node.input), list(node.output)
    context.remove_node(node.name)
    if dtypes[0] != TensorProto.BOOL:
        context.make_node("Where", inputs, name=name, outputs=outputs, shapes=shapes, dtypes=dtypes)
        return
    # onnxruntime chooses no booleans.
    numbers = [context.make_node("Cast", [value], attr={"to": TensorProto.INT32}).output[0] for value in inputs[1:]]
    chosen = context.make_node("Where", [inputs[0], *numbers], name=f"{name}/where").output
    attr = {"to": TensorProto.BOOL}
    context.make_node("Cast", chosen, attr=attr, name=name, outputs=outputs, shapes=shapes, dtypes=dtypes)


# TensorFlow op -> tf2onnx handler: Keras' exact GELU has Erfc(x) = 1 - Erf(x), its CELU Expm1(x) = Exp(x) - 1.
HANDLERS: dict[str, tuple[Callable[..., None], list[Any]]] = {
    "Erfc": (partial(_combined, "Erf", "Sub", True), []),
    "Expm1": (partial(_combined, "Exp", "Sub", False), []),
    "Log1p": (_log1p, []),
    "SelectV2": (_where, []),
}
