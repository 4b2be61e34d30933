"""Parts: a composite layer as the ops that the hardware sees.

A fused activation becomes an Activation after its layer (``conv1`` and ``conv1/relu``), a SeparableConv a depthwise
and a pointwise convolution (``sep/depthwise``, ``sep/pointwise``), an EinsumDense a Dense with permutes and reshapes,
a TimeDistributed Dense the Dense, a merge of n tensors n - 1 merges of two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras

from tfqat.graph.graph import Op, Ref, Source
from tfqat.graph.kinds import KERNEL_AXES
from tfqat.view import einsum_dense
from tfqat.view.part import PREVIOUS, Part, Shape, activation_of, all_of, derived, kept_whole, piece, regularizer_of

Split = Callable[[Op, Sequence[Shape]], list[Part]]


def parts_of(whole: Op, shapes: Sequence[Shape]) -> list[Part]:
    """The pieces of an op that reads tensors of these shapes, in order; a simple op is its own only piece."""
    split = _SPLITS.get(whole.kind)
    if split is None or not issubclass(whole.source.cls, keras.layers.Layer):
        return [all_of(whole)]
    reason = _held_differently(whole)
    return kept_whole(whole, reason) if reason else split(whole, shapes)


def _held_differently(whole: Op) -> str:
    """Why the layer's first weight is not the kernel that it computes with; empty where it is."""
    if getattr(whole.source.built, "lora_enabled", False):
        return "LoRA is enabled: its kernel is a sum of three weights"
    if getattr(whole.source.built, "quantization_mode", None):
        return "Keras has quantized it already (Layer.quantize)"
    return ""


def _with_activation(whole: Op, shapes: Sequence[Shape]) -> list[Part]:
    found = activation_of(whole)
    if not found:
        return [all_of(whole)]
    config = {**whole.source.config, "activation": "linear", "activity_regularizer": None}
    linear = derived(whole, whole.source.cls, config, whole.source.values, "linear")
    return [all_of(replace(whole, source=linear)), *found]


def _separable(dims: int, whole: Op, shapes: Sequence[Shape]) -> list[Part]:
    config, values = whole.source.config, whole.source.values
    depthwise = _renamed(config, "depthwise", "strides", "padding", "data_format", "dilation_rate", "depth_multiplier")
    depthwise |= {"kernel_size": config["kernel_size"], "use_bias": False}
    pointwise = _renamed(config, "pointwise", "filters", "data_format", "use_bias", "bias_initializer")
    pointwise |= {key: config[key] for key in ("bias_regularizer", "bias_constraint")}
    pointwise |= {"kernel_size": 1, **regularizer_of(whole)}
    pointwise = {key.replace("pointwise_", "kernel_"): value for key, value in pointwise.items()}
    first_class, second_class = _SEPARABLE[dims]
    first = derived(whole, first_class, depthwise, values[:1], "depthwise")
    second = derived(whole, second_class, pointwise, values[1:], "pointwise")
    shape = tuple(first_class.from_config(first.config).compute_output_shape(shapes[0]))
    parts = [
        Part(piece(whole, f"{whole.layer_name}/depthwise", f"depthwise_conv{dims}d", first), (0,), shape),
        Part(piece(whole, f"{whole.layer_name}/pointwise", f"conv{dims}d", second), (PREVIOUS,)),
    ]
    return [*parts, *activation_of(whole)]


def _time_distributed(whole: Op, shapes: Sequence[Shape]) -> list[Part]:
    layer = whole.source.built.layer
    if type(layer) is not keras.layers.Dense:
        return [all_of(whole)]
    config = {key: value for key, value in layer.get_config().items() if key != "name"}
    source = Source(keras.layers.Dense, config, tuple(layer.weights), id(layer), layer)
    return parts_of(replace(whole, kind="dense", source=source, args=(Ref(0),), kwargs={}), shapes)


def _pairwise(whole: Op, shapes: Sequence[Shape]) -> list[Part]:
    count = len(whole.inputs)
    if count <= 2:
        return [all_of(whole)]
    parts = []
    for step in range(1, count):
        name = whole.layer_name if step == count - 1 else f"{whole.layer_name}/pair{step}"
        source = derived(whole, whole.source.cls, whole.source.config, (), f"pair{step}")
        op = replace(piece(whole, name, whole.kind, source), args=([Ref(0), Ref(1)],))
        parts.append(Part(op, (0, 1) if step == 1 else (PREVIOUS, step)))
    return parts


def _renamed(config: Mapping[str, Any], prefix: str, *same: str) -> dict[str, Any]:
    """The keys of ``config`` named in ``same``, and those that start with ``prefix_``."""
    return {key: value for key, value in config.items() if key in same or key.startswith(f"{prefix}_")}


_SEPARABLE = {
    1: (keras.layers.DepthwiseConv1D, keras.layers.Conv1D),
    2: (keras.layers.DepthwiseConv2D, keras.layers.Conv2D),
}
_SPLITS: Mapping[str, Split] = {
    **dict.fromkeys(KERNEL_AXES, _with_activation),
    "separable_conv1d": partial(_separable, 1),
    "separable_conv2d": partial(_separable, 2),
    "einsum_dense": einsum_dense.split,
    "time_distributed": _time_distributed,
    **dict.fromkeys(("add", "multiply", "maximum", "minimum"), _pairwise),
}
