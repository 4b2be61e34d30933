"""Lambda layers of Keras 2: Python code in a file, whose maker the caller has said to trust."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import keras
import numpy as np

from tfqat.errors import TfqatError


def lambda_layer(config: Mapping[str, Any], name: str, source: str) -> keras.layers.Lambda:
    """The Lambda layer of a Keras 2 config.

    The code sees ``tf``, ``np``, ``keras`` and ``K`` (keras.ops), and no other global of the program that it is from.

    Raises:
        TfqatError: a function of which the file holds only the name; code of another Python version.
    """
    code = config.get("function")
    if isinstance(code, Mapping):
        code = [code.get("config", {}).get(key) for key in ("code", "defaults", "closure")]
    if not isinstance(code, list):
        raise TfqatError(
            f"{source}: the Lambda layer {name!r} calls the function {code!r}, of which the file holds no more than "
            "the name. Replace it by a Keras layer, or build the model in Python."
        )
    known = {"tf": import_module("tensorflow"), "np": np, "keras": keras, "K": keras.ops}
    try:
        defaults = tuple(code[1]) if code[1] else None
        function = keras.src.utils.python_utils.func_load(code[0], defaults=defaults, closure=code[2], globs=known)
    except (ValueError, TypeError, EOFError) as error:
        raise TfqatError(
            f"{source}: the code of the Lambda layer {name!r} cannot be read ({error}): Python {_python()} reads only "
            "code that this version of Python has written. Replace it by a Keras layer."
        ) from error
    shape = config.get("output_shape")
    return keras.layers.Lambda(
        function,
        output_shape=tuple(shape) if isinstance(shape, list) else None,
        arguments=config.get("arguments") or {},
        name=name,
    )


def _python() -> str:
    version = import_module("sys").version_info
    return f"{version.major}.{version.minor}"
