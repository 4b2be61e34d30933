"""Attention: products of two tensors in the form in which hardware runs them, whatever the words of the model.

``dot_product_attention``, an ``einsum`` of two tensors, ``Dot`` and ``tensordot`` become ``matmul`` with permutes and
reshapes around it; an attention is ``scores``, ``scale``, ``bias``, ``mask``, ``softmax`` and ``context`` under its
name. A factor on a tensor that a product reads is moved behind the product, so that the tensor that is quantized is the
one that a projection gives. What is no product keeps its words and stays float for a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod, sqrt
from typing import Any

import keras
import numpy as np

from tfqat.graph.causes import PRODUCT_WITH_CONSTANT
from tfqat.graph.graph import Graph, Op, Ref, Source
from tfqat.graph.kinds import IDENTITY
from tfqat.graph.operation import class_of
from tfqat.view.causal_mask import MASKED, CausalMask
from tfqat.view.product import Product, Shape, equation_of_dot, equation_of_tensordot, product_of

# A factor passes these on its way behind a product.
_LAYOUT = IDENTITY | frozenset("reshape permute transpose swapaxes moveaxis expand_dims squeeze repeat".split())
_FACTORS = frozenset({"multiply_constant", "divide_constant"})


def with_products(graph: Graph) -> Graph:
    """The graph with each product of two tensors as ``matmul``, and factors behind it."""
    return _added_masks(_factors_behind(_split(graph)))


class _Pieces:
    """The ops that stand in for one, in order, and the shapes of what they give."""

    def __init__(self, whole: Op, shapes: Mapping[str, Shape]) -> None:
        self.whole, self.ops = whole, list[Op]()
        self.shapes = dict(shapes)
        self.masks = set[str]()  # what is no float

    def layer(self, word: str, cls: Any, config: Mapping[str, Any], tensor: str, shape: Shape, kind: str) -> str:
        """A layer on one tensor; the name of what it gives."""
        own = {key: self.whole.source.config[key] for key in ("dtype",) if key in self.whole.source.config}
        return self.add(word, kind, cls, {**own, **config}, (tensor,), (Ref(0),), shape)

    def operation(self, word: str, function: str, kind: str, tensors: tuple[str, ...], args: Any, shape: Shape) -> str:
        """A function of ``keras.ops`` on tensors; the name of what it gives."""
        return self.add(word, kind, class_of(function), {}, tensors, args, shape)

    def add(
        self, word: str, kind: str, cls: Any, config: Any, tensors: tuple[str, ...], args: tuple[Any, ...], shape: Shape
    ) -> str:
        name = f"{self.whole.name}/{word}"
        source = Source(cls, config, (), (self.whole.source.key, self.whole.name, word))
        self.ops.append(Op(name, name, kind, tensors, (name,), source, args))
        self.shapes[name] = shape
        return name

    def permuted(self, word: str, tensor: str, order: Sequence[int]) -> str:
        """The tensor with its axes in another order, the first one apart."""
        if list(order) == sorted(order):
            return tensor
        shape = tuple(self.shapes[tensor][axis] for axis in order)
        return self.layer(word, keras.layers.Permute, {"dims": list(order[1:])}, tensor, shape, "permute")

    def reshaped(self, word: str, tensor: str, shape: Shape) -> str:
        if self.shapes[tensor] == shape:
            return tensor
        target = [-1 if size is None else size for size in shape[1:]]
        return self.layer(word, keras.layers.Reshape, {"target_shape": target}, tensor, shape, "reshape")

    def product(self, word: str, left: str, right: str) -> str:
        rows, columns = self.shapes[left], self.shapes[right]
        shape = (*_broadcast(rows[:-2], columns[:-2]), rows[-2], columns[-1])
        return self.operation(word, "matmul", "matmul", (left, right), (Ref(0), Ref(1)), shape)

    def finished(self) -> list[Op]:
        """The ops; the last one gives the tensor that the whole gave."""
        last = replace(self.ops[-1], name=self.whole.name, layer_name=self.whole.layer_name, outputs=self.whole.outputs)
        self.shapes[last.name] = self.shapes.pop(self.ops[-1].name)
        return [*self.ops[:-1], last]


def _broadcast(left: Shape, right: Shape) -> Shape:
    width = max(len(left), len(right))
    pairs = zip((1,) * (width - len(left)) + left, (1,) * (width - len(right)) + right, strict=True)
    return tuple(b if a == 1 else a for a, b in pairs)


def _split(graph: Graph) -> Graph:
    ops: list[Op] = []
    shapes, dtypes = dict(graph.shapes), dict(graph.dtypes)
    for op in graph.ops:
        split = _SPLITS.get(op.kind) if not op.reason else None
        pieces = split(op, shapes) if split else None
        if isinstance(pieces, str):
            ops.append(replace(op, reason=pieces))
        elif pieces is None or "float" not in dtypes[op.outputs[0]]:
            ops.append(op)
        else:
            ops.extend(pieces.finished())
            shapes.update(pieces.shapes)
            dtypes |= {tensor: dtypes[op.outputs[0]] for piece in pieces.ops for tensor in piece.outputs}
            dtypes |= dict.fromkeys(pieces.masks, "bool")
    return replace(graph, ops=tuple(ops), shapes=shapes, dtypes=dtypes)


def _matmul(op: Op, shapes: Mapping[str, Shape]) -> str | None:
    return PRODUCT_WITH_CONSTANT if len(op.inputs) == 1 else None


def _einsum(op: Op, shapes: Mapping[str, Shape]) -> _Pieces | str | None:
    if len(op.inputs) != 2 or op.args != (Ref(0), Ref(1)):
        return PRODUCT_WITH_CONSTANT if len(op.inputs) == 1 else "an einsum of other than two tensors"
    found = product_of(op.source.config["subscripts"], *(shapes[tensor] for tensor in op.inputs))
    return found if isinstance(found, str) else _multiplied(_Pieces(op, shapes), found, *op.inputs)


def _tensordot(op: Op, shapes: Mapping[str, Shape]) -> _Pieces | str | None:
    if len(op.inputs) != 2:
        return PRODUCT_WITH_CONSTANT
    given = [shapes[tensor] for tensor in op.inputs]
    found = product_of(equation_of_tensordot(op.source.built.axes, *given), *given)
    return found if isinstance(found, str) else _multiplied(_Pieces(op, shapes), found, *op.inputs)


def _dot(op: Op, shapes: Mapping[str, Shape]) -> _Pieces | str | None:
    given = [shapes[tensor] for tensor in op.inputs]
    if not issubclass(op.source.cls, keras.layers.Layer):
        return _dot_operation(op, shapes)
    axes = op.source.config["axes"]
    first, second = (axes, axes) if isinstance(axes, int) else axes
    found = product_of(equation_of_dot((first % len(given[0]), second % len(given[1])), *given), *given)
    if isinstance(found, str):
        return found
    pieces, (left, right) = _Pieces(op, shapes), op.inputs
    if op.source.config["normalize"]:
        left, right = _normalized(pieces, "left", left, first), _normalized(pieces, "right", right, second)
    return _multiplied(pieces, found, left, right)


def _normalized(pieces: _Pieces, side: str, tensor: str, axis: int) -> str:
    shape = pieces.shapes[tensor]
    config = {"axis": axis % len(shape), "order": 2}
    return pieces.add(f"{side}_norm", "normalize", class_of("normalize"), config, (tensor,), (Ref(0),), shape)


def _dot_operation(op: Op, shapes: Mapping[str, Shape]) -> _Pieces | str:
    if op.args != (Ref(0), Ref(1)) or not all(len(shapes[tensor]) == 2 for tensor in op.inputs):
        return "a dot of other than two matrices: its batch is not that of one of its inputs"
    pieces = _Pieces(op, shapes)
    pieces.product("product", *op.inputs)
    return pieces


def _multiplied(pieces: _Pieces, found: Product, left: str, right: str) -> _Pieces:
    """The product of two tensors, and what brings them, and it, into shape."""
    if found.batch + found.rows + found.columns != found.output == found.batch + found.columns + found.rows:
        found, left, right = found.turned, right, left
    read = []
    for word, (tensor, letters, *groups) in {
        "left": (left, found.left, found.rows, found.summed),
        "right": (right, found.right, found.summed, found.columns),
    }.items():
        order = [letters.index(letter) for letter in found.batch + "".join(groups)]
        tensor = pieces.permuted(word, tensor, order)
        shape = (*found.shape(found.batch), *(found.merged(group) for group in groups))
        read.append(pieces.reshaped(f"{word}_merged", tensor, shape))
    result = pieces.product("product", *read)
    made = found.batch + found.rows + found.columns
    if made == found.output:
        pieces.reshaped("parted", result, pieces.shapes[pieces.whole.outputs[0]])
        return pieces
    result = pieces.reshaped("parted", result, found.shape(made))
    pieces.permuted("arranged", result, [made.index(letter) for letter in found.output])
    return pieces


def _attention(op: Op, shapes: Mapping[str, Shape]) -> _Pieces | str | None:
    given = dict(zip(("query", "key", "value", "bias", "mask", "scale"), op.args, strict=False)) | dict(op.kwargs)
    if not all(isinstance(given[name], Ref) for name in ("query", "key", "value")):
        return "an attention whose query, key or value is a constant"
    if op.source.config.get("attn_logits_soft_cap") is not None:
        return "attn_logits_soft_cap is for JAX on TPUs alone"
    pieces = _Pieces(op, shapes)
    tensors = {name: op.inputs[ref.index] for name, ref in given.items() if isinstance(ref, Ref)}
    query = pieces.permuted("query", tensors["query"], (0, 2, 1, 3))
    heads = shapes[tensors["query"]][2]
    key = pieces.permuted("key", _repeated(pieces, "key", tensors["key"], heads), (0, 2, 3, 1))
    value = pieces.permuted("value", _repeated(pieces, "value", tensors["value"], heads), (0, 2, 1, 3))
    scores = pieces.product("scores", query, key)
    shape = pieces.shapes[scores]
    scale = given.get("scale")
    scale = 1 / sqrt(shapes[tensors["query"]][3] or 1) if scale is None else _number(scale)
    if scale is None:
        return "an attention whose scale is no number"
    scores = pieces.operation("scale", "multiply", "multiply_constant", (scores,), (Ref(0), scale), shape)
    if given.get("bias") is not None:
        scores = _biased(pieces, scores, given["bias"], tensors.get("bias"))
    if given.get("mask") is not None:
        scores = _masked(pieces, scores, given["mask"], tensors.get("mask"))
    if op.source.config["is_causal"]:
        scores = pieces.layer("causal_mask", CausalMask, {}, scores, shape, "causal_mask")
    weights = pieces.layer("softmax", keras.layers.Activation, {"activation": "softmax"}, scores, shape, "softmax")
    pieces.permuted("arranged", pieces.product("context", weights, value), (0, 2, 1, 3))
    return pieces


def _repeated(pieces: _Pieces, word: str, tensor: str, heads: int | None) -> str:
    """Keys or values with each head as often as the queries have more of them; one head alone goes with all."""
    shape = pieces.shapes[tensor]
    if heads is None or shape[2] in (None, 1, heads):
        return tensor
    config = {"repeats": heads // (shape[2] or 1), "axis": 2}
    wider = (*shape[:2], heads, shape[3])
    operation = type(keras.ops.repeat(keras.KerasTensor((2, 2)), 2, axis=0)._keras_history.operation)
    return pieces.add(f"{word}_heads", "repeat", operation, config, (tensor,), (Ref(0),), wider)


def _biased(pieces: _Pieces, scores: str, constant: Any, tensor: str | None) -> str:
    shape = pieces.shapes[scores]
    if tensor is None:
        return pieces.operation("bias", "add", "add_constant", (scores,), (Ref(0), constant), shape)
    return pieces.operation("bias", "add", "add", (scores, tensor), (Ref(0), Ref(1)), shape)


def _masked(pieces: _Pieces, scores: str, constant: Any, tensor: str | None) -> str:
    shape = pieces.shapes[scores]
    if tensor is None:
        return pieces.operation("mask", "where", "where", (scores,), (constant, Ref(0), MASKED), shape)
    return pieces.operation("mask", "where", "where", (tensor, scores), (Ref(0), Ref(1), MASKED), shape)


def _softmax(op: Op, shapes: Mapping[str, Shape]) -> _Pieces | None:
    """A softmax over several axes, which no device has, as one over those axes merged."""
    shape = shapes[op.inputs[0]]
    axes = _axes(op.source.config.get("axis", -1), len(shape))
    kept = shape[: len(shape) - len(axes)]
    if len(axes) < 2 or axes != tuple(range(len(kept), len(shape))) or None in shape[len(kept) :]:
        return None
    if any(shapes[tensor][len(kept) :] != shape[len(kept) :] for tensor in op.inputs) or kept[1:].count(None) > 1:
        return None
    pieces, merged = _Pieces(op, shapes), prod(size or 1 for size in shape[len(kept) :])
    reads = []
    for word, tensor in zip(("merged", "mask_merged"), op.inputs, strict=False):
        reads.append(pieces.reshaped(word, tensor, (*shapes[tensor][: len(kept)], merged)))
    pieces.masks.update(reads[1:])
    args = tuple(Ref(index) for index in range(len(reads)))
    own = {"axis": -1, "dtype": op.source.config.get("dtype", "float32")}
    weights = pieces.add("weights", op.kind, keras.layers.Softmax, own, tuple(reads), args, (*kept, merged))
    pieces.reshaped("parted", weights, shape)
    return pieces


def _axes(axes: Any, rank: int) -> tuple[int, ...]:
    return tuple(sorted(axis % rank for axis in ([axes] if isinstance(axes, int) else axes)))


_SPLITS: Mapping[str, Callable[[Op, Mapping[str, Shape]], _Pieces | str | None]] = {
    "dot_product_attention": _attention,
    "matmul": _matmul,
    "einsum": _einsum,
    "tensordot": _tensordot,
    "dot": _dot,
    "softmax": _softmax,
    "masked_softmax": _softmax,
}


def _factors_behind(graph: Graph) -> Graph:
    """The graph with each factor that only a product reads moved behind the product."""
    moved: dict[str, list[Op]] = {}  # product -> the factors on what it reads
    for op in graph.ops:
        if op.kind == "matmul" and len(op.inputs) == 2 and not op.reason:
            found = [factor for tensor in dict.fromkeys(op.inputs) if (factor := _factor_of(graph, tensor, op))]
            if found and op.inputs[0] != op.inputs[1]:
                moved[op.name] = found
    return _moved(graph, moved) if moved else graph


def _factor_of(graph: Graph, tensor: str, reader: Op) -> Op | None:
    """The op by which a tensor that ``reader`` alone reads has been multiplied with one number."""
    while (op := graph.producer(tensor)) is not None and graph.sole_consumer(tensor) is reader:
        if op.kind in _FACTORS:
            return op if _factor(op) is not None else None
        if op.kind not in _LAYOUT or len(op.inputs) != 1 or len(op.outputs) != 1:
            return None
        tensor, reader = op.inputs[0], op
    return None


def _factor(op: Op) -> float | None:
    """The number that the op multiplies by; None where it is none, or divides by the tensor."""
    values = [value for value in (*op.args, *op.kwargs.values()) if not isinstance(value, Ref)]
    number = _number(values[0]) if len(values) == 1 else None
    if op.kind == "multiply_constant" or number is None:
        return number
    return 1 / number if number and op.args[:1] == (Ref(0),) else None


def _number(value: Any) -> float | None:
    """A single number, of whatever type; else None."""
    if isinstance(value, Ref | str):
        return None
    array = np.asarray(keras.ops.convert_to_numpy(value))
    return float(array.reshape(())) if array.size == 1 and array.dtype.kind in "fiu" else None


def _moved(graph: Graph, moved: Mapping[str, list[Op]]) -> Graph:
    gone = {factor.name for factors in moved.values() for factor in factors}
    alias: dict[str, str] = {}
    shapes, ops = dict(graph.shapes), []
    for op in graph.ops:
        if op.name in gone:
            alias[op.outputs[0]] = alias.get(op.inputs[0], op.inputs[0])
            continue
        ops.append(replace(op, inputs=tuple(alias.get(tensor, tensor) for tensor in op.inputs)))
        if op.name in moved:
            factors = moved[op.name]
            ops.append(_scaling(factors, op.outputs[0]))
            shapes[factors[0].outputs[0]] = shapes[op.outputs[0]]
            alias[op.outputs[0]] = factors[0].outputs[0]
    outputs = tuple(alias.get(tensor, tensor) for tensor in graph.outputs)
    return replace(graph, ops=tuple(ops), shapes=shapes, outputs=outputs)


def _scaling(factors: Sequence[Op], tensor: str) -> Op:
    """The product of the factors as one op behind ``tensor``, under the name of the first."""
    number = prod(_factor(op) or 1.0 for op in factors)
    source = Source(class_of("multiply"), {}, (), (factors[0].source.key, factors[0].name, "behind"))
    return replace(
        factors[0], kind="multiply_constant", inputs=(tensor,), source=source, args=(Ref(0), number), kwargs={}
    )


def _added_masks(graph: Graph) -> Graph:
    """The graph with each ``where(mask, x - c, x)``, as Keras' Attention masks its scores, as ``x + mask * -c``."""
    ops: list[Op] = []
    shapes, dtypes, gone = dict(graph.shapes), dict(graph.dtypes), set[str]()
    for op in graph.ops:
        shift = _shift_of(graph, op)
        if shift is None:
            ops.append(op)
            continue
        gone.add(shift.name)
        pieces = _added_mask(op, shapes, -(_number(_constant(shift)) or 0.0))
        shapes.update(pieces.shapes)
        dtypes |= {piece.name: dtypes[op.outputs[0]] for piece in pieces.ops}
        ops.extend(pieces.finished())
    return replace(graph, ops=tuple(op for op in ops if op.name not in gone), shapes=shapes, dtypes=dtypes)


