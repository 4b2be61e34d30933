"""Trace: a float Keras model converted by tf2onnx, with a marker node at each tensor that has a name in Keras.

tf2onnx invents names and moves Transposes about. So each op's output goes through ``tf.raw_ops.CheckNumerics``, which
carries a number and survives TensorFlow's own graph optimizer; its handler here turns it into a LeakyRelu, an
elementwise op through which tf2onnx pushes Transposes, with a node name that tells it apart. Its ``alpha`` is the
number again, so that no two markers are merged as duplicates. Behind a transpose of the model's own, which hardware
runs where it stands (in front of a product of an attention), the marker is a ThresholdedRelu: none goes through it.
What a marker reads is the tensor it names; the markers are taken out afterwards (see onnx_names).

tf2onnx copies the graph with all constants once an optimizer, which for a model of 480 MB took more than 16 GB and
minutes (measured). So kernels go through it as inputs; what it does to them is computed afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from tfqat.errors import TfqatError
from tfqat.exporters.onnx_convolutions import settle, take_biases
from tfqat.exporters.onnx_nodes import Nodes
from tfqat.exporters.onnx_one_axis import one_axis
from tfqat.exporters.onnx_spelling import HANDLERS, SPELLINGS, runs_unsized
from tfqat.exporters.onnx_tidy import names_read, names_read_inside
from tfqat.graph.depth import room_for
from tfqat.graph.graph import Graph, Op
from tfqat.graph.kinds import KERNEL_AXES
from tfqat.graph.run import constant_values, run

MARKER = "tfqat_marker::"
HELD = "held "
CONVOLUTIONS = frozenset(KERNEL_AXES) - {"dense"}
INPUT, OUTPUT, KERNEL = "tfqat_input_", "tfqat_output_", "tfqat_kernel_"

_TRANSPOSES = frozenset({"permute", "transpose", "swapaxes", "moveaxis"})

# Importing tf2onnx takes half a second and configures loggers, so it is imported where it is used.


@dataclass(frozen=True)
class Trace:
    """What tf2onnx made of a model.

    Attributes:
        model: its ONNX, with marker nodes named ``tfqat_marker::<n>``, inputs ``tfqat_input_<i>`` and outputs
            ``tfqat_output_<i>`` (the numbers with five digits).
            It has no initializers.
        constants: name -> value of each constant, as arrays: protobuf would hold a copy for every stage.
        tensors: the name of the tensor that marker n stands behind.
    """

    model: onnx.ModelProto
    constants: dict[str, np.ndarray]
    tensors: tuple[str, ...]


def trace(graph: Graph, opset: int) -> Trace:
    """Converts the viewed model at inference; ``opset`` is one that tf2onnx writes (13 to 18).

    Raises:
        TfqatError: an op without an ONNX form.
    """
    import tf2onnx

    marks: list[str] = []
    kernels = _kernels(graph)
    specs = [
        tf.TensorSpec(graph.shapes[name], graph.dtypes[name], name=f"{INPUT}{i:05d}")
        for i, name in enumerate(graph.inputs)
    ]
    specs += [tf.TensorSpec(k.shape, k.dtype, name=f"{KERNEL}{i:05d}") for i, k in enumerate(kernels)]
    function = tf.function(_marked(graph, kernels, marks), input_signature=specs, autograph=False)
    handlers: dict[str, Any] = {"CheckNumerics": (_replace_marker, []), **HANDLERS}
    with room_for(4 * len(graph.ops)), _quiet("tf2onnx"), keras.name_scope("tfqat_trace"):
        proto, _ = tf2onnx.convert.from_function(function, specs, opset=opset, custom_op_handlers=handlers)
    _check_known(proto)
    constants = _constants(proto, kernels, function.get_concrete_function(*specs))
    constants = _folded(proto, constants)
    _corrected(proto, graph, constants, marks)
    return Trace(proto, constants, tuple(marks))


def _kernels(graph: Graph) -> list[Any]:
    """The variables that are kept out of the conversion, each once: kernels, and weights that are tensors of their own,
    which TensorFlow would make one constant with what reads them."""
    kernels = [op.source.built.kernel for op in graph.ops if op.kind in KERNEL_AXES]
    kernels += [op.source.built.held[0] for op in graph.ops if op.kind == "weight"]
    return list({id(kernel): kernel for kernel in kernels}.values())


def _marked(graph: Graph, kernels: Sequence[Any], marks: list[str]) -> Any:
    tensors: dict[str, Any] = {}
    # The converter folds some ops on constants and leaves others: in the file, they are numbers.
    constants = {name: np.asarray(value) for name, value in constant_values(graph).items()}

    def mark(op: Op, outputs: list[Any]) -> list[Any]:
        if constants.keys() >= set(op.outputs):
            tensors.update((name, tf.constant(constants[name])) for name in op.outputs)
            return [tensors[name] for name in op.outputs]
        if op.kind in SPELLINGS and op.inputs:
            outputs = SPELLINGS[op.kind](graph, op, tensors[op.inputs[0]], outputs)
        for tensor, name in zip(outputs, op.outputs, strict=True):
            tensor.set_shape(graph.shapes[name])  # Keras' own call may have lost it, and a Reshape needs it
            tensors[name] = _mark(tensor, name, marks, HELD if op.kind in _TRANSPOSES else "")
        return [tensors[name] for name in op.outputs]

    def function(*inputs: Any) -> dict[str, Any]:
        marks.clear()
        count = len(graph.inputs)
        tensors.update(zip(graph.inputs, inputs[:count], strict=True))
        held = keras.StatelessScope(state_mapping=list(zip(kernels, inputs[count:], strict=True)))
        with held, tf.name_scope("tfqat_trace"):  # no layer's name is the outermost, which may not start with "_"
            tensors.update(run(runs_unsized(graph), dict(tensors), visit=mark))
        return {f"{OUTPUT}{i:05d}": tf.identity(tensors[name]) for i, name in enumerate(graph.outputs)}

    return function


def _mark(tensor: Any, name: str, marks: list[str], held: str) -> Any:
    if not tensor.dtype.is_floating:
        return tensor  # CheckNumerics takes no integers; no integer tensor needs a range either
    marks.append(name)
    return tf.raw_ops.CheckNumerics(tensor=tensor, message=f"{held}{len(marks) - 1}")


def _replace_marker(context: Any, node: Any, name: str, args: Sequence[Any]) -> None:
    """tf2onnx' handler of CheckNumerics (its signature is tf2onnx' own)."""
    message = node.get_attr_str("message")
    number = message.removeprefix(HELD)
    shapes, dtypes = node.output_shapes, node.output_dtypes
    inputs, outputs = list(node.input), list(node.output)
    context.remove_node(node.name)
    alpha = {"alpha": float(number) + 2.0}  # neither 0 nor 1, which other optimizers might know
    kind = "LeakyRelu" if message == number else "ThresholdedRelu"
    context.make_node(kind, inputs, attr=alpha, name=f"{MARKER}{number}", outputs=outputs, shapes=shapes, dtypes=dtypes)


def _constants(proto: onnx.ModelProto, kernels: Sequence[Any], concrete: Any) -> dict[str, np.ndarray]:
    """Takes out of ``proto`` its initializers, and the inputs that are none of the model's: kernels, and plain tensors
    that a layer holds."""
    values = {f"{KERNEL}{i:05d}": kernel for i, kernel in enumerate(kernels)}
    captured = {inner.name: outer for outer, inner in concrete.graph.captures}
    extra = [info.name for info in proto.graph.input if not info.name.startswith(INPUT)]
    own = [info for info in proto.graph.input if info.name.startswith(INPUT)]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    del proto.graph.input[:], proto.graph.initializer[:]
    proto.graph.input.extend(own)
    for name in extra:
        if name not in values and name not in captured:
            raise TfqatError(f"The converted model asks for an input {name!r} that the Keras model does not have.")
        constants[name] = keras.ops.convert_to_numpy(values[name] if name in values else captured[name])
    return constants


def _folded(proto: onnx.ModelProto, constants: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Computes the nodes that read constants alone, such as the Transpose of a kernel into ONNX' layout, and takes them
    out of ``proto``; the constants that are read after that."""
    kept = []
    for node in proto.graph.node:
        reads = [name for name in (*node.input, *names_read_inside(node)) if name]
        if node.name.startswith(MARKER) or not all(name in constants for name in reads):
            kept.append(node)
            continue
        outputs = ReferenceEvaluator(node).run(None, {name: constants[name] for name in node.input if name})
        constants.update(zip(node.output, (np.asarray(value, order="C") for value in outputs), strict=True))
    read = names_read(kept) | {info.name for info in proto.graph.output}
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    return {name: value for name, value in constants.items() if name in read}


