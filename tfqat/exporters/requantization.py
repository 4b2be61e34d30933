"""Requantization: how far kernels move when TensorRT quantizes the float ones of model.onnx again.

Beside a cache TensorRT's implicit mode takes ``max|w| / 127`` of each output channel as the scale, whatever the model
was trained with. Where a channel's largest integer is 127 that gives the trained scale back; where it is not (learned
scales, fewer bits) each weight may move by part of a step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from tfqat.core.encoding import Encoding, Encodings
from tfqat.core.listing import some
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.exporters.onnx_qdq import keras_axes, weights_of

_KERNEL = Scheme(bits=8, signed=True, symmetric=True, narrow=True)
REPORTED, TOLERATED = 1e-3, 5e-2  # in steps of the trained grid


class RequantizationError(TfqatError):
    """Kernels that the cache's reader would change."""


def implicit_scale(kernel: np.ndarray, axis: int) -> np.ndarray:
    """The scale (float32, one an output channel) that TensorRT's implicit mode gives a kernel; 1 where it is zero.

    Raises:
        RequantizationError: weights that are infinite or no numbers.
    """
    others = tuple(i for i in range(kernel.ndim) if i != axis)
    largest = np.abs(kernel).max(axis=others)
    if not np.isfinite(largest).all():
        channels = np.flatnonzero(~np.isfinite(largest)).tolist()
        raise RequantizationError(
            f"A kernel of shape {kernel.shape} holds infinite values or NaN in output channels "
            f"{some(map(str, channels))}, which no scale can hold; the training that made it diverged, or the file is "
            f"damaged."
        )
    scale = largest.astype(np.float32) / np.float32(127)
    return np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1)).astype(np.float32)


def worst_of(bits: int) -> float:
    """The farthest that a weight on a grid of ``bits`` can move, in steps of that grid, all of which it uses."""
    most: int = 2 ** (bits - 1) - 1
    return 0.5 * most / 127 if most < 127 else 0.0


def requantized(kernel: np.ndarray, axis: int) -> np.ndarray:
    """The kernel as TensorRT's implicit mode runs it, float32."""
    shape = [-1 if i == axis else 1 for i in range(kernel.ndim)]
    scale = implicit_scale(kernel, axis).reshape(shape)
    return (np.clip(np.rint(kernel / scale), -127, 127) * scale).astype(np.float32)


def implicit_kernels(
    model: onnx.ModelProto, nodes: Collection[str]
) -> tuple[dict[str, Encoding], dict[str, np.ndarray]]:
    """What implicit mode makes of the kernels of these nodes: node -> Encoding, and initializer -> new kernel.

    Raises:
        RequantizationError: a kernel that no scale can hold.
    """
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    by_name = {node.name: node for node in model.graph.node}
    encodings, kernels = {}, {}
    for name, weight in weights_of(model).items():
        if name not in nodes:
            continue
        kernel = numpy_helper.to_array(arrays[weight.initializer])
        scheme = replace(_KERNEL, axis=keras_axes(by_name[name], kernel.shape))
        scale = implicit_scale(kernel, weight.axis)
        encodings[name] = Encoding(scheme, scale, np.zeros(scale.shape, np.int32), "calibrated")
        kernels[weight.initializer] = requantized(kernel, weight.axis)
    return encodings, kernels


def errors(model: onnx.ModelProto, encodings: Encodings) -> dict[str, float]:
    """Weighted node -> the farthest that one of its weights moves, in steps of its trained grid.

    Only kernels of INT8 layers with an Encoding are looked at; those below REPORTED are left out.

    Raises:
        RequantizationError: one that was trained here moves by more than TOLERATED. An imported one is only reported:
            its scales are not ours to choose, and where they are coarser than ``max|w| / 127`` little is lost.
    """
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node, weight in weights_of(model).items():
        encoding = encodings.weights.get(node)
        if encoding is None or node in encodings.float_ops:
            continue
        kernel = numpy_helper.to_array(arrays[weight.initializer])
        shape = [-1 if i == weight.axis and encoding.scheme.per_channel else 1 for i in range(kernel.ndim)]
        moved = np.abs(requantized(kernel, weight.axis) - kernel) / encoding.scale.reshape(shape)
        steps = float(moved.max(initial=0))
        if steps > REPORTED:
            found[node] = steps
    _refuse({node: steps for node, steps in found.items() if encodings.weights[node].origin != "imported"})
    return found


def describe(found: Mapping[str, float]) -> str:
    """One line a layer; empty where none moves."""
    return "\n".join(f"  requantized: {node} moves by up to {steps:.3g} steps" for node, steps in found.items())


def _refuse(found: Mapping[str, float]) -> None:
    worst = {node: steps for node, steps in found.items() if steps > TOLERATED}
    if worst:
        listed = ", ".join(f"{node} ({steps:.2g})" for node, steps in list(worst.items())[:10])
        raise RequantizationError(
            f"TensorRT would quantize the kernels of {len(worst)} layers anew beside a cache, since max|w| / 127 is "
            f"not their trained scale; they move by more than {TOLERATED} steps: {listed}. Train them with scales of "
            f"max|w| / 127 (ranges: moving_average)."
        )
