"""EinsumDense: the Dense that it amounts to, with the permutes and reshapes around it.

Each letter of the kernel is either summed over (it is in the input, too) or new (it is in the output): then the op is
``Dense(permute(x))`` with the summed letters merged to one axis, and the new ones parted again. A letter of the kernel
that is in both makes a kernel for each of its indices, which no Dense has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import keras
import numpy as np

from tfqat.graph.graph import Op
from tfqat.graph.kinds import activation_kind
from tfqat.view.part import MIXING, PREVIOUS, Part, Shape, activation_of, derived, kept_whole, piece, regularizer_of

# Of the constructor's arguments; the weights are given, so nothing is initialized.
_KEPT = ("kernel_regularizer", "kernel_constraint", "bias_regularizer", "bias_constraint")


@dataclass(frozen=True)
class Contraction:
    """An equation with a letter for each axis.

    Attributes:
        given, kernel, output: letters of the input, the kernel, the output; the batch first.
        free: those that the input passes on to the output, in the input's order.
        summed: those that input and kernel have, in the input's order.
        new: those that kernel and output have, in the output's order.
    """

    given: str
    kernel: str
    output: str

    @property
    def free(self) -> str:
        return "".join(letter for letter in self.given if letter not in self.kernel)

    @property
    def summed(self) -> str:
        return "".join(letter for letter in self.given if letter in self.kernel)

    @property
    def new(self) -> str:
        return "".join(letter for letter in self.output if letter in self.kernel)

    @property
    def order(self) -> list[int]:
        """The kernel's axes as a Dense has them: summed, then new."""
        return [self.kernel.index(letter) for letter in self.summed + self.new]

    @property
    def keeps_kernel(self) -> bool:
        """Whether the kernel is that of a Dense as it stands."""
        return len(self.summed) == 1 and self.order == [0, 1]


def contraction_of(equation: str, rank: int) -> Contraction | str:
    """The equation of an EinsumDense on an input of that rank; or why it is no contraction."""
    inputs, output = equation.replace(" ", "").split("->")
    given, kernel = inputs.split(",")
    # Axes that '...' stands for get digits, which no equation has.
    elided = "".join(map(str, range(rank - len(given.replace("...", "")))))
    found = Contraction(given.replace("...", elided), kernel, output.replace("...", elided))
    for letters in (found.given, found.kernel, found.output):
        if len(set(letters)) != len(letters):
            return f"its equation {equation!r} has a letter twice in one term"
    shared = "".join(letter for letter in found.summed if letter in found.output)
    if shared:
        return f"its equation {equation!r} has a kernel of its own for each index of {shared!r}, which no Dense has"
    if set(found.free + found.new) != set(found.output) or set(found.summed + found.new) != set(found.kernel):
        return f"its equation {equation!r} sums over letters of one term alone"
    if found.given[:1] != found.free[:1] or found.given[:1] != found.output[:1]:
        return f"its equation {equation!r} moves the batch"
    return found


def split(whole: Op, shapes: Sequence[Shape]) -> list[Part]:
    """The pieces of an EinsumDense that reads a tensor of that shape."""
    config = whole.source.config
    found = contraction_of(config["equation"], len(shapes[0]))
    reason = found if isinstance(found, str) else _obstacle(found, whole, shapes[0])
    return kept_whole(whole, reason) if isinstance(found, str) or reason else _pieces(found, whole, shapes[0])


def _obstacle(found: Contraction, whole: Op, shape: Shape) -> str:
    """Why the Dense cannot stand for the whole; empty where it can."""
    config = whole.source.config
    reshapes = len(found.summed) != 1 or len(found.new) != 1
    unknown = [size for letter, size in zip(found.given[1:], shape[1:], strict=True) if size is None]
    if reshapes and len(unknown) > 1:
        return f"its input has the shape {shape}: axes are merged where at most one size besides the batch is None"
    if not found.keeps_kernel and config.get("kernel_constraint"):
        return f"its kernel_constraint is made for a kernel of the axes {found.kernel!r}, not for that of a Dense"
    if config.get("bias_axes") and set(config["bias_axes"]) != set(found.new):
        return f"its bias is on the axes {config['bias_axes']!r}, not on the kernel's output axes {found.new!r}"
    return _ambiguous_bias(found, whole, shape)


