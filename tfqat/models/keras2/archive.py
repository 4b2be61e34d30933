"""The `.keras` files of tf_keras: a zip with ``config.json`` and ``model.weights.h5``.

Weights lie under attributes of the layers, ``layers/conv2d_1/vars/0``, where the layers of a model are counted by class
(layout: tf_keras, ``saving/saving_lib``). A layer that several models of the file share is written where it is met
first, and not counted where it is met again.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tfqat.errors import TfqatError
from tfqat.models.hdf5 import array_of, open_hdf5
from tfqat.models.keras2.model import PARTS, Keras2Model, Weights, made, parsed
from tfqat.models.keras2.wiring import entry_name

# Names of the group of a model's layers, in newer and older versions.
_LAYERS = ("layers", "_layer_checkpoint_dependencies")
# What two entries of one layer may differ in.
_NOT_COMPARED = frozenset({"inbound_nodes", "shared_object_id", "module", "registered_name", "build_config"})
# A layer's path: its name, those of the models around it before it.
Place = tuple[str, ...]


def read_archive(path: Path) -> Keras2Model:
    """The model in a `.keras` file that tf_keras wrote; the file is known to be whole.

    Raises:
        TfqatError: broken weights, a subclassed model.
    """
    with zipfile.ZipFile(path) as archive:
        config = parsed(archive.read("config.json"), str(path))
        weights_file = io.BytesIO(archive.read("model.weights.h5"))
    kept = made(str(path), config, {})
    reading = _Reading(str(path))
    with open_hdf5(weights_file, str(path)) as file:
        reading.model(file, kept.class_name, kept.config, ())
    return Keras2Model(kept.source, kept.class_name, kept.config, reading.weights)


class _Reading:
    """The weights found so far, and the entries that were met."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.weights: dict[Place, Weights] = {}
        self.met: list[tuple[Any, Place]] = []

    def model(self, group: h5py.Group, class_name: str, config: Mapping[str, Any], path: Place) -> None:
        """Notes the weights of each layer of a model, models inside it included."""
        layers: Any = next((group[name] for name in _LAYERS if name in group), {})
        # An InputLayer is no part of ``Sequential.layers``.
        skipped = "InputLayer" if class_name == "Sequential" else None
        entries = [entry for entry in config["layers"] if entry["class_name"] != skipped]
        missing = _missing(entries, layers)
        left, candidates = missing.copy(), Counter[str]()
        counts: Counter[str] = Counter()
        written: set[str] = set()
        for entry in entries:
            kind, here, before = _kind(entry), (*path, entry_name(entry)), self._met(entry)
            candidates[kind] += before is not None
            if before is not None and left[kind] > 0:
                left[kind] -= 1
                self._same_as(before, here)
                continue
            name = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1
            written.add(name)
            if name in layers:
                self._layer(layers[name], entry, here)
            self.met.append((_identity(entry), here))
        if extra := next((name for name in layers if name not in written and _values_in(layers[name])), None):
            raise TfqatError(
                f"{self.source}: it has weights of {extra!r}, of which the config of the model "
                f"{'/'.join(path) or 'itself'!r} has no layer: the two are not of one model. Save the model again."
            )
        unclear = [kind for kind, number in missing.items() if candidates[kind] != number]
        if unclear and layers:
            raise TfqatError(
                f"{self.source}: the model {'/'.join(path) or 'itself'!r} has layers of the kind {unclear[0]!r} "
                "without weights: those are missing, or shared with other models, and the file does not say which. "
                "Save it in tf_keras as .h5: model.save('model.h5')."
            )

    def _met(self, entry: Mapping[str, Any]) -> Place | None:
        identity = _identity(entry)
        return next((where for met, where in self.met if met == identity), None)

    def _layer(self, group: h5py.Group, entry: Mapping[str, Any], path: Place) -> None:
        config = entry["config"]
        inner = config.get("layer")
        if "layers" in config:
            self.model(group, entry["class_name"], config, path)
        elif isinstance(inner, Mapping) and "layers" in inner.get("config", {}) and "layer" in group:
            self.model(group["layer"], inner["class_name"], inner["config"], (*path, entry_name(inner)))
        else:
            self.weights[path] = tuple(_values(group, _cells(config)))

    def _same_as(self, before: Place, here: Place) -> None:
        length = len(before)
        found = {place: values for place, values in self.weights.items() if place[:length] == before}
        self.weights.update({(*here, *place[length:]): values for place, values in found.items()})


def _missing(entries: list[Any], layers: Any) -> Counter[str]:
    """How many layers of which kind have no group of their own, since they were written before."""
    kinds = Counter(map(_kind, entries))
    return kinds - Counter(name if name in kinds else re.sub(r"_\d+$", "", name) for name in layers)


def _values(group: h5py.Group, cells: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The numbered variables of a layer, then those of its parts; ``cells`` are the kinds of an RNN's cells."""
    own = group.get("vars", {})
    for number in sorted(own, key=int):
        yield number, array_of(own[number])
    known = [name for name in (*PARTS, *cells) if name in group]
    for name in [*known, *sorted(name for name in group if name not in (*known, "vars"))]:
        yield from _values(group[name], cells)


def _values_in(group: Any) -> bool:
    """Whether there is any value in the group."""
    return isinstance(group, h5py.Dataset) or any(_values_in(group[name]) for name in group)


def _cells(config: Any) -> list[str]:
    """The groups of the cells in the config of an RNN, in order."""
    inner = config.get("cell") or config.get("layer") if isinstance(config, Mapping) else None
    if isinstance(inner, Mapping):
        return _cells(inner.get("config"))
    kinds = [_kind(cell) for cell in config.get("cells") or ()]
    return [
        f"{kind}_{kinds[:index].count(kind)}" if kind in kinds[:index] else kind for index, kind in enumerate(kinds)
    ]


def _identity(entry: Mapping[str, Any]) -> Any:
    """What makes an entry the layer that it is."""
    return entry["class_name"], _bare(entry["config"])


def _bare(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {key: _bare(value) for key, value in item.items() if key not in _NOT_COMPARED}
    return [_bare(part) for part in item] if isinstance(item, list) else item


def _kind(entry: Mapping[str, Any]) -> str:
    """``DepthwiseConv2D`` -> ``depthwise_conv2d``, as tf_keras' ``to_snake_case``."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", entry["class_name"].split(">")[-1])
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
