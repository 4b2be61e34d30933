"""Float ONNX: the float model, BatchNorm folded, under our names; every TensorRT file is derived from it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import onnx

from tfqat.exporters.onnx_file import OnnxError, with_opset
from tfqat.exporters.onnx_names import Named, checked_io, rename
from tfqat.exporters.onnx_trace import trace
from tfqat.view.view import view

# Per-channel QuantizeLinear begins at opset 13; tf2onnx 1.17 writes up to 18, onnx converts from there.
LOWEST_OPSET, TF2ONNX_HIGHEST = 13, 18
# protobuf refuses messages of 2 GiB and more; the graph around the weights takes a little, too.
LARGEST_FILE = 2**31 - 2**24


def convert(
    model: keras.Model,
    opset: int = 17,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> Named:
    """The ONNX of a float Keras model at inference; the first dimension of each input is ``batch``.

    Args:
        model: stock layers only, flat (what ``rewrite.split`` gives).
        opset: from 13 to what the installed onnx knows.
        input_names, output_names: in the model's order; Keras' names where None.

    Raises:
        TfqatError: an opset out of range, names that do not fit, a model of 2 GB and more, an op without ONNX form.
    """
    check_opset(opset)
    check_size(model)
    graph = view(model)
    inputs, outputs = checked_io(graph, input_names, output_names)
    named = rename(trace(graph, min(opset, TF2ONNX_HIGHEST)), graph, inputs, outputs)
    if opset > TF2ONNX_HIGHEST:
        named = Named(with_opset(named.model, opset), named.tensors, named.nodes)
    onnx.checker.check_model(named.model, full_check=True)
    return named


def check_opset(opset: int) -> None:
    """Refuses an opset that cannot be written.

    Raises:
        OnnxError: it is below 13 or above what the installed onnx package knows.
    """
    highest = onnx.defs.onnx_opset_version()
    if not isinstance(opset, int) or not LOWEST_OPSET <= opset <= highest:
        raise OnnxError(
            f"opset must be from {LOWEST_OPSET} (per-channel QuantizeLinear) to {highest} (the installed onnx), "
            f"received {opset!r}; 17 is right for TensorRT 8.5 and later."
        )


def check_size(model: keras.Model) -> None:
    """Refuses a model whose float32 weights do not fit into one ONNX file.

    Raises:
        OnnxError: they take 2 GB or more.
    """
    size = 4 * sum(math.prod(weight.shape) for weight in model.weights)
    if size >= LARGEST_FILE:
        raise OnnxError(
            f"Model {model.name!r} has {size / 1e9:.1f} GB of weights; one ONNX file holds less than 2 GB (a limit of "
            f"protobuf). Export parts of the model, each as its own keras.Model."
        )
