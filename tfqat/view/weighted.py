"""Weighted: the operations of a trace that take its layer's own variables, each as a layer that holds them.

A kernel makes it the stock layer that computes the same (``matmul(x, w)`` a Dense), other variables a WithWeights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops, tree

from tfqat.graph.graph import Ref, Source
from tfqat.graph.kinds import kind_of, snake_case
from tfqat.view.nodes import nodes_in_order
from tfqat.view.trace import Trace
from tfqat.view.trace_error import TraceError
from tfqat.view.with_weights import WithWeights, described

# Operations that only lay a kernel's values out anew.
_LAYOUT = frozenset("Cast Transpose Reshape Swapaxes ExpandDims Squeeze Moveaxis".split())


@dataclass(frozen=True, eq=False)
class Weighted:
    """One call of a layer that holds variables.

    Attributes:
        name: what the operation is called inside of its layer.
        reads: the tensors that it is called with, on one or as a list.
        results: the tensors of the trace that it gives.
    """

    name: str
    kind: str
    source: Source
    reads: tuple[Any, ...]
    results: tuple[Any, ...]

    @property
    def args(self) -> tuple[Any, ...]:
        refs = [Ref(index) for index in range(len(self.reads))]
        return (refs[0] if len(refs) == 1 else refs,)


def weighted_calls(layer: Any, trace: Trace) -> tuple[list[Weighted], dict[int, Weighted | None]]:
    """The variables that are tensors of their own, first; and id of a node -> what stands for it, None for nothing."""
    return _Weights(layer, trace).calls()


class _Weights:
    """The variables of a traced layer, and what becomes of each."""

    def __init__(self, layer: Any, trace: Trace) -> None:
        self.layer, self.trace = layer, trace
        self.nodes = trace.nodes
        self.variables = {id(stand_in): variable for stand_in, variable in trace.weights}
        self.stand_ins = {id(stand_in): stand_in for stand_in, _ in trace.weights}
        self.makers = {id(tensor): node for node in self.nodes for tensor in node.outputs}
        self.results = {id(tensor) for tensor in tree.flatten(trace.outputs)}
        self.readers: dict[int, list[Any]] = {}
        for node in self.nodes:
            for tensor in {id(t): t for t in node.arguments.keras_tensors}.values():
                self.readers.setdefault(id(tensor), []).append(node)
        self._check_foreign()
        self.free = self._free_standing()

    def _check_foreign(self) -> None:
        for node in self.nodes:
            if any(isinstance(leaf, keras.Variable) for leaf in node.arguments._flat_arguments):
                name = snake_case(type(node.operation).__name__)
                raise TraceError(f"its call() uses a variable of another layer in keras.ops.{name}")

    def _free_standing(self) -> set[int]:
        """Ids of the stand-ins of variables that no one operation holds: used twice, by a layer, or given out."""
        free: set[int] = set()
        before = -1
        while len(free) != before:
            before = len(free)
            derived = self._derived(free)
            for stand_in in self.stand_ins:
                if stand_in not in free and not self._has_one_reader(stand_in, derived):
                    free.add(stand_in)
        return free

    def _derived(self, free: set[int]) -> set[int]:
        """Ids of the tensors that are computed from held variables alone."""
        derived = {stand_in for stand_in in self.stand_ins if stand_in not in free}
        for node in self.nodes:
            alone = all(id(tensor) in derived for tensor in node.arguments.keras_tensors)
            if alone and not isinstance(node.operation, keras.layers.Layer):
                derived.update(id(tensor) for tensor in node.outputs)
        return derived

    def _has_one_reader(self, stand_in: int, derived: set[int]) -> bool:
        ends, stack = set(), [stand_in]
        while stack:
            tensor = stack.pop()
            if tensor in self.results:
                return False
            for node in self.readers.get(tensor, ()):
                if isinstance(node.operation, keras.layers.Layer):
                    return False
                if id(node.outputs[0]) in derived:
                    stack.extend(id(output) for output in node.outputs)
                else:
                    ends.add(id(node))
        return len(ends) <= 1

    def calls(self) -> tuple[list[Weighted], dict[int, Weighted | None]]:
        derived = self._derived(self.free)
        found: dict[int, Weighted | None] = {}
        for node in self.nodes:
            held = [t for t in node.arguments.keras_tensors if id(t) in derived]
            if not held or id(node) in found or isinstance(node.operation, keras.layers.Layer):
                continue
            if id(node.outputs[0]) in derived:
                found[id(node)] = None
                continue
            stock = self._stock(node, derived)
            found[id(node)] = stock or self._generic(node, derived)
            if stock and stock.results[0] is not node.outputs[0]:
                found[id(self.makers[id(stock.results[0])])] = None  # the bias
        return [self._alone(stand_in) for stand_in in self.free if self.readers.get(stand_in)], found

    def _alone(self, stand_in: int) -> Weighted:
        variable = self.variables[stand_in]
        config = {"steps": [], "variables": [described(variable)], "kind": "weight"}
        source = self._source(WithWeights, config, (variable,), (variable,), "alone")
        name = "weight" if re.fullmatch(r"variable(_\d+)?", variable.name) else variable.name
        return Weighted(name, "weight", source, self.trace.inputs[:1], (self.stand_ins[stand_in],))

    def _generic(self, node: Any, derived: set[int]) -> Weighted:
        """The node, with what computes its held tensors before it, as one WithWeights."""
        held = [t for t in node.arguments.keras_tensors if id(t) in derived]
        before = list(nodes_in_order(list(self.stand_ins.values()), held))
        reads = tuple({id(t): t for t in node.arguments.keras_tensors if id(t) not in derived}.values())
        used = [t for n in (*before, node) for t in n.arguments.keras_tensors if id(t) in self.variables]
        variables = list({id(t): self.variables[id(t)] for t in used if id(t) not in self.free}.items())
        places = {id(tensor): ["input", index] for index, tensor in enumerate(reads)}
        places |= {stand_in: ["weight", index] for index, (stand_in, _) in enumerate(variables)}
        steps = []
        for number, step in enumerate((*before, node)):
            steps.append(_step(step, places))
            places |= {id(tensor): ["step", number] for tensor in step.outputs}
        name = snake_case(type(node.operation).__name__)
        kind = kind_of(type(node.operation).__name__, {}, len(reads))
        config = {"steps": steps, "variables": [described(v) for _, v in variables], "kind": kind}
        values = tuple(variable for _, variable in variables)
        source = self._source(WithWeights, config, values, values, repr(steps))
        return Weighted(name, kind, source, reads, tuple(node.outputs))

    def _stock(self, node: Any, derived: set[int]) -> Weighted | None:
        """The stock layer that computes an operation with a kernel, and its bias; None where there is none."""
        make = _KERNEL_OPS.get(type(node.operation).__name__)
        kernel = self._kernel(node, derived)
        if make is None or kernel is None:
            return None
        x, variable, values, swapped = kernel
        made = make(node, x, values, swapped)
        if made is None:
            return None
        cls, config = made
        bias = self._bias(node, derived, variable, cls)
        results, weights = tuple(node.outputs), [values]
        if bias is not None:
            added, number = bias
            results, weights = tuple(added.outputs), [values, number]
            config |= _bias_config(cls, config, tuple(number.shape))
            config |= {"bias_regularizer": number.regularizer, "bias_constraint": number.constraint}
        config |= {"kernel_regularizer": variable.regularizer, "kernel_constraint": variable.constraint}
        if "Depthwise" in cls.__name__:
            config = {_DEPTHWISE.get(key, key): value for key, value in config.items()}
        config = {**config, "trainable": bool(variable.trainable and self.layer.trainable)}
        whole = cls(**config).get_config()
        given = {key: value for key, value in whole.items() if key != "name"}
        held = (variable,) if bias is None else (variable, bias[1])
        source = self._source(cls, given, tuple(weights), held, "kernel")
        name = snake_case(type(node.operation).__name__)
        return Weighted(name, snake_case(cls.__name__), source, (x,), results)

    def _kernel(self, node: Any, derived: set[int]) -> tuple[Any, Any, Any, bool] | None:
        """The tensor, the variable, the kernel's values, and whether the kernel is the first operand."""
        tensors = node.arguments.keras_tensors
        if len(tensors) != 2 or sum(id(t) in derived for t in tensors) != 1:
            return None
        swapped = id(tensors[0]) in derived
        kernel, x = tensors if swapped else tensors[::-1]
        before = list(nodes_in_order(list(self.stand_ins.values()), kernel))
        source = [id(t) for t in (kernel, *(t for n in before for t in n.arguments.keras_tensors))]
        found = {id(self.variables[t]): self.variables[t] for t in source if t in self.variables}
        if len(found) != 1 or any(type(n.operation).__name__ not in _LAYOUT for n in before):
            return None
        variable = next(iter(found.values()))
        return x, variable, self._computed(kernel, before, variable), swapped

    def _computed(self, kernel: Any, before: list[Any], variable: Any) -> Any:
        if not before:
            return variable
        values = {stand_in: variable.value for stand_in, known in self.variables.items() if known is variable}
        for node in before:
            args, kwargs = tree.map_structure(
                lambda leaf: values[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf,
                (node.arguments.args, node.arguments.kwargs),
            )
            values[id(node.outputs[0])] = node.operation(*args, **kwargs)
        return np.asarray(ops.convert_to_numpy(ops.cast(values[id(kernel)], variable.dtype)))

    def _bias(self, node: Any, derived: set[int], kernel: Any, cls: type) -> tuple[Any, Any] | None:
        """The addition right behind, and the variable that it adds."""
        output = node.outputs[0]
        readers = self.readers.get(id(output), [])
        if len(readers) != 1 or id(output) in self.results or type(readers[0].operation).__name__ != "Add":
            return None
        others = [t for t in readers[0].arguments.keras_tensors if t is not output]
        if len(others) != 1 or id(others[0]) not in derived or id(others[0]) not in self.variables:
            return None
        bias = self.variables[id(others[0])]
        fits = tuple(bias.shape) == tuple(output.shape)[len(output.shape) - len(bias.shape) :]
        one_axis = len(bias.shape) == 1 or cls is layers.EinsumDense
        return (readers[0], bias) if fits and one_axis and bias.trainable == kernel.trainable else None

    def _source(self, cls: type, config: Mapping[str, Any], values: tuple[Any, ...], held: Any, what: str) -> Source:
        own = {"dtype": self.layer.dtype_policy.name, "trainable": self.layer.trainable}
        # Calls of one layer share what holds the same variables in the same way.
        return Source(cls, own | dict(config), values, (tuple(map(id, held)), cls, what))


_DEPTHWISE = {"kernel_regularizer": "depthwise_regularizer", "kernel_constraint": "depthwise_constraint"}


def _step(node: Any, places: Mapping[int, Any]) -> dict[str, Any]:
    """One call as WithWeights keeps it."""

    def place(leaf: Any) -> Any:
        if isinstance(leaf, keras.KerasTensor):
            return {"tensor": places[id(leaf)]}
        return ops.convert_to_numpy(leaf) if ops.is_tensor(leaf) else leaf

    args, kwargs = tree.map_structure(place, (list(node.arguments.args), dict(node.arguments.kwargs)))
    serialize = keras.saving.serialize_keras_object
    operation = serialize(node.operation)
    # Not the number of Keras' counter: another call of the layer must say the same.
    operation["config"]["name"] = snake_case(type(node.operation).__name__)
    return {"operation": operation, "args": serialize(args), "kwargs": serialize(kwargs)}


def _dense(node: Any, x: Any, kernel: Any, swapped: bool) -> tuple[type, dict[str, Any]] | None:
    if swapped or len(kernel.shape) != 2 or len(x.shape) < 2:
        return None
    return layers.Dense, {"units": int(kernel.shape[-1]), "use_bias": False}


def _tensordot(node: Any, x: Any, kernel: Any, swapped: bool) -> tuple[type, dict[str, Any]] | None:
    axes = node.operation.axes
    if swapped:
        return None
    if isinstance(axes, int):
        axes = (list(range(-axes, 0)), list(range(axes)))
    mine, its = ([a] if isinstance(a, int) else list(a) for a in axes)
    rank, letters = len(x.shape), "abcdefghijklmnopqrstuvwxyz"
    mine, its = [a % rank for a in mine], [a % len(kernel.shape) for a in its]
    given, theirs = letters[:rank], list(letters[rank : rank + len(kernel.shape)])
    for a, b in zip(mine, its, strict=True):
        theirs[b] = given[a]
    output = [c for i, c in enumerate(given) if i not in mine] + [c for i, c in enumerate(theirs) if i not in its]
    return _einsum_dense(f"{given},{''.join(theirs)}->{''.join(output)}", node)


def _einsum(node: Any, x: Any, kernel: Any, swapped: bool) -> tuple[type, dict[str, Any]] | None:
    operands, _, output = node.operation.subscripts.replace(" ", "").partition("->")
    terms = operands.split(",")
    if len(terms) != 2 or not output or "..." in operands:
        return None
    return _einsum_dense(f"{','.join(reversed(terms) if swapped else terms)}->{output}", node)


def _einsum_dense(equation: str, node: Any) -> tuple[type, dict[str, Any]] | None:
    given, output = equation.split(",")[0], equation.split("->")[1]
    if not output or given[0] != output[0]:
        return None
    return layers.EinsumDense, {"equation": equation, "output_shape": tuple(node.outputs[0].shape[1:])}


def _bias_config(cls: type, config: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    if cls is not layers.EinsumDense:
        return {"use_bias": True}
    return {"bias_axes": config["equation"].split("->")[1][-len(shape) :]}


def _conv_options(node: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(node.operation, name) for name in names}


def _conv(node: Any, x: Any, kernel: Any, swapped: bool) -> tuple[type, dict[str, Any]] | None:
    options = _conv_options(node, "strides", "padding", "data_format", "dilation_rate")
    dims = len(kernel.shape) - 2
    if swapped or (options["padding"] == "causal" and dims != 1):
        return None
    channels = x.shape[1] if options["data_format"] == "channels_first" else x.shape[-1]
    shape = {"filters": int(kernel.shape[-1]), "kernel_size": tuple(kernel.shape[:dims])}
    cls = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[dims]
    return cls, {**shape, **options, "groups": channels // kernel.shape[-2], "use_bias": False}


def _depthwise(node: Any, x: Any, kernel: Any, swapped: bool) -> tuple[type, dict[str, Any]] | None:
    dims = len(kernel.shape) - 2
    if swapped:
        return None
    options = _conv_options(node, "strides", "padding", "data_format", "dilation_rate")
    shape = {"kernel_size": tuple(kernel.shape[:dims]), "depth_multiplier": int(kernel.shape[-1])}
    return {1: layers.DepthwiseConv1D, 2: layers.DepthwiseConv2D}[dims], {**shape, **options, "use_bias": False}


def _conv_transpose(node: Any, x: Any, kernel: Any, swapped: bool) -> tuple[type, dict[str, Any]] | None:
    dims = len(kernel.shape) - 2
    if swapped:
        return None
    options = _conv_options(node, "strides", "padding", "output_padding", "data_format", "dilation_rate")
    shape = {"filters": int(kernel.shape[-2]), "kernel_size": tuple(kernel.shape[:dims])}
    cls = {1: layers.Conv1DTranspose, 2: layers.Conv2DTranspose, 3: layers.Conv3DTranspose}[dims]
    return cls, {**shape, **options, "use_bias": False}


_Make = Callable[[Any, Any, Any, bool], "tuple[type, dict[str, Any]] | None"]
# Class of an operation -> the stock layer that computes it with a kernel.
_KERNEL_OPS: Mapping[str, _Make] = {
    "Matmul": _dense,
    "Dot": _dense,
    "Tensordot": _tensordot,
    "Einsum": _einsum,
    "Conv": _conv,
    "DepthwiseConv": _depthwise,
    "ConvTranspose": _conv_transpose,
}
