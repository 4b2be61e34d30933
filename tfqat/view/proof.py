"""Proof: that a Trace computes what its layer does, whatever the weights, in training as in evaluation.

A ``call`` may read a weight past the graph, branch on ``training`` or keep state in Python; the trace would then be
another function. So two traces are compared, and the numbers of trace and layer on a sample, with all weights moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from tfqat.graph.kinds import IDENTITY, snake_case
from tfqat.view.batch import BATCH
from tfqat.view.custom import is_own
from tfqat.view.stand_ins import WAYS, Way, mask_of
from tfqat.view.trace import Trace, run
from tfqat.view.trace_error import TraceError, explain, place_in_call

# Batches and sizes to try where they are unknown: the smallest that the layer runs on. A layer that is called on the
# windows of images takes as many at a time as an image has.
BATCHES = (2, 4, 9, 16, 49, 64)
SIZES = (8, 32, 64, 224)


def trace(layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: Mapping[str, Any], proved: bool) -> Trace:
    """The layer's call as a trace; with ``proved`` one that was compared with the layer.

    Raises:
        TraceError: the call cannot be traced, or not faithfully.
    """
    errors: list[TraceError] = []
    for way in WAYS:
        if way.batch and errors and "range(" in str(errors[0]):
            continue  # it would go round as many times
        try:
            return _trace(layer, args, kwargs, proved, way)
        except TraceError as error:
            errors.append(error)
    raise errors[0]


def _trace(layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], proved: bool, way: Way) -> Trace:
    found = run(layer, args, kwargs, False, way)
    _check_layers(layer, found)
    at_work = run(layer, args, kwargs, True, way)
    if _calls(found) != _calls(at_work):
        raise _changing(layer, found, run(layer, args, kwargs, False, way))
    # The trace in training is the whole one: `if training: x = self.dropout(x)` is common.
    found = _at_rest(replace(at_work, frozen=_frozen(layer, found, at_work)))
    if proved:
        _check_numbers(layer, found)
    return found


def _at_rest(at_work: Trace) -> Trace:
    """A trace in training as one in evaluation: who is told of training is told that there is none."""
    if "training" in at_work.arguments.arguments:
        at_work.arguments.arguments["training"] = False
    for node in at_work.nodes:
        if _told(node) is not None:
            arguments = node.arguments
            node.arguments = type(arguments)(*arguments.args, **{**arguments.kwargs, "training": False})
    return at_work


def check_variables(layer: keras.layers.Layer, found: Trace) -> None:
    """Raises TraceError where a trainable variable of the layer is not in its trace."""
    seen = {id(variable) for _, variable in found.weights}
    for node in found.nodes:
        if isinstance(node.operation, keras.layers.Layer):
            seen.update(id(variable) for variable in node.operation.variables)
    lost = [variable.path for variable in layer.trainable_variables if id(variable) not in seen]
    if lost:
        raise TraceError(f"its call() does not show where it uses {', '.join(lost[:3])}")


def _check_layers(layer: keras.layers.Layer, found: Trace) -> None:
    """Raises TraceError where the call makes layers: they are others each time."""
    known = {id(inner) for inner in layer._flatten_layers()}
    for node in found.nodes:
        inner = node.operation
        if isinstance(inner, keras.layers.Layer) and inner.weights and id(inner) not in known:
            raise TraceError(
                f"its call() uses the layer {inner.name!r} ({type(inner).__name__}), which is no attribute of its own, "
                f"at {place_in_call(layer, type(inner).__name__)}. Make layers in __init__(), as attributes"
            )


def _changing(layer: keras.layers.Layer, first: Trace, again: Trace) -> TraceError:
    """Why two traces are not the same."""
    if _calls(first) != _calls(again):
        where = place_in_call(layer, r"random|\bself\.\w+\s*[-+*/]?=[^=]")
        return TraceError(
            f"its call() computes something else each time, at {where}. Numbers that are drawn and state that is kept "
            "in Python are in no graph: draw in a layer (Dropout, GaussianNoise), keep state in variables of layers"
        )
    return TraceError(
        f"its call() computes otherwise in training than in evaluation, at {place_in_call(layer, *_DECIDES)}. Leave "
        "that to layers inside (Dropout, BatchNormalization), which are told"
    )


# A line by which training decides; else one that has it.
_DECIDES = (r"\b(if|and|or|not|while)\b.*\btraining\b", "training")


def _frozen(layer: keras.layers.Layer, evaluating: Trace, training: Trace) -> frozenset[int]:
    """Ids of the nodes called with ``training=False`` in training too.

    Raises:
        TraceError: one is called with ``training=True`` in evaluation.
    """
    loud = next((node for node in evaluating.nodes if _told(node)), None)
    if loud is not None:
        raise TraceError(
            f"its call() calls {loud.operation.name!r} with training=True in evaluation, too, at "
            f"{place_in_call(layer, 'training')}"
        )
    # Who hears no from a caller that says yes; others are not told at all.
    return frozenset(id(node) for node in training.nodes if _told(node) is False)


def _calls(found: Trace) -> list[Any]:
    """Each call inside that does something in evaluation, as a comparable value; the outputs last."""
    numbers: dict[int, Any] = {id(tensor): index for index, tensor in enumerate(found.inputs)}
    numbers |= {id(stand_in): (index, "weight") for index, (stand_in, _) in enumerate(found.weights)}
    calls: list[Any] = []
    for node in found.nodes:
        if _does_nothing(node):
            numbers[id(node.outputs[0])] = numbers.get(id(node.arguments.keras_tensors[0]), "unknown")
            continue
        kwargs = {key: value for key, value in node.arguments.kwargs.items() if key != "training"}
        numbers |= {id(tensor): (len(calls), "result", index) for index, tensor in enumerate(node.outputs)}
        calls.append((_identity(node.operation), _plain((node.arguments.args, kwargs), numbers)))
    return [*calls, _plain(found.outputs, numbers)]


def _does_nothing(node: Any) -> bool:
    """Whether a call is one of Keras' layers that do nothing in evaluation, as Dropout."""
    cls = type(node.operation)
    passes_on = is_own(cls) and issubclass(cls, keras.layers.Layer) and snake_case(cls.__name__) in IDENTITY
    return passes_on and len(node.arguments.keras_tensors) == len(node.outputs) == 1


