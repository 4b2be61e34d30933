"""Wiring: which layer reads which tensors, as a Keras 2 config says it; and the Keras 3 model wired so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras

from tfqat.errors import TfqatError
from tfqat.graph.depth import room_for

# What Keras 2 writes in the place of a layer's name where a call's first argument is a constant.
_CONSTANT = "_CONSTANT_VALUE"
# Class names of entries that stand for a TensorFlow function.
FUNCTIONS = frozenset({"TFOpLambda", "SlicingOpLambda"})


class Place(NamedTuple):
    """A tensor: the ``output`` of the call ``number`` of ``layer``."""

    layer: str
    number: int
    output: int


@dataclass(frozen=True)
class Call:
    """One call of one layer.

    Attributes:
        layer: its name.
        number: which of its calls.
        first: the first argument, a structure of Places and constants; None for an input.
        arguments: those given by name, likewise.
    """

    layer: str
    number: int
    first: Any = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reads(self) -> tuple[Place, ...]:
        """The tensors that the call reads."""
        return tuple(_places_in([self.first, *self.arguments.values()]))


@dataclass(frozen=True)
class Wiring:
    """A model's calls in an order in which they can be made; inputs are layers that read nothing.

    ``inputs`` and ``outputs`` are a Place, or a list or dictionary of them, as the model takes and gives.
    """

    name: str
    calls: tuple[Call, ...]
    inputs: Any
    outputs: Any


# What a call gives: call, its first argument and its arguments by name (tensors in the place of Places) -> tensors.
Apply = Callable[[Call, Any, dict[str, Any]], Any]


def wiring_of(class_name: str, config: Mapping[str, Any]) -> Wiring:
    """The wiring of a Sequential or functional config.

    Raises:
        TfqatError: a Sequential without an input, or calls that read what no layer gives.
    """
    if class_name == "Sequential":
        return _sequential(config)
    names = {entry_name(entry) for entry in config["layers"]}
    calls = [call for entry in config["layers"] for call in _calls(entry, names)]
    starts = _starts(calls, config)
    calls = [_renumbered(call, starts) for call in calls]
    ends = [
        _mapped(_places(config[key]), lambda place: _moved(place, starts)) for key in ("input_layers", "output_layers")
    ]
    return Wiring(config["name"], tuple(_ordered(calls)), ends[0], ends[1])


def wire(wiring: Wiring, apply: Apply, name: str | None = None) -> keras.Model:
    """The functional model made by ``apply`` of each call in turn."""
    tensors: dict[Place, Any] = {}
    filled = lambda structure: _mapped(structure, tensors.__getitem__)  # noqa: E731
    with room_for(len(wiring.calls)):
        for call in wiring.calls:
            given = {key: filled(value) for key, value in call.arguments.items()}
            outputs = apply(call, filled(call.first), given)
            for index, tensor in enumerate(_flat(outputs)):
                tensors[Place(call.layer, call.number, index)] = tensor
        return keras.Model(filled(wiring.inputs), filled(wiring.outputs), name=name or wiring.name)


def entry_name(entry: Mapping[str, Any]) -> str:
    """The name of a layer in a config."""
    return str(entry.get("name") or entry["config"].get("name"))


def _sequential(config: Mapping[str, Any]) -> Wiring:
    names = [entry_name(entry) for entry in config["layers"]]
    first = config["layers"][0] if names else {}
    if first.get("class_name") != "InputLayer":
        raise TfqatError(
            f"Sequential model {config.get('name')!r} has no input shape; give its first layer an input_shape, or "
            "begin with an InputLayer."
        )
    reads = [None, *(Place(before, 0, 0) for before in names[:-1])]
    calls = tuple(Call(name, 0, read) for name, read in zip(names, reads, strict=True))
    return Wiring(config["name"], calls, Place(names[0], 0, 0), Place(names[-1], 0, 0))


def _calls(entry: Mapping[str, Any], names: Collection[str]) -> Iterator[Call]:
    name, nodes = entry_name(entry), entry["inbound_nodes"]
    if not nodes:
        yield Call(name, 0)
    for number, node in enumerate(nodes):
        arguments: dict[str, Any] = {}
        first = _argument(node, names, arguments)
        # For a layer a list of one stands for that one; TensorFlow functions are called with what is written.
        if isinstance(first, list) and len(first) == 1 and entry["class_name"] not in FUNCTIONS:
            first = first[0]
        yield Call(name, number, first, arguments)


def _argument(node: Any, names: Collection[str], keywords: dict[str, Any]) -> Any:
    """The first argument of a call; the keywords that are written behind each of its tensors go to ``keywords``."""
    if _is_reference(node):
        if len(node) > 3 and isinstance(node[3], Mapping):
            given = {key: _keyword(value, names) for key, value in node[3].items()}
            keywords.update({key: value for key, value in given.items() if value is not None and key != "name"})
        return node[2] if node[0] == _CONSTANT else Place(str(node[0]), int(node[1]), int(node[2]))
    if isinstance(node, Mapping):
        return {key: _argument(value, names, keywords) for key, value in node.items()}
    if isinstance(node, list):
        return [_argument(part, names, keywords) for part in node]
    return node


def _keyword(value: Any, names: Collection[str]) -> Any:
    if _is_reference(value) and len(value) == 3 and value[0] in names:
        return Place(str(value[0]), int(value[1]), int(value[2]))
    if isinstance(value, Mapping):
        return {key: _keyword(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [_keyword(part, names) for part in value]
    return value


def _is_reference(item: Any) -> bool:
    if not isinstance(item, list) or len(item) not in (3, 4) or not isinstance(item[0], str):
        return False
    return item[0] == _CONSTANT or (isinstance(item[1], int) and isinstance(item[2], int))


def _starts(calls: list[Call], config: Mapping[str, Any]) -> dict[str, int]:
    """Layer -> number of its first call as other layers write it.

    Keras 2 counts the calls of a model inside the model from 1 (0 is the model's own making).
    """
    made = {call.layer: call.number + 1 for call in calls}
    read = [place for call in calls for place in call.reads]
    read += _places_in([_places(config["output_layers"])])
    return {place.layer: 1 for place in read if place.number >= made.get(place.layer, 0)}


def _moved(place: Place, starts: Mapping[str, int]) -> Place:
    return place._replace(number=place.number - starts.get(place.layer, 0))


def _renumbered(call: Call, starts: Mapping[str, int]) -> Call:
    move = lambda place: _moved(place, starts)  # noqa: E731
    arguments = {key: _mapped(value, move) for key, value in call.arguments.items()}
    return Call(call.layer, call.number, _mapped(call.first, move), arguments)


def _ordered(calls: list[Call]) -> Iterator[Call]:
    """The calls, each after those whose outputs it reads; a shared layer's stand apart in the config."""
    done: set[tuple[str, int]] = set()
    waiting = calls
    while waiting:
        ready = []
        for call in waiting:
            if all(place[:2] in done for place in call.reads):
                done.add((call.layer, call.number))
                ready.append(call)
        if not ready:
            raise TfqatError(
                f"Layer {waiting[0].layer!r} reads tensors that no layer gives: the config is damaged (tf_keras "
                "writes such a one, and cannot read it, where a model and one inside it share a layer; save as .keras)."
            )
        yield from ready
        waiting = [call for call in waiting if (call.layer, call.number) not in done]


def _places(structure: Any) -> Any:
    """Places in the structure of a config's ``input_layers``; a list of one is that one."""
    if isinstance(structure, Mapping):
        return {key: _places(value) for key, value in structure.items()}
    if len(structure) == 3 and isinstance(structure[0], str):
        return Place(structure[0], int(structure[1]), int(structure[2]))
    places = [_places(item) for item in structure]
    return places[0] if len(places) == 1 else places


def _mapped(structure: Any, function: Callable[[Place], Any]) -> Any:
    """The structure with ``function`` of each Place in its place."""
    if isinstance(structure, Place):
        return function(structure)
    if isinstance(structure, Mapping):
        return {key: _mapped(value, function) for key, value in structure.items()}
    if isinstance(structure, list):
        return [_mapped(item, function) for item in structure]
    return structure


def _places_in(structure: Any) -> list[Place]:
    found: list[Place] = []
    _mapped(structure, found.append)
    return found


def _flat(outputs: Any) -> list[Any]:
    """The outputs in the order in which Keras 2 counts them; a shape, which is no tensor, is one of them."""
    if isinstance(outputs, Shape):
        return [outputs]
    return list(keras.tree.flatten(outputs))


class Shape(tuple[Any, ...]):
    """The shape of a tensor as a TensorFlow function of the model has it: UNKNOWN where only a batch knows."""


class Unknown:
    """A size that only a batch knows; None, in a slice, is its end."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = Unknown()
UNKNOWN_SIZE = "it needs a size that only a batch knows; give the Input a fixed shape"


def any_unknown(sizes: Iterable[Any]) -> bool:
    """Whether one of the sizes is UNKNOWN."""
    # By identity: a tensor compares with its elements.
    return any(size is UNKNOWN for size in sizes)
