"""Weights of a Keras 2 model, set in the Keras 3 model made of its config.

Keras 2 lists the weights of a layer trainable ones first, also over all layers of a model inside the model; what is
frozen counts as not trainable. Weights are matched by that order where shapes and names agree with it, else by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from tfqat.errors import TfqatError
from tfqat.models.keras2.model import Keras2Model, Weights

# Kept by Keras 2 and not by Keras 3: how many values a Normalization has seen, the state of random layers, what
# SpectralNormalization recomputes.
_NOT_NEEDED = frozenset({"count", "StateVar", "Variable", "sn_sigma"})


@dataclass(frozen=True, eq=False)
class Node:
    """A layer made of one entry of a config, by its name there; ``parts`` are those of a model, in the config's order.

    ``layer`` is None for an entry that has become a function.
    """

    name: str
    layer: Any
    parts: tuple[Node, ...] = ()


def set_weights(node: Node, path: tuple[str, ...], kept: Keras2Model) -> None:
    """Sets the weights of ``node`` and its parts.

    Raises:
        TfqatError: weights that are missing, too many, or of another shape; the message names the layer.
    """
    found = kept.weights.get(path)
    if node.parts and found is None:
        for part in node.parts:
            set_weights(part, (*path, part.name), kept)
        return
    variables = _once([variable for group in _legacy(node) for variable in group])
    assign(variables, found or (), "/".join(path), kept.source)
    for layer in _layers(node):
        if isinstance(layer, keras.layers.Normalization) and layer.built:
            layer.finalize_state()


def set_layers(model: keras.Model, found: Mapping[tuple[str, ...], Weights], source: str) -> None:
    """Sets the weights of ``model``'s layers: by name where the names are the same, else in order, as Keras 2 does.

    What is frozen inside a model in the model must be as it was when the weights were saved.

    Raises:
        TfqatError: other layers; weights that are missing, too many, or of another shape.
    """
    nodes = [node for node in map(_node, model.layers) if any(_legacy(node))]
    saved = {path[0]: weights for path, weights in found.items() if any(own not in _NOT_NEEDED for own, _ in weights)}
    if len(nodes) != len(saved):
        raise TfqatError(
            f"{source} is of another architecture: it has weights of the layers {', '.join(saved) or 'none'}; the "
            f"model {model.name!r} has {', '.join(node.name for node in nodes) or 'none'}."
        )
    same = {node.name for node in nodes} == set(saved)
    for node, name in zip(nodes, saved, strict=True):
        weights = saved[node.name if same else name]
        set_weights(node, (node.name,), Keras2Model(source, "Functional", {}, {(node.name,): weights}))


def _node(layer: Any) -> Node:
    return Node(layer.name, layer, tuple(map(_node, layer.layers)) if isinstance(layer, keras.Model) else ())


def check_used(layers: Collection[str], kept: Keras2Model) -> None:
    """Raises TfqatError where there are weights of a layer that the config has not."""
    for path, weights in kept.weights.items():
        if weights and path[0] not in layers:
            raise TfqatError(
                f"{kept.source}: it has weights of the layer {path[0]!r} ({_listed(weights)}), which its config has "
                "not: the two are not of one model. Save the model again."
            )


def assign(variables: list[Any], found: Weights, name: str, source: str) -> None:
    """Assigns weights to Keras 3 variables, in order or by name."""
    matched = _in_order(variables, found) or _by_name(variables, found)
    if matched is None:
        raise TfqatError(
            f"{source}: layer {name!r}: expected the weights {_listed((v.name, v) for v in variables)}; found "
            f"{_listed(found)}."
        )
    for variable, value in zip(variables, matched, strict=True):
        variable.assign(value)


def _in_order(variables: list[Any], found: Weights) -> list[Any] | None:
    names = [variable.name for variable in variables]
    needed = [(own, value) for own, value in found if own in names or own not in _NOT_NEEDED]
    if [tuple(value.shape) for _, value in needed] != [tuple(variable.shape) for variable in variables]:
        return None
    owns = [own for own, _ in needed]
    if sorted(owns) == sorted(names) and owns != names:
        return None
    return [value for _, value in needed]


def _by_name(variables: list[Any], found: Weights) -> list[Any] | None:
    left, matched = list(found), []
    for variable in variables:
        for index, (own, value) in enumerate(left):
            if own in (variable.name, f"depthwise_{variable.name}") and tuple(value.shape) == tuple(variable.shape):
                matched.append(left.pop(index)[1])
                break
    rest = [own for own, _ in left if own not in _NOT_NEEDED]
    return matched if len(matched) == len(variables) and not rest else None


def _legacy(node: Node) -> tuple[list[Any], list[Any]]:
    """The trainable and the other variables, as Keras 2 lists them."""
    if node.layer is None:
        return [], []
    if not node.parts:
        return list(node.layer.trainable_weights), list(node.layer.non_trainable_weights)
    groups = [_legacy(part) for part in node.parts]
    trainable = [variable for group in groups for variable in group[0]]
    others = [variable for group in groups for variable in group[1]]
    return (trainable, others) if node.layer.trainable else ([], trainable + others)


def _layers(node: Node) -> Iterable[Any]:
    if node.parts:
        return [layer for part in node.parts for layer in _layers(part)]
    return [node.layer]


def _once(variables: list[Any]) -> list[Any]:
    return list({id(variable): variable for variable in variables}.values())


def _listed(weights: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in weights) or "none"
