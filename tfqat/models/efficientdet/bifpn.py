"""BiFPN: feature maps of five levels mixed, from coarse to fine and back (arXiv 1911.09070, figure 2d)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import layers

from tfqat.models.efficientdet.fusion import WeightedSum

LEVELS = (3, 4, 5, 6, 7)
Merge = Callable[..., Any]


def made_levels(maps: Sequence[Any], width: int) -> list[Any]:
    """Levels 3 to 7 of the backbone's levels 3 to 5: 6 and 7 are each half of the one before."""
    level6 = _halved(_projected(maps[-1], width, "level6"), "level6_pool")
    return [*maps, level6, _halved(level6, "level7_pool")]


def bifpn(maps: Sequence[Any], width: int, weighted: bool, activation: str, name: str) -> list[Any]:
    """One BiFPN over levels 3 to 7: maps of any channels -> maps of ``width`` channels.

    A node is ``convolution(activation(fusion(its maps)))``. A map that has not ``width`` channels gets a projection of
    its own for each node that reads it.
    """
    node = _Node(width, weighted, activation, name)
    down = {LEVELS[-1]: maps[-1]}
    given = dict(zip(LEVELS, maps, strict=True))
    for level in LEVELS[-2:0:-1]:
        down[level] = node(f"down{level}", [given[level]], _doubled, down[level + 1])
    first, last = LEVELS[0], LEVELS[-1]
    up = {first: node(f"up{first}", [given[first]], _doubled, down[first + 1])}
    for level in LEVELS[1:-1]:
        up[level] = node(f"up{level}", [given[level], down[level]], _halved, up[level - 1])
    up[last] = node(f"up{last}", [given[last]], _halved, up[last - 1])
    return [up[level] for level in LEVELS]


class _Node:
    """Makes the nodes of one BiFPN."""

    def __init__(self, width: int, weighted: bool, activation: str, name: str) -> None:
        self.width, self.weighted, self.activation, self.name = width, weighted, activation, name

    def __call__(self, name: str, maps: Sequence[Any], resized: Merge, neighbour: Any) -> Any:
        name = f"{self.name}_{name}"
        tensors = [self._projected(tensor, f"{name}_in{number}") for number, tensor in enumerate(maps)]
        tensors.append(resized(neighbour, f"{name}_{'double' if resized is _doubled else 'pool'}"))
        x = (WeightedSum if self.weighted else layers.Add)(name=f"{name}_fusion")(tensors)
        x = layers.Activation(self.activation, name=f"{name}_act")(x)
        x = layers.SeparableConv2D(self.width, 3, padding="same", name=f"{name}_conv")(x)
        return layers.BatchNormalization(name=f"{name}_bn")(x)

    def _projected(self, tensor: Any, name: str) -> Any:
        return tensor if tensor.shape[-1] == self.width else _projected(tensor, self.width, name)


def _projected(x: Any, width: int, name: str) -> Any:
    return layers.BatchNormalization(name=f"{name}_bn")(layers.Conv2D(width, 1, name=f"{name}_conv")(x))


def _halved(x: Any, name: str) -> Any:
    return layers.MaxPooling2D(3, 2, padding="same", name=name)(x)


def _doubled(x: Any, name: str) -> Any:
    return layers.UpSampling2D(2, name=name)(x)
