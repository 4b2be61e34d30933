"""Wiring: which layer reads which tensors, as a Keras 2 config says it; and the Keras 3 model wired so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from tfqat.errors import TfqatError
from tfqat.graph.depth import room_for

# (layer, number of its call, number of the output).
Place = tuple[str, int, int]


@dataclass(frozen=True)
class Call:
    """One call of one layer: what it reads, and whether it was called with ``training``."""

    layer: str
    number: int
    reads: tuple[Place, ...]
    training: bool | None = None


@dataclass(frozen=True)
class Wiring:
    """A model's calls in an order in which they can be made; inputs are layers that read nothing.

    ``inputs`` and ``outputs`` are a Place, or a list or dictionary of them, as the model takes and gives.
    """

    name: str
    calls: tuple[Call, ...]
    inputs: Any
    outputs: Any


def wiring_of(class_name: str, config: Mapping[str, Any]) -> Wiring:
    """The wiring of a Sequential or functional config.

    Raises:
        TfqatError: a model inside the model, one without an input shape, or calls that no Keras 3 layer can take.
    """
    _check_flat(config)
    if class_name == "Sequential":
        return _sequential(config)
    calls = tuple(_ordered([call for entry in config["layers"] for call in _calls(entry)]))
    return Wiring(config["name"], calls, _places(config["input_layers"]), _places(config["output_layers"]))


def _check_flat(config: Mapping[str, Any]) -> None:
    for entry in config["layers"]:
        if "layers" in entry["config"]:
            raise TfqatError(
                f"Layer {_name(entry)!r} ({entry['class_name']}) is a model inside the model, which cannot be read. "
                "Build the model of its layers themselves (call them one by one) before quantizing it."
            )


def wire(wiring: Wiring, layer_of: Callable[[str], Any], is_passed: Callable[[str], bool]) -> keras.Model:
    """The functional model whose layers ``layer_of(name)`` gives (a tensor for an input); passed ones are left out."""
    tensors: dict[Place, Any] = {}
    with room_for(len(wiring.calls)):
        for call in wiring.calls:
            tensors.update(_called(call, layer_of, is_passed, tensors))
        place = lambda structure: _filled(structure, tensors)  # noqa: E731
        return keras.Model(place(wiring.inputs), place(wiring.outputs), name=wiring.name)


def _called(
    call: Call, layer_of: Callable[[str], Any], is_passed: Callable[[str], bool], tensors: Mapping[Place, Any]
) -> dict[Place, Any]:
    given = [tensors[place] for place in call.reads]
    if not given:
        return {(call.layer, 0, 0): layer_of(call.layer)}
    if is_passed(call.layer):
        return {(call.layer, call.number, 0): given[0]}
    how = {} if call.training is None else {"training": call.training}
    outputs = keras.tree.flatten(layer_of(call.layer)(given[0] if len(given) == 1 else given, **how))
    return {(call.layer, call.number, index): tensor for index, tensor in enumerate(outputs)}


def _sequential(config: Mapping[str, Any]) -> Wiring:
    names = [_name(entry) for entry in config["layers"]]
    first = config["layers"][0] if names else {}
    if first.get("class_name") != "InputLayer":
        raise TfqatError(
            f"Sequential model {config.get('name')!r} has no input shape; give its first layer an input_shape, or "
            "begin with an InputLayer."
        )
    reads = [(), *(((before, 0, 0),) for before in names[:-1])]
    calls = tuple(Call(name, 0, read) for name, read in zip(names, reads, strict=True))
    return Wiring(config["name"], calls, (names[0], 0, 0), (names[-1], 0, 0))


def _calls(entry: Mapping[str, Any]) -> Iterator[Call]:
    name, nodes = _name(entry), entry["inbound_nodes"]
    if not nodes:
        yield Call(name, 0, ())
    for number, node in enumerate(nodes):
        if not isinstance(node, list) or not all(isinstance(read, list) and len(read) in (3, 4) for read in node):
            raise TfqatError(
                f"Layer {name!r} ({entry['class_name']}) is called with more than a tensor or a list of tensors, which "
                "cannot be read."
            )
        reads = tuple((str(read[0]), int(read[1]), int(read[2])) for read in node)
        yield Call(name, number, reads, _training(name, [read[3] for read in node if len(read) == 4]))


def _training(name: str, keywords: list[Mapping[str, Any]]) -> bool | None:
    given = {key: value for words in keywords for key, value in words.items() if value is not None}
    training = given.pop("training", None)
    if given:
        raise TfqatError(f"Layer {name!r} is called with {given}; expected no arguments besides tensors and training.")
    return training


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
            raise TfqatError(f"Layer {waiting[0].layer!r} reads tensors that no layer gives: the config is damaged.")
        yield from ready
        waiting = [call for call in waiting if (call.layer, call.number) not in done]


def _places(structure: Any) -> Any:
    """Places in the structure of a config's ``input_layers``; a list of one is that one."""
    if isinstance(structure, Mapping):
        return {key: _places(value) for key, value in structure.items()}
    if len(structure) == 3 and isinstance(structure[0], str):
        return (structure[0], int(structure[1]), int(structure[2]))
    places = [_places(item) for item in structure]
    return places[0] if len(places) == 1 else places


def _filled(structure: Any, tensors: Mapping[Place, Any]) -> Any:
    if isinstance(structure, dict):
        return {key: _filled(value, tensors) for key, value in structure.items()}
    if isinstance(structure, list):
        return [_filled(item, tensors) for item in structure]
    return tensors[structure]


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name", entry["config"].get("name")))
