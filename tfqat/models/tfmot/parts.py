"""Parts: the ops that each layer has become in the view, where a layer with an activation is more than one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tfqat.graph.graph import Graph, Op
from tfqat.graph.kinds import KERNEL_AXES


class Parts:
    """The ops of each layer: one a call, or several a call where the view splits the layer.

    Args:
        graph: the view.
        layers: name -> Keras layer, or the tensor of an input.
    """

    def __init__(self, graph: Graph, layers: Mapping[str, Any]) -> None:
        names = {id(layer): name for name, layer in layers.items()}
        self._ops: dict[str, dict[str, list[Op]]] = {name: {} for name in layers}
        for op in graph.ops:
            self._ops[names[_root(op.source.key)]].setdefault(op.layer_name, []).append(op)
        self._inputs = {name: layer.name for name, layer in layers.items() if isinstance(layer, keras.KerasTensor)}

    def weighted(self, name: str) -> list[list[Op]]:
        """The weighted parts of a layer in order, each as the ops of its calls."""
        return [calls for calls in self._ops[name].values() if calls[0].kind in KERNEL_AXES]

    def before_activation(self, name: str) -> list[str]:
        """What the last weighted part gives, for each call."""
        return [op.outputs[0] for op in self.weighted(name)[-1]]

    def outputs(self, name: str) -> list[str]:
        """What the layer gives, for each call; an input gives itself."""
        if name in self._inputs:
            return [self._inputs[name]]
        return [op.outputs[0] for op in list(self._ops[name].values())[-1]]


def _root(key: Any) -> Any:
    while isinstance(key, tuple):
        key = key[0]
    return key
