"""Batch: a number that stands for the size of a batch in a trace whose ``call`` reckons with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from tfqat.view.repeat_batch import RepeatBatch
from tfqat.view.trace_error import TraceError

# A prime, so that products with it are known.
BATCH = 1013


def is_batched(tensors: Sequence[Any]) -> bool:
    """Whether BATCH stands for the size of a batch in a trace that reads these tensors."""
    return any(tensor.shape[:1] == (BATCH,) for tensor in tensors)


def without_batch(shape: Sequence[int | None]) -> tuple[int | None, ...]:
    """A shape with None for the sizes that BATCH has a part in."""
    return tuple(None if size and size % BATCH == 0 else size for size in shape)


def check_batch(inputs: Sequence[Any], layer: keras.layers.Layer) -> None:
    """Raises TraceError where a size of the layer's own could be taken for the batch's."""
    own = [size for tensor in inputs for size in tensor.shape[1:]]
    own += [size for variable in layer.variables for size in variable.shape]
    if is_batched(inputs) and any(size and size % BATCH == 0 for size in own):
        raise TraceError(f"its call() reckons with the batch's size, and it has a size that is a multiple of {BATCH}")


def settle(node: Any, like: Any) -> None:
    """Puts right what an operation that was called on symbolic tensors could not do on values."""
    operation = node.operation
    if isinstance(operation, keras.layers.Layer):
        return
    if is_batched([like]):
        node.arguments = _of_one_image(node.arguments)
    if getattr(operation, "data_format", "") is None:
        # Keras sets the default where an operation is called on values, and forgets it here.
        operation.data_format = keras.config.image_data_format()
    what, before, after = type(operation).__name__, node.arguments.keras_tensors[0], node.outputs[0]
    shape = without_batch(after.shape) if is_batched([like]) else after.shape
    if what == "Reshape" and shape[0] is None and before.shape[0] == after.shape[0]:
        # The batch's size, taken from a tensor: the layer keeps the batch whatever its size.
        asked = operation.newshape
        if isinstance(asked, list | tuple) and asked[0] != -1:
            sizes = asked[1:] if -1 in asked[1:] else shape[1:]
            node.operation = keras.layers.Reshape([-1 if s is None else s for s in sizes], name="reshape")
    elif what == "Reshape" and shape.count(None) == 1 and None not in after.shape:
        operation.newshape = tuple(-1 if size is None else size for size in shape)
    elif what in ("Tile", "BroadcastTo", "Repeat") and after.shape[0] == BATCH and before.shape[0] != BATCH:
        node.operation = RepeatBatch(tuple(shape[1:]), name="repeat_batch")
        node.arguments = type(node.arguments)([like, before])


def _of_one_image(arguments: Any) -> Any:
    """A call's arguments with the first row of a constant that repeats it for each image, as some causal masks do."""

    def first(leaf: Any) -> Any:
        if not keras.ops.is_tensor(leaf) or leaf.shape[:1] != (BATCH,):
            return leaf
        rows = keras.ops.convert_to_numpy(leaf)
        return keras.ops.convert_to_tensor(rows[:1]) if (rows == rows[:1]).all() else leaf

    changed = tree.map_structure(first, (arguments.args, arguments.kwargs))
    return type(arguments)(*changed[0], **changed[1])
