"""Function: what a Keras model computes, as tensors between its inputs and outputs, whatever way it was made."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from tfqat.errors import TfqatError
from tfqat.view.custom import is_own
from tfqat.view.proof import trace
from tfqat.view.trace import Trace, run
from tfqat.view.trace_error import TraceError


@dataclass(frozen=True, eq=False)
class Function:
    """A model between symbolic tensors.

    Attributes:
        model: the Keras model.
        inputs: its input tensors, flat.
        inputs_struct: a nest like what it takes.
        outputs: a nest of its output tensors.
        trace: where its ``call`` is code of the user's, what that was seen to do.
        names: of its inputs.
    """

    model: Any
    inputs: tuple[Any, ...]
    inputs_struct: Any
    outputs: Any
    trace: Trace | None = None
    names: tuple[str, ...] = ()


def function_of(model: keras.Model) -> Function:
    """The function of a model on the inputs that it was built for.

    Raises:
        TfqatError: no known input shape; a ``call`` that cannot be traced, with the line at which it stopped.
    """
    functional = _functional(model)
    if functional is not None:
        return _of_functional(functional)
    parameter, nest = _inputs(model)
    try:
        found = trace(model, (nest,), {}, proved=True)
    except TraceError as error:
        as_integers = tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, "int32"), nest)
        found = _first_traced(model, error, as_integers)
    return Function(model, found.inputs, nest, found.outputs, found, _labels(parameter, nest))


def called(model: keras.Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Function, list[Any]]:
    """The function of a model, and the tensors that a call of it gives for its inputs."""
    functional = _functional(model)
    if functional is None:
        found = _traced(model, args, kwargs)
        return Function(model, found.inputs, None, found.outputs, found), list(found.given)
    inputs = next(iter(model._call_signature.bind(*args, **kwargs).arguments.values()))
    given = _standardized(functional, inputs)
    return _sized(functional, given), given


def _sized(functional: Any, given: list[Any]) -> Function:
    """The function of a functional model; run anew where a caller knows sizes that the model was made without."""
    pairs = list(zip(functional.inputs, given, strict=True))
    if all(a is not None or b is None for own, outer in pairs for a, b in _sizes(own, outer)):
        return _of_functional(functional)
    fresh = [keras.KerasTensor((own.shape[0], *outer.shape[1:]), own.dtype) for own, outer in pairs]
    nest = tree.pack_sequence_as(functional._inputs_struct, fresh)
    outputs = functional._run_through_graph(nest, operation_fn=lambda operation: operation)
    return Function(functional, tuple(fresh), nest, outputs)


def _sizes(own: Any, outer: Any) -> Any:
    return zip(own.shape[1:], outer.shape[1:], strict=True)


def _standardized(functional: Any, inputs: Any) -> list[Any]:
    """What a functional model makes of a nest of tensors: in its own order, of its own ranks and dtypes."""
    own = functional.inputs
    if isinstance(inputs, dict) and not isinstance(functional._inputs_struct, dict):
        inputs = [inputs[tensor.name] for tensor in own]
    flat = tree.flatten(inputs)
    if all(len(a.shape) == len(b.shape) and a.dtype == b.dtype for a, b in zip(flat, own, strict=True)):
        return flat
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras has said it when the user made the call
        return list(functional._standardize_inputs(inputs))


def _functional(model: keras.Model) -> Any:
    """The functional model that computes what the model does; None where ``call`` is code of the user's."""
    home = next(cls for cls in type(model).__mro__ if "call" in vars(cls))
    if not is_own(home):
        return None
    if isinstance(model, keras.Sequential):
        if not model.built or model._functional is None:
            raise TfqatError(f"Sequential model {model.name!r} has no input shape yet: add keras.Input(shape).")
        return model._functional
    return model if hasattr(model, "_nodes_by_depth") else None


def _of_functional(model: Any) -> Function:
    return Function(model, tuple(model.inputs), model._inputs_struct, model._outputs_struct)