def _ambiguous_bias(found: Contraction, whole: Op, shape: Shape) -> str:
    """Why it is not sure what the bias is added to; empty where it is.

    On TensorFlow, Keras' add takes a bias (n, 1) for one along the last axis or the second, if one of them has n.
    """
    bias = tuple(whole.source.values[1].shape) if whole.source.config.get("bias_axes") else ()
    long = [axis - len(bias) for axis, size in enumerate(bias) if size > 1]
    if len(long) != 1 or long == [-1]:
        return ""
    sizes = dict(zip(found.given, shape, strict=True)) | dict(zip(found.kernel, whole.kernel_shape, strict=True))
    output = [sizes[letter] for letter in found.output]
    second = 1 - len(output)
    taken = [axis for axis in (-1, second) if output[axis] in (bias[long[0]], None)]
    if taken and taken != long:
        return f"its bias of shape {bias} may be added along another axis: Keras tells axes by their size there"
    return ""


def _pieces(found: Contraction, whole: Op, shape: Shape) -> list[Part]:
    sizes = dict(zip(found.given, shape, strict=True)) | dict(zip(found.kernel, whole.kernel_shape, strict=True))
    free = tuple(sizes[letter] for letter in found.free)
    width = prod(sizes[letter] or 1 for letter in found.new)
    parts = _permuted(whole, "permute", found.given, found.free + found.summed, sizes)
    if len(found.summed) != 1:
        merged = (*free, prod(sizes[letter] or 1 for letter in found.summed))
        parts.append(_reshape(whole, "reshape", merged))
    parts.append(Part(_dense(found, whole, width), (PREVIOUS,), (*free, width)))
    act = activation_of(whole)
    mixes = activation_kind(whole.source.config.get("activation")) in MIXING
    # In front of the reshape, where it fuses with the product.
    parts += [] if mixes else [replace(part, shape=(*free, width)) for part in act]
    if len(found.new) != 1:
        parts.append(_reshape(whole, "part", (*free, *(sizes[letter] for letter in found.new))))
    parts += _permuted(whole, "arrange", found.free + found.new, found.output, sizes)
    parts += act if mixes else []
    return [replace(parts[0], reads=(0,)), *parts[1:]]


def _dense(found: Contraction, whole: Op, width: int) -> Op:
    kernel, *bias = whole.source.values
    if not found.keeps_kernel:
        kernel = np.transpose(_array(kernel), found.order).reshape(-1, width)
    if bias and len(bias[0].shape) != 1:
        bias = [_array(bias[0]).reshape(width)]
    config = {key: whole.source.config.get(key) for key in _KEPT}
    config |= {"units": width, "use_bias": bool(bias), **regularizer_of(whole)}
    source = derived(whole, keras.layers.Dense, config, (kernel, *bias), "dense")
    return piece(whole, whole.layer_name, "dense", source)


def _permuted(whole: Op, word: str, before: str, after: str, sizes: dict[str, int | None]) -> list[Part]:
    if before == after:
        return []
    dims = [before.index(letter) for letter in after[1:]]
    source = derived(whole, keras.layers.Permute, {"dims": dims}, (), (word, *dims))
    op = piece(whole, f"{whole.layer_name}/{word}", "permute", source)
    return [Part(op, (PREVIOUS,), tuple(sizes[letter] for letter in after))]


def _reshape(whole: Op, word: str, shape: Shape) -> Part:
    target = [-1 if size is None else size for size in shape[1:]]
    source = derived(whole, keras.layers.Reshape, {"target_shape": target}, (), (word, *target))
    return Part(piece(whole, f"{whole.layer_name}/{word}", "reshape", source), (PREVIOUS,), shape)


def _array(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value))