def _told(node: Any) -> Any:
    return node.arguments.kwargs.get("training") if isinstance(node.operation, keras.layers.Layer) else None


def _identity(operation: Any) -> Any:
    """What two calls have in common: the layer, or what computes the same as another made in the call."""
    if not isinstance(operation, keras.layers.Layer):
        config = {key: value for key, value in vars(operation).items() if not key.startswith("_") and key != "name"}
        return type(operation), repr(config)
    if operation.variables or not is_own(type(operation)):
        return id(operation)
    try:
        return type(operation), repr({**operation.get_config(), "name": ""})
    except NotImplementedError:  # something inside it has no config
        return id(operation)


def _plain(nest: Any, numbers: Mapping[int, Any]) -> str:
    def of_leaf(leaf: Any) -> Any:
        if isinstance(leaf, keras.KerasTensor):
            return numbers.get(id(leaf), "unknown")
        if isinstance(leaf, keras.Variable):
            return "variable", id(leaf)
        if ops.is_tensor(leaf) or isinstance(leaf, np.ndarray | np.generic):
            array = _array(leaf)
            return array.shape, str(array.dtype), array.tobytes()
        return leaf

    return repr([of_leaf(leaf) for leaf in tree.flatten(nest)])


def _array(leaf: Any) -> np.ndarray:
    # TensorFlow gives NumPy no single bfloat16.
    half = ops.is_tensor(leaf) and keras.backend.standardize_dtype(leaf.dtype) == "bfloat16"
    return np.asarray(ops.convert_to_numpy(ops.cast(leaf, "float32") if half else leaf))


def _check_numbers(layer: keras.layers.Layer, found: Trace) -> None:
    """Raises TraceError unless trace and layer give the same on a sample, under weights other than those now."""
    generator = np.random.default_rng(0)
    moved = [(variable, _moved(variable, generator)) for variable in layer.variables]
    sizes = SIZES if _has_unknown_sizes(found) else SIZES[:1]
    for batch, size in [*((BATCHES[0], size) for size in sizes), *((batch, sizes[0]) for batch in BATCHES[1:])]:
        sample = _sample(found, batch, size, generator)
        with keras.StatelessScope(state_mapping=moved):
            try:
                expected = _call(layer, found, _with_masks(found, sample))
            except Exception as raised:  # noqa: BLE001 - the user's code may raise whatever it likes
                error = raised
                continue
        with keras.StatelessScope(state_mapping=moved):
            try:
                received = _evaluate(found, _with_masks(found, sample))
            except Exception as raised:
                raise _not_again(layer, raised) from raised
        _compare(expected, received, keras.backend.standardize_dtype(layer.compute_dtype or "float32"))
        return
    raise TraceError(
        f"it could not be run on a sample, to compare it with what was found inside: {explain(layer, error)}"
    )