def _corrected(proto: onnx.ModelProto, graph: Graph, constants: dict[str, np.ndarray], marks: Sequence[str]) -> None:
    """Corrects what tf2onnx makes of convolutions."""
    nodes = Nodes(proto)
    markers = {node.name: node for node in nodes.all if node.name.startswith(MARKER)}
    numbers = {name: number for number, name in enumerate(marks)}
    for op in graph.ops:
        marker = markers.get(f"{MARKER}{numbers.get(op.outputs[0])}")
        if op.kind in CONVOLUTIONS and marker is not None:
            settle(op, marker.input[0], nodes)
    nodes.prune()
    take_biases(nodes, constants)
    one_axis(nodes, constants)
    nodes.prune()
    del proto.graph.node[:]
    proto.graph.node.extend(nodes.all)


def _check_known(model: onnx.ModelProto) -> None:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    # What tf2onnx does not know it leaves under TensorFlow's name, in the default domain.
    unknown = sorted(
        {
            node.op_type
            for node in model.graph.node
            if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, max_inclusive_version=opset)
        }
    )
    if unknown:
        raise TfqatError(
            f"tf2onnx has no ONNX form for the TensorFlow ops {unknown}: replace the layers that use them, or end the "
            f"model before them."
        )


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keeps a library's warnings about its own workings off the user's screen; errors still show."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
