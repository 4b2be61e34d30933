"""Safety: what the config in a model file may ask for, checked before any of it is made.

A config names classes and functions, and Keras looks for them in the modules that the config names. Here only Keras'
own modelling classes pass, those of tfqat and KerasHub, and what the caller has registered or given; Python code inside
the file passes only where the caller says that it trusts the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tfqat.errors import TfqatError

# Carry Python code or pickled objects, or run a graph from another file.
_CODE = {
    "Lambda": "a Lambda layer: Python code inside the file",
    "__lambda__": "not without a Python lambda: code inside the file",
    "TorchModuleWrapper": "a TorchModuleWrapper: a pickled object inside the file",
    "TFSMLayer": "a TFSMLayer, which runs the functions of another file",
    "JaxLayer": "a JaxLayer: Python code inside the file",
    "FlaxLayer": "a FlaxLayer: Python code inside the file",
}
# Arguments that Keras reads from a file where they are a text; in a model file they are lists.
_FILES = frozenset({"vocabulary", "merges", "proto", "idf_weights"})
_PACKAGES = frozenset({"keras", "tf_keras", "keras_hub", "keras_nlp", "keras_cv", "tfqat", "builtins"})
# Parts of Keras that build no models: they download, read and write files, or change settings.
_NO_MODELLING = frozenset(
    "backend callbacks config datasets distribution export preprocessing saving testing tree utils visualization "
    "wrappers api_export".split()
)


def check_config(config: Any, source: str, custom_objects: Mapping[str, Any], trust: bool) -> None:
    """Raises TfqatError where ``config`` (parsed JSON) asks for code, or for what is no part of Keras."""
    for item in _objects(config):
        class_name = str(item["class_name"])
        last = re.split("[>.]", class_name)[-1]
        if not trust and last in _CODE:
            raise TfqatError(f"{source}{_layer(item)} is {_CODE[last]}, {TRUST}")
        if not trust:
            _check_files(item, source)
        _check_module(item, class_name, source, custom_objects)


TRUST = (
    "which tfqat never runs unasked. Replace it by a Keras layer or a keras.ops function and save the model again; or, "
    "where you trust whoever made the file, allow it: trust=True, on the command line --trust."
)


def _layer(item: Mapping[str, Any]) -> str:
    name = item["config"].get("name") if isinstance(item["config"], Mapping) else None
    return f": layer {name!r}" if name else ""


def _objects(config: Any) -> Iterator[Mapping[str, Any]]:
    """Each mapping in the config that stands for an object."""
    waiting = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            if "class_name" in item and "config" in item:
                yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _check_files(item: Mapping[str, Any], source: str) -> None:
    for key in _FILES & set(item["config"] if isinstance(item["config"], Mapping) else ()):
        if isinstance(item["config"][key], str) and item["config"][key]:
            raise TfqatError(
                f"{source}{_layer(item)} reads its {key} from another file, {item['config'][key]!r}; nothing was read. "
                "Save the model with the values themselves; or, where you trust whoever made the file, allow it: "
                "trust=True, on the command line --trust."
            )


def _check_module(item: Mapping[str, Any], class_name: str, source: str, custom_objects: Mapping[str, Any]) -> None:
    module = item.get("module")
    if _is_given(item, class_name, custom_objects):
        return
    if "module" in item and module is None and item.get("registered_name"):
        raise TfqatError(
            f"{source}{_layer(item)} is of the class {class_name!r}, which is none of Keras' or tfqat's. Give it: "
            f"custom_objects={{{class_name!r}: {class_name}}}; or decorate it with "
            "@keras.saving.register_keras_serializable() and import its module before loading."
        )
    if not module:
        return
    # Keras looks for "module.name", and either may have dots.
    name = item["config"] if class_name == "function" else class_name
    package, *parts = f"{module}.{name}".split(".")
    if package in _PACKAGES and not (package == "keras" and _NO_MODELLING & set(parts)):
        return
    what = f"{item['config']!r} (a function)" if class_name == "function" else repr(class_name)
    raise TfqatError(
        f"{source}{_layer(item)} asks for {what} of the module {str(module)!r}, which is no part of Keras that "
        "builds models; nothing was imported. Where it is yours, give it as custom_objects, or import the module that "
        "registers it (keras.saving.register_keras_serializable) before loading."
    )


def _is_given(item: Mapping[str, Any], class_name: str, custom_objects: Mapping[str, Any]) -> bool:
    """Whether the caller has given or registered the object: a function under its name, a class under one of two."""
    names = [item["config"]] if class_name == "function" else [item.get("registered_name"), class_name]
    return any(
        name in custom_objects or keras.saving.get_registered_object(name) is not None
        for name in names
        if isinstance(name, str)
    )