def _not_again(layer: keras.layers.Layer, error: Exception) -> TraceError:
    what = " ".join(str(error).split())[:200]
    return TraceError(
        f"what its call() was seen to do cannot be done on numbers ({what}). Sizes that it took from a tensor, at "
        f"{place_in_call(layer, 'shape')}, are None until there is data: use -1 in keras.ops.reshape, and operations "
        "that need no size"
    )


def _has_unknown_sizes(found: Trace) -> bool:
    return any(size is None for tensor in found.inputs for size in tensor.shape[1:])


def _moved(variable: Any, generator: np.random.Generator) -> Any:
    """Another value for a variable: what was copied out of it will tell. A variance stays positive."""
    value = np.array(ops.convert_to_numpy(variable.value))
    if not keras.backend.is_float_dtype(variable.dtype):
        return value
    factor, shift = generator.uniform(0.8, 1.25, value.shape), generator.uniform(0.02, 0.1, value.shape)
    return (value * factor + shift).astype(value.dtype)


def _sample(found: Trace, batch: int, size: int, generator: np.random.Generator) -> dict[int, np.ndarray]:
    """Id of an input of the trace -> numbers."""
    sample = {}
    for tensor in found.inputs:
        first = [batch if known in (None, BATCH) else known for known in tensor.shape[:1]]
        shape = (*first, *(size if known is None else known for known in tensor.shape[1:]))
        sample[id(tensor)] = _numbers(shape, tensor.dtype, generator)
    return sample


def _with_masks(found: Trace, sample: Mapping[int, np.ndarray]) -> dict[int, Any]:
    """The sample as tensors that carry their masks; anew for each run, since MultiHeadAttention takes masks away."""
    tensors = {id(t): ops.convert_to_tensor(sample[id(t)], t.dtype) for t in found.inputs}
    for tensor in found.inputs:
        if mask_of(tensor) is not None:
            tensors[id(tensor)]._keras_mask = tensors[id(mask_of(tensor))]
    return tensors


def _numbers(shape: tuple[int, ...], dtype: str, generator: np.random.Generator) -> np.ndarray:
    if dtype == "bool":
        return generator.random(shape) < 0.8
    if keras.backend.is_float_dtype(dtype):
        return generator.normal(size=shape).astype("float32" if dtype == "bfloat16" else dtype)
    return generator.integers(0, 2, shape).astype(dtype)  # tokens, positions: 0 and 1 are in every table


def _call(layer: Any, found: Trace, sample: Mapping[int, Any]) -> list[Any]:
    args, kwargs = _filled((found.arguments.args, found.arguments.kwargs), sample)
    layer._get_call_context().set_value("training", False)
    try:
        return tree.flatten(layer.call(*args, **kwargs))
    finally:
        layer._maybe_reset_call_context()


def _evaluate(found: Trace, sample: Mapping[int, Any]) -> list[Any]:
    values = dict(sample)
    values |= {id(stand_in): ops.cast(variable.value, stand_in.dtype) for stand_in, variable in found.weights}
    for node in found.nodes:
        args, kwargs = _filled((node.arguments.args, node.arguments.kwargs), values)
        outputs = tree.flatten(_computing(node.operation)(*args, **kwargs))
        values.update(zip((id(tensor) for tensor in node.outputs), outputs, strict=True))
    return [values[id(tensor)] for tensor in tree.flatten(found.outputs)]


def _computing(operation: Any) -> Any:
    """The operation; keras.ops.conv_transpose for the one that takes its padding for its output_padding in Keras 3."""
    if type(operation).__name__ != "ConvTranspose":
        return operation
    names = ("strides", "padding", "output_padding", "data_format", "dilation_rate")
    return partial(ops.conv_transpose, **{name: getattr(operation, name) for name in names})


def _filled(nest: Any, values: Mapping[int, Any]) -> Any:
    return tree.map_structure(lambda leaf: values[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf, nest)


def _compare(expected: list[Any], received: list[Any], dtype: str) -> None:
    tolerance = 1e-3 if dtype in ("float32", "float64") else 5e-2
    for a, b in zip(_arrays(expected), _arrays(received), strict=True):
        size = max(float(np.nanmax(np.abs(a), initial=0.0)), 1e-6)
        if a.shape != b.shape or not np.allclose(a, b, rtol=tolerance, atol=tolerance * size, equal_nan=True):
            raise TraceError(
                "what was found inside does not compute the same on other weights: its call() reads a weight outside "
                "of keras.ops on tensors, draws random numbers, keeps state of its own, or computes with the weight of "
                "a layer inside (the table of an Embedding, to give tokens: keras.layers.ReversibleEmbedding does that)"
            )


def _arrays(values: list[Any]) -> Iterator[np.ndarray]:
    return (np.asarray(ops.convert_to_numpy(ops.cast(value, "float32"))) for value in values)
