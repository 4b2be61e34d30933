"""Patches: what a kernel is multiplied by at each place of an image, so that a convolution is a matrix product; numpy.

With ``groups`` groups of input channels, k weights for each output and ``outputs`` outputs a group, a kernel is
``(groups, k, outputs)`` and a patch ``(groups, k)``. A depthwise convolution has a group for each channel.
"""

from __future__ import annotations

import numpy as np

from tfqat.graph.graph import Op

KINDS = frozenset("conv1d conv2d conv3d depthwise_conv1d depthwise_conv2d dense".split())


def groups_of(op: Op) -> int:
    """How many groups of channels do not see each other."""
    return op.kernel_shape[-2] if op.kind.startswith("depthwise") else op.source.config.get("groups", 1)


def as_matrices(op: Op, kernel: np.ndarray) -> np.ndarray:
    """The kernel as ``(groups, k, outputs)``."""
    if op.kind.startswith("depthwise"):
        return np.moveaxis(kernel.reshape(-1, *kernel.shape[-2:]), 1, 0)
    groups = groups_of(op)
    return np.moveaxis(kernel.reshape(-1, groups, kernel.shape[-1] // groups), 1, 0)


def as_kernel(op: Op, matrices: np.ndarray) -> np.ndarray:
    """The counterpart of ``as_matrices``."""
    return np.moveaxis(matrices, 0, 1).reshape(op.kernel_shape)


def output_count(op: Op) -> int:
    """Output channels in all."""
    shape = op.kernel_shape
    return shape[-1] * (shape[-2] if op.kind.startswith("depthwise") else 1)


def patches(op: Op, values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The patches ``(places, groups, k)`` at some ``places`` of the op's output, counted through batch and space."""
    if op.kind == "dense":
        return values.reshape(-1, 1, values.shape[-1])[places]
    windows, size = _windows(op, values)
    rank = len(size)
    taken = windows[np.unravel_index(places, windows.shape[: rank + 1])]  # (places, channels, *size)
    flat = np.moveaxis(taken.reshape(*taken.shape[:2], -1), 1, 2)  # (places, size, channels)
    groups = groups_of(op)
    split = flat.reshape(*flat.shape[:2], groups, -1)
    return np.moveaxis(split, 2, 1).reshape(len(places), groups, -1)


def _windows(op: Op, values: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """A view ``(batch, *places, channels, *kernel size)`` of the padded image."""
    config, rank = op.source.config, values.ndim - 2
    size = op.kernel_shape[:rank]
    strides, dilation = (_per_axis(config[key], rank) for key in ("strides", "dilation_rate"))
    reach = tuple((k - 1) * d + 1 for k, d in zip(size, dilation, strict=True))
    sides = [_padding(config["padding"], *numbers) for numbers in zip(values.shape[1:-1], reach, strides, strict=True)]
    padded = np.pad(values, [(0, 0), *sides, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(1, rank + 1)))
    steps = tuple(slice(None, None, s) for s in strides)
    apart = tuple(slice(None, None, d) for d in dilation)
    return windows[(slice(None), *steps, slice(None), *apart)], size


def _padding(how: str, length: int, reach: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, as Keras has them."""
    if how == "valid":
        return 0, 0
    if how == "causal":
        return reach - 1, 0
    total = max((-(-length // stride) - 1) * stride + reach - length, 0)
    return total // 2, total - total // 2


def _per_axis(value: int | tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)
