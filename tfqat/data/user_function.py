"""User function: a function of the user's own, named 'pkg.mod:function' in a spec."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from tfqat.errors import TfqatError


def user_function(name: str, key: str) -> Callable[..., Any]:
    """The function; modules in the current folder are found too, as with ``python -m``.

    Args:
        name: 'pkg.mod:function'.
        key: the spec's key that names it, for errors.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise TfqatError(f"{key}: expected 'package.module:function', received {name!r}.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise TfqatError(
            f"{key}: cannot import {module_name!r}: {error}. Run from the folder that holds it, install it, or add its "
            "folder to PYTHONPATH."
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise TfqatError(f"{key}: {module_name!r} has no function {attribute!r}; expected 'package.module:function'.")
    return function


def call_with(function: Callable[..., Any], offered: Mapping[str, Any]) -> Any:
    """What ``function`` returns for those of the ``offered`` arguments that it has; for all, where it has ``**``."""
    accepted = inspect.signature(function).parameters
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values())
    return function(**{name: value for name, value in offered.items() if takes_all or name in accepted})
