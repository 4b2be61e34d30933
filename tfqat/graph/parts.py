"""Part: a piece of a composite layer that the hardware sees as an op of its own.

A fused activation becomes an Activation after its layer (``conv1`` and ``conv1/relu``), a SeparableConv2D a depthwise
and a pointwise convolution (``sep/depthwise``, ``sep/pointwise``), a merge of n tensors n - 1 merges of two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from tfqat.graph.graph import Op, Ref, Source
from tfqat.graph.kinds import KERNEL_AXES, activation_kind

PREVIOUS = -1


@dataclass(frozen=True, eq=False)
class Part:
    """One piece: its op, and what it reads (indices of the whole op's inputs, PREVIOUS for the piece before it).

    ``channels`` is the size of its output's last axis where that is not the whole op's.
    """

    op: Op
    reads: tuple[int, ...]
    channels: int | None = None


def parts_of(whole: Op) -> list[Part]:
    """The pieces of an op, in order; a simple op is its own only piece."""
    split = _SPLITS.get(whole.kind)
    return split(whole) if split else [_all_of(whole)]


def _all_of(op: Op) -> Part:
    return Part(op, tuple(range(len(op.inputs))))


def _with_activation(whole: Op) -> list[Part]:
    config = dict(whole.source.config)
    kind = activation_kind(config.get("activation"))
    if kind == "linear":
        return [_all_of(whole)]
    linear = _derived(whole, whole.source.cls, config | {"activation": "linear"}, whole.source.values, "linear")
    return [_all_of(replace(whole, source=linear)), _activation(whole, kind)]


def _activation(whole: Op, kind: str) -> Part:
    source = _derived(whole, keras.layers.Activation, {"activation": whole.source.config["activation"]}, (), kind)
    return Part(_piece(whole, f"{whole.layer_name}/{kind}", kind, source), (PREVIOUS,))


def _separable(whole: Op) -> list[Part]:
    config, values = whole.source.config, whole.source.values
    depthwise = _renamed(config, "depthwise", "strides", "padding", "data_format", "dilation_rate", "depth_multiplier")
    depthwise |= {"kernel_size": config["kernel_size"], "use_bias": False}
    pointwise = _renamed(config, "pointwise", "filters", "data_format", "use_bias", "bias_initializer")
    pointwise |= {"kernel_size": 1, "bias_regularizer": config["bias_regularizer"]}
    pointwise = {key.replace("pointwise_", "kernel_"): value for key, value in pointwise.items()}
    inputs, multiplier = values[0].shape[2:]
    first = _piece(
        whole,
        f"{whole.layer_name}/depthwise",
        "depthwise_conv2d",
        _derived(whole, keras.layers.DepthwiseConv2D, depthwise, values[:1], "depthwise"),
    )
    second = _piece(
        whole,
        f"{whole.layer_name}/pointwise",
        "conv2d",
        _derived(whole, keras.layers.Conv2D, pointwise, values[1:], "pointwise"),
    )
    parts = [Part(first, (0,), inputs * multiplier), Part(second, (PREVIOUS,))]
    kind = activation_kind(config.get("activation"))
    return parts if kind == "linear" else [*parts, _activation(whole, kind)]


def _pairwise(whole: Op) -> list[Part]:
    count = len(whole.inputs)
    if count <= 2 or not issubclass(whole.source.cls, keras.layers.Layer):
        return [_all_of(whole)]
    parts = []
    for step in range(1, count):
        name = whole.layer_name if step == count - 1 else f"{whole.layer_name}/pair{step}"
        source = _derived(whole, whole.source.cls, whole.source.config, (), f"pair{step}")
        op = replace(_piece(whole, name, whole.kind, source), args=([Ref(0), Ref(1)],))
        parts.append(Part(op, (0, 1) if step == 1 else (PREVIOUS, step)))
    return parts


def _piece(whole: Op, name: str, kind: str, source: Source) -> Op:
    return replace(whole, name=name, layer_name=name, kind=kind, source=source, args=(Ref(0),), kwargs={})


def _derived(whole: Op, cls: type, config: Mapping[str, Any], values: tuple[Any, ...], part: str) -> Source:
    base = {key: whole.source.config[key] for key in ("trainable", "dtype") if key in whole.source.config}
    return Source(cls, base | dict(config), values, (whole.source.key, part))


def _renamed(config: Mapping[str, Any], prefix: str, *same: str) -> dict[str, Any]:
    """The keys of ``config`` named in ``same``, and those that start with ``prefix_``."""
    return {key: value for key, value in config.items() if key in same or key.startswith(f"{prefix}_")}


_SPLITS: Mapping[str, Callable[[Op], list[Part]]] = {
    **dict.fromkeys(KERNEL_AXES, _with_activation),
    "separable_conv2d": _separable,
    **dict.fromkeys(("add", "multiply", "maximum", "minimum"), _pairwise),
}