def _traced(model: keras.Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
    try:
        return trace(model, args, kwargs, proved=True)
    except TraceError as error:
        raise _unseen(model, error) from error


def _unseen(model: keras.Model, error: TraceError) -> TfqatError:
    return TfqatError(f"Model {model.name!r} ({type(model).__name__}) cannot be seen as a graph: {error}")


def _inputs(model: keras.Model) -> tuple[str, Any]:
    """The argument of a subclassed model's ``call``, and symbolic tensors like what it was built for."""
    parameters = [name for name in model._call_signature.parameters if name not in ("training", "mask")]
    if (given := _made_with(model)) is not None:
        return parameters[0], given
    shapes = (model._build_shapes_dict or {}) if model.built else {}
    if not shapes or not parameters:
        raise _without_shape(model)
    required = [
        name
        for name in parameters
        if model._call_signature.parameters[name].default is inspect.Parameter.empty
        and model._call_signature.parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    if len(required) > 1:
        raise TfqatError(
            f"Model {model.name!r} ({type(model).__name__}): its call() takes the arguments {', '.join(required)}, and "
            "Keras keeps the shape of the first alone. Take one list or dict of tensors, or make the model functional: "
            f"keras.Model([a, b], model(a, b)), with a and b keras.Input of the shapes of {', '.join(required[:2])}."
        )
    return parameters[0], tree.map_shape_structure(_as_input, _plain(next(iter(shapes.values()))))


def _made_with(model: keras.Model) -> Any:
    """Inputs like those of a functional model whose ``call`` its user has written anew; None of another."""
    functional = model._functional if isinstance(model, keras.Sequential) else model
    own = getattr(functional, "_inputs_struct", None)
    return None if own is None else tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, leaf.dtype), own)


def _plain(nest: Any) -> Any:
    """A nest of shapes in Python's own dictionaries and lists: Keras' own kind of them matches no caller's."""
    if isinstance(nest, dict):
        return {key: _plain(value) for key, value in nest.items()}
    parts = [_plain(value) for value in nest] if isinstance(nest, list | tuple) else nest
    return tuple(parts) if isinstance(nest, tuple) else parts


def _without_shape(model: keras.Model) -> TfqatError:
    """What is in the way of a model that Keras knows no input shape of.

    Keras keeps none of a model that was called, where it could not trace the call. The shape that the first layer
    inside was called with mostly is the model's, and shows where the trace stops.
    """
    shapes = (layer._build_shapes_dict for layer in model._flatten_layers(include_self=False))
    first = next((next(iter(found.values())) for found in shapes if found), None)
    if first is not None:
        like = tree.map_shape_structure(_as_input, first)
        try:
            run(model, (like,), {}, False)
        except TraceError as error:
            return TfqatError(
                f"{_unseen(model, error)} (Tried on one input of the shape {(None, *first[1:])}, since Keras kept none "
                "of this model; if it takes another, say so by model.build(shape) first.)"
            )
    return TfqatError(
        f"Model {model.name!r} ({type(model).__name__}) has no known input shape: call it on a batch, or "
        "model.build(shape), first."
    )


def _as_input(shape: tuple[int | None, ...]) -> keras.KerasTensor:
    """A symbolic input. Built by a call on one batch, a model knows that batch's size, which is nobody's wish."""
    return keras.KerasTensor((None, *shape[1:]), "float32")


def _first_traced(model: keras.Model, error: TraceError, nest: Any) -> Trace:
    """The trace on integers (Keras keeps no dtypes of inputs), or the error of the one on floats."""
    try:
        return trace(model, (nest,), {}, proved=True)
    except TraceError:
        raise _unseen(model, error) from error


def _labels(parameter: str, nest: Any) -> tuple[str, ...]:
    """A name for each input: the key or number in the nest, or the argument's name."""
    paths = [path for path, _ in tree.flatten_with_path(nest)]
    return tuple(
        "_".join(map(str, path if isinstance(path[0], str) else (parameter, *path))) if path else parameter
        for path in paths
    )
