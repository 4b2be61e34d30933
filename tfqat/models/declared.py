"""Declared: the size of the weights that a config declares, compared with what its file holds before any is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
from keras.src.backend.common import global_state

from tfqat.errors import TfqatError

# Keras' list of variables whose values are still to be made.
_WAITING = "uninitialized_variables"
# So many more are an error that a later check names by the layer.
_HARMLESS = 2**22
# What Keras says of a layer whose variables begin with an array, which is there already.
_HAS_VALUES = "in a stateless scope"


def check_declared(build: Callable[[], keras.Model], stored: int, source: str) -> None:
    """Raises TfqatError where the model that ``build`` makes has more weights than ``stored``.

    The model is built without values: Keras then keeps shapes only. Its numbers alone do not tell, since layers
    multiply what others give (a chain of Concatenate of a tensor and itself). What ``build`` raises, it would raise
    with values too, after they took the memory.
    """
    try:
        with without_values():
            declared = sum(math.prod(variable.shape) for variable in build().weights)
    except ValueError as error:
        if _HAS_VALUES in str(error):
            return
        raise
    if declared > stored + _HARMLESS:
        raise TfqatError(
            f"{source}: its layers declare {declared:,} weights, and the file holds {stored:,} numbers. It is damaged "
            "or made to exhaust memory; nothing was made."
        )


@contextmanager
def without_values() -> Iterator[None]:
    """Variables made in the block never get values: Keras would make those up the next time that it makes any."""
    waiting = global_state.get_global_attribute(_WAITING, [], set_to_default=True)
    before = len(waiting)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        del waiting[before:]
