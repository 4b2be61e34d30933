"""Convolutions: what tf2onnx leaves open of them, or gets wrong, said by their Keras layers.

Of a transposed convolution it knows the padding only where it knows the output's size, and it takes more than the usual
output for padding below zero; of a grouped one over three axes it forgets the groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tfqat.exporters.onnx_nodes import Nodes, attribute, set_attributes
from tfqat.graph.graph import Op

# What the padding does not depend on.
_ANY_SIZE = 1000


def settle(op: Op, tensor: str, nodes: Nodes) -> None:
    """Corrects the node of a convolution whose output, or what tf2onnx makes of it, is ``tensor``."""
    kind = "ConvTranspose" if op.kind.endswith("_transpose") else "Conv"
    behind = []
    node = nodes.producers.get(tensor)
    while node is not None and node.op_type != kind and node.input:
        behind.append(node)
        node = nodes.producers.get(node.input[0])
    if node is None or node.op_type != kind:
        return
    if kind == "ConvTranspose":
        _pad(node, op.source.built)
        _cut_away(node, behind, nodes)
    elif (attribute(node, "group") or 1) == 1 and getattr(op.source.built, "groups", 1) > 1:  # a depthwise one has none
        set_attributes(node, group=op.source.built.groups)


def take_biases(nodes: Nodes, constants: dict[str, np.ndarray]) -> None:
    """Makes a bias that is added right behind a transposed convolution its own."""
    for node in [node for node in nodes.all if node.op_type == "ConvTranspose" and len(node.input) == 2]:
        add = nodes.sole_reader(node.output[0])
        if add is None or add.op_type != "Add" or node.input[1] not in constants:
            continue
        raw = next((name for name in add.input if name in constants), "")
        channels = constants[node.input[1]].shape[1] * (attribute(node, "group") or 1)
        if not _is_bias(constants.get(raw), channels, len(attribute(node, "kernel_shape"))):
            continue
        constants[f"{raw}/bias"] = constants[raw].reshape(-1)
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.input.append(f"{raw}/bias")
        made.output[0] = add.output[0]
        nodes.replace([node, add], [made])


def _is_bias(values: np.ndarray | None, channels: int, axes: int) -> bool:
    """Whether the values are one a channel; the channels come before ``axes`` others."""
    if values is None or values.ndim <= axes or values.size != channels:
        return False
    shape = [1] * (axes + 2 - values.ndim) + list(values.shape)
    return len(shape) == axes + 2 and [shape[0], *shape[2:]] == [1] * (axes + 1)


def _pad(node: onnx.NodeProto, layer: Any) -> None:
    """Sets the padding from the layer's.

    The output has ``strides * (size - 1) + reach - total`` elements along an axis, ``reach`` those of the dilated
    kernel. TensorFlow pads as the convolution does that this one is the gradient of: half of the total before.
    """
    rank = len(layer.kernel_size)
    sizes = [_ANY_SIZE] * rank
    last = layer.data_format == "channels_last"
    output = layer.compute_output_shape((1, *sizes, 1) if last else (1, 1, *sizes))
    output = output[1:-1] if last else output[2:]
    before, after, more = [], [], []
    for size, stride, dilation, result in zip(
        layer.kernel_size, layer.strides, layer.dilation_rate, output, strict=True
    ):
        total = stride * (_ANY_SIZE - 1) + dilation * (size - 1) + 1 - result
        before.append(max(total, 0) // 2)
        after.append(max(total - before[-1], 0))
        more.append(max(-total, 0))
    flat = [0] * (len(attribute(node, "kernel_shape")) - rank)  # one axis is run as the second of two
    padding = [*flat, *before, *flat, *after]
    extra = [*flat, *more] if any(more) else None
    set_attributes(node, pads=padding, output_padding=extra, output_shape=None, auto_pad=None)


def _cut_away(node: onnx.NodeProto, behind: list[onnx.NodeProto], nodes: Nodes) -> None:
    """Takes out the Slice and the Pad by which the output was brought to its size."""
    for cut in behind:
        if cut.op_type in ("Slice", "Pad"):
            for reader in nodes.readers.get(cut.output[0], []):
                for index, name in enumerate(reader.input):
                    reader.input[index] = cut.input[0] if name == cut.output[0] else name
                nodes.readers.setdefault(cut.input[0], []).append(reader)
