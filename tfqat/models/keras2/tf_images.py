"""TF images: TensorFlow's functions on images, as ``keras.ops``.

One Python function for each, with TensorFlow's argument names. Sources: the signatures in its API reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keras import ops

from tfqat.models.keras2.layers import INTERPOLATIONS

Function = Callable[..., Any]


def _resize(images: Any, size: Any, method: str = "bilinear", antialias: bool = False) -> Any:
    if method.lower() not in INTERPOLATIONS:
        raise ValueError(f"expected one of the methods {', '.join(INTERPOLATIONS)}, received {method}")
    return ops.image.resize(images, tuple(size), interpolation=method.lower(), antialias=antialias)


def _depth_to_space(input: Any, block_size: int) -> Any:
    _, height, width, channels = input.shape
    deep = channels // block_size**2
    x = ops.reshape(input, (-1, height, width, block_size, block_size, deep))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height * block_size, width * block_size, deep))


def _space_to_depth(input: Any, block_size: int) -> Any:
    _, height, width, channels = input.shape
    rows, columns = height // block_size, width // block_size
    x = ops.reshape(input, (-1, rows, block_size, columns, block_size, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows, columns, block_size**2 * channels))


def _pool(pool: Function) -> Function:
    def function(input: Any, ksize: Any, strides: Any, padding: str, data_format: str = "NHWC") -> Any:
        if data_format != "NHWC":
            raise ValueError(f"expected data_format NHWC, received {data_format}")
        return pool(input, _inner(ksize), _inner(strides), padding=padding.lower(), data_format="channels_last")

    return function


def _inner(sizes: Any) -> Any:
    """The two middle ones of four sizes, one each for images, rows, columns and channels."""
    if isinstance(sizes, int):
        return sizes
    return tuple(sizes[1:3]) if len(sizes) == 4 else tuple(sizes) * (2 if len(sizes) == 1 else 1)


# Last part of TensorFlow's name -> the function.
IMAGES: Mapping[str, Function] = {
    "flip_left_right": lambda image: ops.flip(image, axis=-2),
    "flip_up_down": lambda image: ops.flip(image, axis=-3),
    "avg_pool": _pool(ops.average_pool),
    "avg_pool2d": _pool(ops.average_pool),
    "depth_to_space": _depth_to_space,
    "max_pool": _pool(ops.max_pool),
    "max_pool2d": _pool(ops.max_pool),
    "resize": _resize,
    "space_to_depth": _space_to_depth,
}
