"""Functions of TensorFlow that a Keras 2 model calls on its tensors (``x + y``, ``tf.concat``), as ``keras.ops``.

One Python function for each, with TensorFlow's argument names; what it does not take by name is an error that names
the layer. TensorFlow's default ``None`` is left out before. Sources: the signatures in TensorFlow's API reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tfqat.errors import TfqatError
from tfqat.models.keras2.tf_images import IMAGES
from tfqat.models.keras2.tf_layouts import LAYOUTS
from tfqat.models.keras2.tf_numbers import NUMBERS
from tfqat.models.keras2.wiring import UNKNOWN_SIZE, Shape, Unknown, any_unknown
from tfqat.models.reason import last_said

Function = Callable[..., Any]
# Where TensorFlow's names mean what the table says (tf.image.transpose is no tf.transpose).
_NAMESPACES = frozenset({"", "math", "nn", "linalg", "dtypes", "__operators__", "keras.backend", "keras.activations"})
_IMAGES = frozenset({"resize", "flip_left_right", "flip_up_down"})
# Arguments of TensorFlow with their default, which Keras' functions have not.
_NEUTRAL: Mapping[str, Any] = {
    "conjugate": False,
    "exclusive": False,
    "reverse": False,
    "preserve_aspect_ratio": False,
    "adjoint_a": False,
    "adjoint_b": False,
    "a_is_sparse": False,
    "b_is_sparse": False,
    "batch_dims": 0,
}
# Last part of TensorFlow's name -> the function.
_TABLE: Mapping[str, Function] = {**NUMBERS, **LAYOUTS, **IMAGES}


def tf_function(symbol: str, layer: str) -> Function:
    """The function for a TensorFlow symbol, as TFOpLambda's config has it (``math.reduce_mean``).

    Raises:
        TfqatError: it has no counterpart in the table; names the layer.
    """
    namespace, _, name = symbol.removeprefix("compat.v1.").rpartition(".")
    # TensorFlow 1's resize has its pixels' corners elsewhere.
    known = namespace in _NAMESPACES or (symbol.startswith("image.") and name in _IMAGES)
    if name not in _TABLE or not known:
        raise TfqatError(
            f"Layer {layer!r} calls the TensorFlow function tf.{symbol}, which has no counterpart among those that are "
            f"read ({len(_TABLE)} functions: arithmetic, activations, reductions, shapes, slices). Replace it in the "
            "model by a Keras layer."
        )
    return _TABLE[name]


def called(function: Function, layer: str, symbol: str, first: Any, arguments: Mapping[str, Any]) -> Any:
    """What the function gives; a value that is no Keras tensor comes as plain Python or numpy.

    Raises:
        TfqatError: arguments that the function does not take, or Keras cannot.
    """
    given = {key: value for key, value in arguments.items() if not (key in _NEUTRAL and value == _NEUTRAL[key])}
    try:
        _check_sizes(symbol, [first, *given.values()])
        result = function(first, **given)
    except (TypeError, ValueError, NotImplementedError, AttributeError, IndexError) as error:
        why = UNKNOWN_SIZE if any_unknown(_sizes([first, *given.values()])) else last_said(error)
        raise TfqatError(f"Layer {layer!r} calls tf.{symbol} in a way that cannot be read: {why}") from error
    if isinstance(result, Shape):
        return result
    return keras.tree.map_structure(_settled, result)


def _check_sizes(symbol: str, arguments: list[Any]) -> None:
    """Raises ValueError where a function of a tensor needs a size that only a batch knows."""
    of_tensors = any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(arguments))
    if of_tensors and any_unknown(_sizes(arguments)) and symbol.split(".")[-1].lower() != "reshape":
        raise ValueError(UNKNOWN_SIZE)


def _sizes(arguments: list[Any]) -> list[Any]:
    """What may be a size among the arguments."""
    leaves = keras.tree.flatten(arguments)
    return [size for leaf in leaves for size in (leaf if isinstance(leaf, Shape) else [leaf])]


def _settled(value: Any) -> Any:
    """A number computed from shapes as a plain number."""
    if value is None or isinstance(value, keras.KerasTensor | Unknown | int | float | bool | np.ndarray):
        return value
    array = np.asarray(value)
    return array.item() if array.ndim == 0 else array
