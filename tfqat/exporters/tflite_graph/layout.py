"""Layout ops in TFLite: they move integers about and keep their grid.

Source: TensorFlow Lite 8-bit quantization specification: CONCATENATION, PAD, RESHAPE, SLICE, TRANSPOSE and the like
demand one scale and zero point for what they read and write.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType, MirrorPadMode

from tfqat.exporters.tflite_graph.emission import Emission, Step, Unsupported, check_channels_last, setting
from tfqat.exporters.tflite_graph.flatbuffer import Tensor

MIRRORS = {"reflect": MirrorPadMode.REFLECT, "symmetric": MirrorPadMode.SYMMETRIC}
Range = tuple[int, int, int]


def identity(emission: Emission, step: Step) -> None:
    """Nothing: readers of its output read its input."""
    emission.tensors[step.output] = emission.read(step.op.inputs[0])


def reshape(emission: Emission, step: Step) -> None:
    """RESHAPE: whatever leaves the integers in their order."""
    emission.shape(step.output)
    source = emission.read(step.op.inputs[0], emission.encoding(step.output))
    _check_batch(emission, step)
    emission.reshape(source, emission.declare(step.output))


def transpose(emission: Emission, step: Step) -> None:
    """TRANSPOSE of any axes but the batch."""
    order = _order(step, len(emission.shape(step.op.inputs[0])))
    if order[0] != 0:
        raise Unsupported("it moves the batch: leave the first axis where it is")
    emission.add_shared(step, "TRANSPOSE", emission.integers(f"{step.op.name}/order", order))


def concatenate(emission: Emission, step: Step) -> None:
    """CONCATENATION; inputs on another grid are requantized first."""
    rank = len(emission.shape(step.output))
    axis = int(setting(step.op, "axis", -1)) % rank
    if axis == 0:
        raise Unsupported("it joins batches: use another axis")
    inputs = [emission.read(tensor, emission.encoding(step.output)) for tensor in step.op.inputs]
    none = ActivationFunctionType.NONE
    emission.add(step, "CONCATENATION", inputs, axis=axis, fusedActivationFunction=none)


def zero_padding(emission: Emission, step: Step) -> None:
    """PAD, which writes the zero point."""
    check_channels_last(step.op)
    widths = [(0, 0), *_pairs(setting(step.op, "padding")), (0, 0)]
    emission.add_shared(step, "PAD", emission.integers(f"{step.op.name}/widths", widths))


def pad(emission: Emission, step: Step) -> None:
    """PAD, PADV2 with a constant on the grid, or MIRROR_PAD."""
    rank, mode = len(emission.shape(step.output)), setting(step.op, "mode", "constant")
    widths = np.broadcast_to(np.asarray(setting(step.op, "pad_width")), (rank, 2))
    if widths[0].any():
        raise Unsupported("it pads the batch: leave the first axis alone")
    sizes = emission.integers(f"{step.op.name}/widths", widths)
    value = float(setting(step.op, "constant_values") or 0.0)
    if mode in MIRRORS:
        emission.add_shared(step, "MIRROR_PAD", sizes, mode=MIRRORS[mode])
    elif mode != "constant":
        raise Unsupported(f"its mode is {mode!r}: TFLite has constant, reflect and symmetric")
    elif value == 0:
        emission.add_shared(step, "PAD", sizes)
    else:
        emission.add_shared(step, "PADV2", sizes, _on_grid(emission, step, value))


def cropping(emission: Emission, step: Step) -> None:
    """STRIDED_SLICE."""
    check_channels_last(step.op)
    shape = emission.shape(step.output)
    starts = (0, *(before for before, _ in _pairs(setting(step.op, "cropping"))), 0)
    _slice(emission, step, 0, [(start, start + (size or 0), 1) for start, size in zip(starts, shape, strict=True)])


def get_item(emission: Emission, step: Step) -> None:
    """STRIDED_SLICE, and a RESHAPE where axes go or come."""
    key = step.op.args[1] if len(step.op.args) > 1 else step.op.kwargs["key"]
    shape = emission.shape(step.op.inputs[0])
    _slice(emission, step, 0, _ranges(key if isinstance(key, tuple) else (key,), shape))


def split(emission: Emission, step: Step) -> None:
    """A STRIDED_SLICE for each part."""
    shape = emission.shape(step.op.inputs[0])
    axis, start = int(setting(step.op, "axis", 0)) % len(shape), 0
    if axis == 0:
        raise Unsupported("it splits the batch: use another axis")
    for number, tensor in enumerate(step.op.outputs):
        size = emission.shape(tensor)[axis] or 0
        ranges = [(0, whole or 0, 1) for whole in shape]
        ranges[axis] = (start, start + size, 1)
        _slice(emission, step, number, ranges)
        start += size


def tile(emission: Emission, step: Step) -> None:
    """TILE of any axes but the batch."""
    rank = len(emission.shape(step.op.inputs[0]))
    given = setting(step.op, "repeats")
    repeats = [given] if isinstance(given, int) else list(given)
    counts = [1] * (rank - len(repeats)) + repeats
    if len(counts) > rank or counts[0] != 1:
        raise Unsupported("it repeats the batch or adds an axis: reshape first")
    emission.add_shared(step, "TILE", emission.integers(f"{step.op.name}/counts", counts))


def repeat_vector(emission: Emission, step: Step) -> None:
    """RESHAPE and TILE."""
    count, shape = int(setting(step.op, "n")), emission.shape(step.op.inputs[0])
    source = emission.read(step.op.inputs[0], emission.encoding(step.output))
    column = emission.inner(f"{step.op.name}/column", (shape[0], 1, shape[1]), source.encoding)
    emission.reshape(source, column)
    emission.add(step, "TILE", [column, emission.integers(f"{step.op.name}/counts", [1, count, 1])])


def _pairs(sizes: Sequence[Any]) -> list[tuple[int, int]]:
    """Before and after, for each axis; of a sequence Keras has the pair alone."""
    return [(sizes[0], sizes[1])] if isinstance(sizes[0], int) else [(before, after) for before, after in sizes]


def _order(step: Step, rank: int) -> list[int]:
    """The axes of a transposition's input in the order of its output."""
    op = step.op
    if op.kind == "permute":
        return [0, *setting(op, "dims")]
    if op.kind == "swapaxes":
        one, other = (int(setting(op, key)) % rank for key in ("axis1", "axis2"))
        return [{one: other, other: one}.get(axis, axis) for axis in range(rank)]
    if op.kind == "moveaxis":
        places = np.empty(range(rank), np.bool_)  # each axis as long as its number
        return list(np.moveaxis(places, setting(op, "source"), setting(op, "destination")).shape)
    axes = setting(op, "axes")
    return [axis % rank for axis in axes] if axes is not None else list(range(rank))[::-1]


