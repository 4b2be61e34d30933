"""TraceError: why a ``call`` cannot be seen as a graph, where it stopped, and what to change there."""

from __future__ import annotations

import inspect
import linecache
import re
import textwrap
import traceback
from pathlib import Path
from typing import Any

from tfqat.errors import TfqatError


class TraceError(TfqatError):
    """A ``call`` that cannot be seen as a graph: what happened, at which line, and how to mend it."""


def explain(layer: Any, error: Exception) -> TraceError:
    """What an exception in a layer's ``call`` on symbolic tensors means."""
    if isinstance(error, TraceError):
        return error
    frame = _frame_of(layer, error)
    where, line = "", ""
    if frame is not None:
        line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
        where = f" at {frame.filename}:{frame.lineno}: `{line}`"
    said = " ".join(str(error).split("\n\n")[0].split()).replace("_StandIn", "KerasTensor")
    what = textwrap.shorten(said, 300, placeholder=" ...") or type(error).__name__
    advice = next((text for pattern, text in _ADVICE if re.search(pattern, f"{line}\n{error}")), _OTHERWISE)
    return TraceError(f"its call() stopped on symbolic tensors{where} ({what}). {advice}")


def place_in_call(layer: Any, *patterns: str) -> str:
    """The first line of a layer's ``call`` that matches the first pattern that any line does, else its first line, as
    ``file:line: `source` ``."""
    function = inspect.unwrap(getattr(layer, "function", None) or type(layer).call)
    try:
        lines, first = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function)
    except (OSError, TypeError):
        return "call()"
    found = (n for pattern in patterns for n, line in enumerate(lines[1:], 1) if re.search(pattern, line))
    offset = next(found, 0)
    return f"{file}:{first + offset}: `{lines[offset].strip()}`"


def _frame_of(layer: Any, error: Exception) -> traceback.FrameSummary | None:
    """The innermost line of the user's: in the file of the layer's class, else outside of installed packages."""
    frames = traceback.extract_tb(error.__traceback__)
    function = getattr(layer, "function", None) or type(layer).call
    try:
        home = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        home = None
    own = [frame for frame in frames if home is not None and frame.filename == home]
    users = [frame for frame in frames if not _is_installed(frame.filename)]
    return next(iter([*reversed(users), *reversed(own)]), None)


def _is_installed(filename: str) -> bool:
    parts = Path(filename).parts
    return "site-packages" in parts or str(Path(__file__).parents[1]) in filename or filename.startswith("<frozen")


_OTHERWISE = "A call() must be made of Keras layers and keras.ops, on tensors whose values are not known yet."
# What to do about branches and loops on values.
IN_ONE_GRAPH = (
    "Choose by keras.ops.where(condition, a, b), loop by Python's for over a number that is known, or put the branch "
    "or the loop (keras.ops.cond, keras.ops.while_loop) into a small layer of yours, which is kept whole."
)
_FOREIGN = (
    "Functions of TensorFlow and NumPy cannot take a symbolic Keras tensor: use the function of that name in "
    "keras.ops (tf.nn.relu -> keras.ops.relu, tf.reduce_mean -> keras.ops.mean, np.concatenate -> "
    "keras.ops.concatenate)."
)
# What the line or the message shows -> what to change.
_ADVICE = (
    (r"cannot be used as input to a", _FOREIGN),
    (
        r"add_loss",
        "A graph has no losses of its own: call add_loss() in a small layer of yours that hands its input on, which is "
        "kept whole, or give a layer an activity_regularizer.",
    ),
    (
        r"has no attribute 'assign",
        "A graph updates no variables: leave that to a small layer of yours, which is kept whole.",
    ),
    (
        r"Unsupported key type for array slice\. Received: `None`",
        "A new first axis is keras.ops.expand_dims(x, 0).",
    ),
    (
        r"add_weight|add_variable|Variable\(|cannot add new elements of state",
        "Make variables in __init__() or build(), never in call().",
    ),
    (
        r"\.numpy\(\)|'numpy'|has no attribute 'numpy'",
        "There are no values yet: leave .numpy() out and go on with keras.ops on the tensor itself.",
    ),
    (
        r"cannot convert it to an? (float|int)",
        f"There are no values yet for Python's float() and int(): compute with keras.ops on the tensor. {IN_ONE_GRAPH}",
    ),
    (
        r"\bbool\b.*(KerasTensor|symbolic)|(KerasTensor|symbolic).*\b(bool|boolean|truth)\b|^\s*(if|while|elif|assert)\b",
        f"Python's if and while need values. {IN_ONE_GRAPH}",
    ),
    (
        r"for .* in range\(|'NoneType' object cannot be interpreted|Iterating over a symbolic",
        "The size is None until there is data: give keras.Input (or build) a fixed size, or replace the loop by "
        "keras.ops on the whole axis.",
    ),
    (r"\b(tf|tensorflow)\.|TensorFlow|\bnp\.|numpy\.|\btorch\.|\bjnp\.|__array__", _FOREIGN),
    (
        r"random|seed",
        "keras.random draws numbers that a graph cannot hold: use a layer (Dropout, GaussianNoise), or draw in "
        "training alone.",
    ),
    (
        r"NoneType|'None'|None values not supported|unsupported operand type",
        "A size is None until there is data: give keras.Input (or build) a fixed size, or use -1 in "
        "keras.ops.reshape and keras.ops that need no size.",
    ),
)
