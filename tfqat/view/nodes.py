"""Nodes: the calls between symbolic tensors, as Keras notes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras import tree

from tfqat.view.trace_error import TraceError


def nodes_in_order(inputs: Any, outputs: Any) -> Iterator[Any]:
    """The nodes between some tensors and others, producers first, each branch as deep as it goes; no recursion.

    A node that its own result leads to (keras.ops.cond gives out what a branch gave it) is met once.
    """
    entry = {id(tensor) for tensor in tree.flatten(inputs)}
    done: set[Any] = set()
    begun: set[Any] = set()
    for output in tree.flatten(outputs):
        stack = [] if id(output) in entry else [(node_of(output), False)]
        while stack:
            node, ready = stack.pop()
            if node in done or node.is_input:
                continue
            if ready:
                done.add(node)
                yield node
                continue
            if node in begun:
                continue
            begun.add(node)
            stack.append((node, True))
            parents = [node_of(t) for t in node.arguments.keras_tensors if id(t) not in entry]
            stack.extend((parent, False) for parent in reversed(parents))


def node_of(tensor: keras.KerasTensor) -> Any:
    """The call that computed a symbolic tensor."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        raise TraceError(f"its call() reads a symbolic tensor of shape {tuple(tensor.shape)} that it was not given")
    return history.operation._inbound_nodes[history.node_index]
