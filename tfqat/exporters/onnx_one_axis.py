"""One axis: convolutions and poolings over one axis, which tf2onnx writes with two, as nodes that have one.

TensorFlow runs them on images of height 1, so that an Unsqueeze stands before and a Squeeze behind each; the bias is
added after that, where it would part the convolution from its activation. Zeros that are put before the first step of
a causal convolution become its own padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tfqat.exporters.onnx_nodes import Nodes, attribute

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_POOLINGS = frozenset({"MaxPool", "AveragePool"})
# One size an axis; ``pads`` has two.
_SIZES = frozenset({"kernel_shape", "strides", "dilations", "output_padding", "output_shape"})
_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
_SWAP = [0, 2, 1]


def one_axis(nodes: Nodes, constants: dict[str, np.ndarray]) -> None:
    """Rewrites the nodes; new kernels and biases are added to ``constants``."""
    for node in [node for node in nodes.all if _may_be(node, constants)]:
        found = _found(node, nodes, constants)
        if found is not None:
            gone = [node, found.squeeze, *([] if found.bias is None else [found.bias])]
            nodes.replace(gone, _written(found, constants))


@dataclass(frozen=True)
class _Found:
    """One op over one axis: its node, what it reads (swapped where its channels are last), the nodes behind it."""

    node: onnx.NodeProto
    source: str
    swapped: bool
    squeeze: onnx.NodeProto
    back: bool
    pads: tuple[int, int] = (0, 0)
    bias: onnx.NodeProto | None = None

    @property
    def output(self) -> str:
        return (self.squeeze if self.bias is None else self.bias).output[0]


def _may_be(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> bool:
    two = len(attribute(node, "kernel_shape") or []) == 2
    return two and (node.op_type in _POOLINGS or (node.op_type in _CONVOLUTIONS and node.input[1] in constants))


def _found(node: onnx.NodeProto, nodes: Nodes, constants: Mapping[str, np.ndarray]) -> _Found | None:
    before = nodes.producers.get(node.input[0])
    swapped = before is not None and before.op_type == "Transpose" and attribute(before, "perm") == _TO_CHANNELS_FIRST
    if swapped and before is not None:
        before = nodes.producers.get(before.input[0])
    if before is None or not _works_on(before, "Unsqueeze", 1 if swapped else 2, constants):
        return None
    after, back = nodes.sole_reader(node.output[0]), False
    if after is not None and after.op_type == "Transpose" and attribute(after, "perm") == _TO_CHANNELS_LAST:
        after, back = nodes.sole_reader(after.output[0]), True
    if after is None or not _works_on(after, "Squeeze", 1 if back else 2, constants) or not _is_flat(node):
        return None
    found = _Found(node, before.input[0], swapped, after, back)
    return (
        _with_bias(_with_padding(found, nodes, constants), nodes, constants) if node.op_type in _CONVOLUTIONS else found
    )


def _is_flat(node: onnx.NodeProto) -> bool:
    """Whether nothing happens along the first of the two axes, which is one long."""
    pads = attribute(node, "pads") or [0] * 4
    return attribute(node, "kernel_shape")[0] == 1 and pads[0] == pads[2] == 0


def _with_padding(found: _Found, nodes: Nodes, constants: Mapping[str, np.ndarray]) -> _Found:
    """With the zeros that are put before what it reads."""
    pad = nodes.producers.get(found.source)
    if pad is None or found.node.op_type != "Conv" or not _puts_zeros(pad, constants):
        return found
    sizes, axis = constants[pad.input[1]], 1 if found.swapped else 2
    if np.delete(sizes, [axis, axis + 3]).any():
        return found
    return replace(found, source=pad.input[0], pads=(int(sizes[axis]), int(sizes[axis + 3])))


def _puts_zeros(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> bool:
    if node.op_type != "Pad" or attribute(node, "mode") not in (None, b"constant"):
        return False
    value = [constants.get(name) for name in node.input[2:] if name]
    sizes = constants.get(node.input[1])
    return sizes is not None and sizes.size == 6 and all(one is not None and not one.any() for one in value)


def _with_bias(found: _Found, nodes: Nodes, constants: Mapping[str, np.ndarray]) -> _Found:
    add = nodes.sole_reader(found.squeeze.output[0])
    if add is None or add.op_type != "Add" or len(found.node.input) > 2:
        return found
    bias = next((constants[name] for name in add.input if name in constants), None)
    channels = _channels(found.node, constants)
    axis = -1 if found.back else -2
    fits = bias is not None and bias.size == channels and (channels == 1 or _axis_of(bias, axis) == channels)
    return replace(found, bias=add) if fits else found


def _axis_of(values: np.ndarray, axis: int) -> int:
    return values.shape[axis] if values.ndim >= -axis else 1


def _channels(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> int:
    kernel = constants[node.input[1]]
    return int(kernel.shape[0] if node.op_type == "Conv" else kernel.shape[1] * (attribute(node, "group") or 1))


def _written(found: _Found, constants: dict[str, np.ndarray]) -> list[onnx.NodeProto]:
    node, name = found.node, found.node.name
    source = f"{name}/swapped" if found.swapped else found.source
    made = [helper.make_node("Transpose", [found.source], [source], name=source, perm=_SWAP)] if found.swapped else []
    inputs = [source, *(_flattened(raw, constants) for raw in node.input[1:2]), *node.input[2:]]
    if found.bias is not None:
        raw = next(one for one in found.bias.input if one in constants)
        constants[f"{raw}/one_axis"] = constants[raw].reshape(-1)
        inputs.append(f"{raw}/one_axis")
    result = f"{name}/channels_first" if found.back else found.output
    made.append(helper.make_node(node.op_type, inputs, [result], name=name, **_attributes(found)))
    if found.back:
        made.append(helper.make_node("Transpose", [result], [found.output], name=result, perm=_SWAP))
    return made


def _flattened(raw: str, constants: dict[str, np.ndarray]) -> str:
    """The kernel without the first of its two axes; calls of one layer have the same."""
    constants[f"{raw}/one_axis"] = np.ascontiguousarray(constants[raw].squeeze(2))
    return f"{raw}/one_axis"


def _attributes(found: _Found) -> dict[str, Any]:
    given = {a.name: helper.get_attribute_value(a) for a in found.node.attribute}
    one = {name: [value[-1]] if name in _SIZES else value for name, value in given.items()}
    before, after = (given.get("pads") or [0] * 4)[1::2]
    pads = [before + found.pads[0], after + found.pads[1]]
    return {**one, "pads": pads} if "pads" in given or any(pads) else one


def _works_on(node: onnx.NodeProto, kind: str, axis: int, constants: Mapping[str, np.ndarray]) -> bool:
    if node.op_type != kind or len(node.input) < 2 or node.input[1] not in constants:
        return False
    return constants[node.input[1]].reshape(-1).tolist() in ([axis], [axis - 4])
