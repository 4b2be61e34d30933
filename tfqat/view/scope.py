"""Scope: where a call stands in the model, and what names are made there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import keras

from tfqat.graph.build import NESTING
from tfqat.graph.kinds import snake_case
from tfqat.view.local_names import is_auto_named


@dataclass(frozen=True)
class Scope:
    """Where a call stands.

    Attributes:
        prefix: the path before its name.
        traced: whether operations get names of their own in place of Keras' global numbers.
        names: the names of layers that a traced layer numbers itself, by id.
        frozen: whether layers are called with ``training=False`` whatever the caller says.
    """

    prefix: str = ""
    traced: bool = False
    names: dict[int, str] = field(default_factory=dict)
    frozen: bool = False

    def name_of(self, operation: Any) -> str:
        """The path of an op called here."""
        name = self.names.get(id(operation), operation.name)
        if self.traced and not isinstance(operation, keras.layers.Layer) and is_auto_named(operation):
            name = snake_case(type(operation).__name__)
        return self.named(name.replace(NESTING, "/"))

    def named(self, name: str) -> str:
        """The path of something with this name here."""
        return clean(f"{self.prefix}{name}")

    def path_of(self, operation: Any) -> str:
        """The prefix of what stands inside of a layer or model called here."""
        return f"{self.name_of(operation)}/"


def clean(path: str) -> str:
    """The path in ASCII, without the characters that split a cache line or a trtexec list.

    Behind a slash stands a letter, a digit or a dot, as TensorFlow wants it of a node's name behind ``NESTING``.
    """
    path = re.sub(r"[^A-Za-z0-9_./\-]", "_", path) or "_"
    return re.sub(r"(?<=/)(?![A-Za-z0-9.])|^(?=/)", ".", path)
