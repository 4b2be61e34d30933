"""Carried masks: what Keras hangs on tensors beside the graph, followed from the layers that make them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import tree

from tfqat.view.scope import Scope
from tfqat.view.stand_ins import mask_places

# Id of a symbolic tensor -> its name in the graph, or the mask that it is.
Names = dict[int, Any]


@dataclass(frozen=True, eq=False)
class CarriedMask:
    """A mask that travels with a tensor: computed in the graph only where an op reads it.

    Attributes:
        tensor: the symbolic mask.
        names: the names of the tensors that it is computed from.
        scope: where that is.
    """

    tensor: Any
    names: Names
    scope: Scope


class CarriedMasks:
    """The masks of a viewing, by the name of the tensor with which they travel."""

    def __init__(self) -> None:
        self._masks: dict[str, CarriedMask] = {}
        self._alive: list[Any] = []  # stand-ins are told apart by id

    def of(self, tensor: Any, names: Names) -> Any:
        """A symbolic tensor for the mask that travels with another, None where there is none."""
        mask = self._masks.get(names.get(id(tensor), "")) if isinstance(tensor, keras.KerasTensor) else None
        if mask is None:
            return None
        stand_in = keras.KerasTensor(mask.tensor.shape, "bool")
        self._alive.append(stand_in)
        names[id(stand_in)] = mask
        return stand_in

    def arguments(self, layer: Any, args: Any, kwargs: dict[str, Any], names: Names) -> dict[str, Any]:
        """The mask arguments that Keras fills in from the masks that travel with tensors."""
        if not self._masks or not isinstance(layer, keras.layers.Layer):
            return {}
        places = mask_places(layer, layer._call_signature.bind(*args, **kwargs).arguments)
        masks = {place: self._nest_of(nest, names) for place, nest in places.items()}
        return {place: mask for place, mask in masks.items() if any(leaf is not None for leaf in tree.flatten(mask))}

    def follow(self, node: Any, results: list[str], names: Names, scope: Scope) -> None:
        """Gives a call's results the masks that its layer passes on, as Keras does."""
        layer = node.operation
        masks = self._passed_on(node, names) if layer.supports_masking else []
        if isinstance(layer, keras.layers.MultiHeadAttention):
            # It takes the masks off what it reads, so that no layer behind it sees them.
            for tensor in node.arguments.keras_tensors:
                self._masks.pop(names.get(id(tensor), ""), None)
        inside = replace(scope, prefix=scope.path_of(layer))
        for result, mask in zip(results, masks, strict=False):
            if isinstance(mask, keras.KerasTensor) and result not in self._masks:
                known = names.get(id(mask))
                self._masks[result] = known if isinstance(known, CarriedMask) else CarriedMask(mask, names, inside)

    def _passed_on(self, node: Any, names: Names) -> list[Any]:
        """The masks that a layer computes for its results, as symbolic tensors."""
        args, kwargs = node.arguments.args, node.arguments.kwargs
        first = args[0] if args else next(iter(kwargs.values()))
        given = kwargs.get("mask")
        previous = given if given is not None else self._nest_of(first, names)
        compute = node.operation.compute_mask
        if getattr(compute, "_is_default", False) and all(leaf is None for leaf in tree.flatten(previous)):
            return []
        return tree.flatten(compute(first, previous))

    def _nest_of(self, nest: Any, names: Names) -> Any:
        return tree.map_structure(lambda leaf: self.of(leaf, names), nest)