def _on_grid(emission: Emission, step: Step, value: float) -> Tensor:
    encoding = emission.encoding(step.output)
    integer = encoding.quantize(np.asarray(value, np.float32))
    if abs(float(encoding.fake_quantize(np.asarray(value, np.float32))) - value) > float(encoding.scale) / 2:
        raise Unsupported(f"it pads with {value:g}, which is outside of the range of its input")
    return emission.flatbuffer.constant(
        f"{step.op.name}/value", integer.astype(np.int8), encoding.scale, zero_point=int(encoding.zero_point)
    )


def _slice(emission: Emission, step: Step, number: int, ranges: Sequence[Range]) -> None:
    """Writes the ``number``-th output: start, stop and step of each axis; of the batch, all."""
    output = step.op.outputs[number]
    source = emission.read(step.op.inputs[0], emission.encoding(output))
    columns = [[part[index] for part in ranges] for index in range(3)]
    words = ("begin", "end", "step")
    limits = [emission.integers(f"{output}/{word}", column) for word, column in zip(words, columns, strict=True)]
    sizes = (None, *(len(range(*part)) for part in ranges[1:]))
    target = emission.declare(output)
    result = target if sizes == target.shape else emission.inner(f"{output}/sliced", sizes, source.encoding)
    masks = {"beginMask": 1, "endMask": 1 | _open_ends(ranges)}
    emission.flatbuffer.add("STRIDED_SLICE", [source, *limits], result, **masks)
    if result is not target:
        emission.reshape(result, target)


def _open_ends(ranges: Sequence[Range]) -> int:
    """The axes that run down to index 0: an end of -1 would be the last index."""
    return sum(1 << axis for axis, (_, stop, _) in enumerate(ranges) if stop < 0)


def _ranges(key: Sequence[Any], shape: Sequence[int | None]) -> list[Range]:
    """A subscript as start, stop and step of each axis of ``shape``."""
    plain = [part for part in key if part is not None]
    if any(isinstance(part, EllipsisType) for part in plain):
        place = next(index for index, part in enumerate(plain) if isinstance(part, EllipsisType))
        missing = len(shape) - len(plain) + 1
        plain = [*plain[:place], *[slice(None)] * missing, *plain[place + 1 :]]
    plain += [slice(None)] * (len(shape) - len(plain))
    if plain[0] != slice(None):
        raise Unsupported("it takes images out of the batch: leave the first axis as [:]")
    return [(0, 0, 1), *(_range(part, size or 0) for part, size in zip(plain[1:], shape[1:], strict=True))]


def _range(part: Any, size: int) -> Range:
    if isinstance(part, slice):
        return part.indices(size)
    if isinstance(part, int | np.integer):
        return int(part) % size, int(part) % size + 1, 1
    raise Unsupported(f"it is indexed by {type(part).__name__}: use numbers and slices")


def _check_batch(emission: Emission, step: Step) -> None:
    before, after = emission.shape(step.op.inputs[0]), emission.shape(step.output)
    sizes = [np.prod([size or 1 for size in shape[1:]], dtype=np.int64) for shape in (before, after)]
    if after[0] is None and sizes[0] != sizes[1]:
        raise Unsupported(f"it takes {before} to {after}, which mixes the images of a batch")