def _shift_of(graph: Graph, op: Op) -> Op | None:
    """The ``x - c`` of a ``where(mask, x - c, x)``; None where the op is none."""
    if op.kind != "where" or len(op.args) != 3 or not all(isinstance(arg, Ref) for arg in op.args[1:]):
        return None
    shifted, scores = (op.inputs[arg.index] for arg in op.args[1:])
    shift = graph.producer(shifted)
    if shift is None or shift.kind != "subtract_constant" or shift.args[:1] != (Ref(0),):
        return None
    lone = graph.sole_consumer(shifted) is op and shift.inputs == (scores,) and "float" in graph.dtypes[scores]
    return shift if lone and _number(_constant(shift)) is not None else None


def _constant(op: Op) -> Any:
    return next((value for value in (*op.args, *op.kwargs.values()) if not isinstance(value, Ref)), "")


def _added_mask(op: Op, shapes: Mapping[str, Shape], penalty: float) -> _Pieces:
    pieces, mask, scores = _Pieces(op, shapes), op.args[0], op.inputs[op.args[2].index]
    shape = shapes[op.outputs[0]]
    if not isinstance(mask, Ref):
        numbers = np.asarray(keras.ops.convert_to_numpy(mask), np.float32) * penalty
        pieces.operation("added", "add", "add_constant", (scores,), (Ref(0), numbers), shape)
        return pieces
    tensor = op.inputs[mask.index]
    cast = type(keras.ops.cast(keras.KerasTensor((2, 2)), "float32")._keras_history.operation)
    number = pieces.add("cast", "cast", cast, {"dtype": "float32"}, (tensor,), (Ref(0),), shapes[tensor])
    factor = (Ref(0), penalty)
    number = pieces.operation("penalty", "multiply", "multiply_constant", (number,), factor, shapes[tensor])
    pieces.operation("added", "add", "add", (scores, number), (Ref(0), Ref(1)), shape)
    return pieces
