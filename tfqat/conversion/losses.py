"""Losses: what a format cannot express, which is refused, and what it leaves out, which is listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from tfqat.conversion.source import CACHE, ENCODINGS, ConvertError, Source
from tfqat.core.encoding import Encodings
from tfqat.core.listing import some
from tfqat.exporters import cache, onnx_qdq, requantization
from tfqat.exporters.aimet_read import TARGET
from tfqat.exporters.onnx_qdq import OUTPUT, UNQUANTIZED_READERS, trained, weights_of


def check_symmetric(told: Encodings) -> None:
    """Refuses what TensorRT's implicit mode cannot run.

    Raises:
        ConvertError: zero points, several scales a tensor, more than 8 bits; lists the tensors.
    """
    rows = [*told.activations.items(), *((f"kernel of {node}", e) for node, e in told.weights.items())]
    shifted = [
        name
        for name, encoding in rows
        if (encoding.zero_point != (0 if encoding.scheme.signed else 2 ** (encoding.scheme.bits - 1))).any()
    ]
    if shifted:
        raise ConvertError(
            f"TensorRT has no zero points (asymmetric, or unsigned: uint8 that is not centered on 128), but "
            f"{len(shifted)} tensors have: {some(shifted)}. Quantize symmetrically (target tensorrt, torch.qint8 with "
            f"per_tensor_symmetric), or keep the Q/DQ ONNX for another runtime."
        )
    wide = [name for name, encoding in rows if encoding.scheme.bits > 8]
    if wide:
        raise ConvertError(
            f"A TensorRT cache holds scales of int8, but {len(wide)} tensors have more bits: {some(wide)}."
        )


def lost_by_cache(source: Source) -> list[str]:
    told = source.encodings
    if source.kind == CACHE:
        return []
    kernels = listed(
        "kernels' scales, for which TensorRT takes max|w| / 127 of each output channel", list(told.weights)
    )
    fewer = [name for name, e in told.activations.items() if e.scheme.bits < 8 or e.scheme.narrow]
    return [
        *kernels,
        *listed("tensors use all 256 integers then", fewer),
        *lost_readers(told),
        *lost_origins(told),
        *lost_target(told, "tensorrt"),
        *listed("layers stay float, but not why", list(told.float_ops)),
    ]


def lost_by_qdq(source: Source) -> list[str]:
    """What only encodings.json says of tensors and kernels; the others come to Q/DQ without it."""
    told = source.encodings
    if source.kind != ENCODINGS:
        return []
    rows = [*trained(told).items(), *told.weights.items()]
    kinds = [name for name, e in rows if e.scheme.symmetric != (e.scheme.signed and not e.zero_point.any())]
    int4 = onnx_qdq.int4_kernels(told)
    fewer = [name for name, e in told.weights.items() if e.scheme.bits < 8 and name not in int4]
    return [
        *lost_origins(told),
        *lost_target(told),
        *listed("layers stay float, but not why", list(told.float_ops)),
        *listed("are called symmetric by their zero points alone", kinds),
        *listed("kernels use part of the integers of their type, which only their weights tell", fewer),
    ]


def lost_target(told: Encodings, target: str = TARGET) -> list[str]:
    """The target that the model was trained for, where what is written reads back as ``target``."""
    return [] if told.target in (target, TARGET) else [f"the target that they are for ({told.target})"]


def lost_origins(told: Encodings) -> list[str]:
    origins = {e.origin for e in (*told.activations.values(), *told.weights.values())} - {"imported"}
    return [f"where scales come from ({', '.join(sorted(origins))})"] if origins else []


def lost_readers(told: Encodings) -> list[str]:
    """Tensors that some read rounded and others as they are: with one scale a tensor all read it rounded."""
    raw: Mapping[str, Sequence[str]] = told.metadata.get(UNQUANTIZED_READERS, {})
    rows = [
        f"{tensor} (by {', '.join('the model output' if node == OUTPUT else node for node in nodes)})"
        for tensor, nodes in raw.items()
    ]
    return listed("tensors were also read without their Q/DQ", rows)


def lost_of_cache(told: Encodings) -> list[str]:
    """What only a cache holds."""
    said = told.metadata.get(cache.METADATA, {})
    header = [f"the header {said['header']}"] if "header" in said else []
    others = list(said.get(cache.OTHERS, {}))
    return header + listed("lines that are no usable scale, or of no tensor of the ONNX", others)


def listed(text: str, names: Sequence[str]) -> list[str]:
    """One line about the tensors or layers, if there are any."""
    return [f"{len(names)} {text}: {some(names)}"] if names else []


def requantized(model: onnx.ModelProto, told: Encodings) -> list[str]:
    """The kernels that get other integers from TensorRT: channel by channel those that do not reach 127."""
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    moved = requantization.errors(model, told)
    found = []
    for node, weight in weights_of(model).items():
        if node not in told.weights or node in told.float_ops:
            continue
        kernel = numpy_helper.to_array(arrays[weight.initializer])
        integers, _, _ = onnx_qdq.on_grid(weight, kernel, told.weights[node])
        channels = np.moveaxis(np.abs(integers - _middle(told, node)), weight.axis, 0)
        largest = channels.reshape(len(channels), -1).max(axis=1, initial=0)
        other = np.flatnonzero((largest != 127) & (largest != 0)).tolist()
        if other:
            found.append(
                f"integers of kernels that do not reach 127, which TensorRT makes anew: {node}, channels "
                f"{_ranges(other)} of {largest.size}; weights move by up to {moved.get(node, 0):.2g} steps"
            )
    return found


def _middle(told: Encodings, node: str) -> int:
    scheme = told.weights[node].scheme
    return 0 if scheme.signed else 2 ** (scheme.bits - 1)


def _ranges(numbers: list[int]) -> str:
    """``0-3, 7`` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(str(end) for end in run) for run in runs)
