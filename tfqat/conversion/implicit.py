"""Implicit: what TensorRT's implicit mode makes of a calibration cache and its float ONNX, as Encodings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from tfqat.core.encoding import Encodings
from tfqat.exporters import cache, onnx_blocks, onnx_file, onnx_qdq
from tfqat.exporters.coverage import cover
from tfqat.exporters.onnx_qdq import weights_of
from tfqat.exporters.requantization import implicit_kernels

# What has no INT8 form in TensorRT, so that a scale of what it gives goes unused in implicit mode.
_NEVER_INT8 = frozenset("Softmax LogSoftmax Hardmax ArgMax ArgMin TopK NonMaxSuppression LayerNormalization".split())


def implicit_of(
    model: onnx.ModelProto, held: cache.Cache, ours: cache.Cache, kept_float: Sequence[str]
) -> tuple[Encodings, onnx.ModelProto]:
    """What TensorRT's implicit mode makes of a cache and its ONNX: Encodings, and the ONNX with requantized kernels.

    Lines that no kernel would use (inside a fused block whose end has a line; behind what has no INT8 form, or is
    kept float) are of origin ``calibrated``: they come back in a cache, but get no Q/DQ.
    """
    usable = cache.Cache(ours.header, {name: scale for name, scale in ours.scales.items() if cache.is_usable(scale)})
    coverage = cover(model, usable.scales, kept_float)
    idle = {node.name for node in model.graph.node if node.op_type in _NEVER_INT8} | set(kept_float)
    unused = onnx_blocks.inside(model, usable.scales) | onnx_blocks.between_floats(model, idle)
    told = cache.to_encodings(held, set(usable.scales))
    activations = {
        name: replace(encoding, origin="calibrated") if name in unused else encoding
        for name, encoding in told.activations.items()
    }
    weights, kernels = implicit_kernels(model, coverage.int8)
    floats = dict.fromkeys(coverage.float_nodes, "a line is missing") | dict.fromkeys(
        kept_float, "in the layer precisions"
    )
    return replace(told, activations=activations, weights=weights, float_ops=floats), onnx_file.with_constants(
        model, kernels
    )


def off_grid(model: onnx.ModelProto, told: Encodings) -> dict[str, np.ndarray]:
    """Initializer -> the kernel on its grid, where it is not there already."""
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node, weight in weights_of(model).items():
        if node in told.weights:
            kernel = numpy_helper.to_array(arrays[weight.initializer])
            try:
                onnx_qdq.on_grid(weight, kernel, told.weights[node])
            except onnx_qdq.QdqError:
                found[weight.initializer] = onnx_qdq.rounded(weight, kernel, told.weights[node])
    return found
