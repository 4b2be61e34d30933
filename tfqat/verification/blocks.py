"""Block judge: each block of the Q/DQ ONNX, fed the trained model's own input, against its own output, as integers.

The model is cut at every quantized tensor that Keras knows: what follows its DequantizeLinear becomes an input, its
QuantizeLinear's integers become an output, and one run judges all blocks, none of which sees the error of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tfqat.errors import TfqatError
from tfqat.verification.keras_values import KerasValues
from tfqat.verification.runner import Runner

SAME_SHARE, LARGEST_STEP = 0.999, 1
# A value that is this near to half-way between two integers, in steps, has no right one: float32 has 24 bits, the
# integer takes 8 and the order of additions 3. Where an op averages integers onto a grid of the same scale, many lie
# there (measured: 11 % behind a bilinear UpSampling2D), and each program rounds them by its own last bit.
TIE = 2.0**-13


@dataclass(frozen=True)
class BlockScore:
    """How one block's output agrees.

    Attributes:
        tensor: its name.
        elements: how many were compared.
        differing: how many are on another integer, but for values half-way between two (TIE).
        largest: the farthest apart, in steps.
    """

    tensor: str
    elements: int
    differing: int
    largest: int

    @property
    def passed(self) -> bool:
        """Whether at least 99.9 % are on the same integer and the rest one step apart."""
        # In a small tensor one element is more than 0.1 %: float addition in another order may still move it.
        allowed = max(1.0, (1 - SAME_SHARE) * self.elements)
        return self.differing <= allowed and self.largest <= LARGEST_STEP


@dataclass(frozen=True)
class _Cut:
    """One quantized tensor: names of its pair's nodes, and its numbers."""

    tensor: str
    quantized: str
    dequantized: str
    scale: np.float32
    zero_point: int
    low: int
    high: int

    def integers(self, values: np.ndarray) -> np.ndarray:
        steps = np.rint(values.astype(np.float32) / self.scale).astype(np.int64) + self.zero_point
        return np.clip(steps, self.low, self.high)


def judge_blocks(
    model: onnx.ModelProto,
    keras_values: KerasValues,
    inputs: Mapping[str, np.ndarray],
    names: Mapping[str, str],
) -> list[BlockScore]:
    """The BlockScore of each tensor that both sides quantize.

    Args:
        model: Q/DQ ONNX.
        keras_values: what the finalized model computes on ``inputs``.
        inputs: ONNX input -> array.
        names: ONNX tensor -> Keras tensor, for those whose names differ.
    """
    cuts = [cut for cut in _cuts(model) if names.get(cut.tensor, cut.tensor) in keras_values.after]
    if not cuts:
        return []
    expected = {cut.tensor: keras_values.after[names.get(cut.tensor, cut.tensor)] for cut in cuts}
    orders = _layouts(model, cuts, expected, inputs)
    fed = {cut.dequantized: np.transpose(expected[cut.tensor], orders[cut.tensor]) for cut in cuts}
    runner = Runner(_cut_model(model, cuts))
    given = {name: inputs[name] if name in inputs else fed[name] for name in runner.inputs}
    found = runner.run(given, [cut.quantized for cut in cuts])
    before = {cut.tensor: keras_values.before.get(names.get(cut.tensor, cut.tensor)) for cut in cuts}
    return [_score(cut, found[cut.quantized], expected[cut.tensor], before[cut.tensor], orders) for cut in cuts]


def judged_tensors(model: onnx.ModelProto, names: Mapping[str, str]) -> set[str]:
    """The Keras tensors that :func:`judge_blocks` compares, where they are the model's; ``names`` as it takes them."""
    return {names.get(cut.tensor, cut.tensor) for cut in _cuts(model)}


def _score(
    cut: _Cut,
    found: np.ndarray,
    after: np.ndarray,
    before: np.ndarray | None,
    orders: Mapping[str, tuple[int, ...]],
) -> BlockScore:
    """Compares with the integers of Keras' value ``after`` its Quantizer, which read ``before``."""
    order = orders[cut.tensor]
    integers = found.astype(np.int64)
    wanted = cut.integers(np.transpose(after, order))
    apart = np.abs(integers - wanted)
    if before is not None:
        exact = np.transpose(before, order).astype(np.float64) / np.float64(cut.scale) + cut.zero_point
        halfway = np.abs(exact - (integers + wanted) / 2) <= TIE
        apart = np.where((apart == 1) & halfway, 0, apart)
    return BlockScore(cut.tensor, apart.size, int(np.count_nonzero(apart)), int(apart.max(initial=0)))


def _cuts(model: onnx.ModelProto) -> list[_Cut]:
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    backs = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    clips = {node.input[0]: node for node in model.graph.node if node.op_type == "Clip"}
    cuts = []
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in arrays:
            continue
        scale, zero_point = (numpy_helper.to_array(arrays[name]) for name in node.input[1:])
        integers, low, high = node.output[0], *_limits(zero_point.dtype)
        if integers in clips:  # fewer integers than the type has
            low, high = (int(numpy_helper.to_array(arrays[name])) for name in clips[integers].input[1:])
            integers = clips[integers].output[0]
        name = node.name.removesuffix("/quantize")
        cuts.append(_Cut(name, integers, backs[integers], np.float32(scale), int(zero_point), low, high))
    return cuts


def _limits(dtype: np.dtype) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _layouts(
    model: onnx.ModelProto, cuts: Sequence[_Cut], expected: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    """Tensor -> the order of Keras' axes in ONNX: of those that fit the shape, the one whose values agree best."""
    runner = Runner(_with_outputs(model, [cut.quantized for cut in cuts]))
    # One image is enough, but for a batch of fixed size, and tensors in which all images lie side by side.
    images = len(next(iter(inputs.values())))
    fixed = any(shape and shape[0] for shape in runner.input_shapes)
    count = images if fixed or any(value.shape[:1] != (images,) for value in expected.values()) else 1
    first = {name: value[:count] for name, value in inputs.items()}
    found = runner.run(first, [cut.quantized for cut in cuts])
    orders = {}
    for cut in cuts:
        values = cut.integers(expected[cut.tensor] if count == images else expected[cut.tensor][:1])
        target = found[cut.quantized].astype(np.int64)
        fitting = list(_fitting(values.shape, target.shape))
        if not fitting:
            raise TfqatError(
                f"Tensor {cut.tensor!r} has shape {target.shape} in ONNX and {values.shape} in the model: the files "
                f"were made of another one. Export this one."
            )
        orders[cut.tensor] = min(fitting, key=lambda o: int(np.abs(np.transpose(values, o) - target).sum()))
    return orders


def _fitting(shape: Sequence[int], wanted: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The orders of axes that turn ``shape`` into ``wanted``, those that keep the batch first before others."""
    for order in permutations(range(len(shape))):
        if tuple(shape[axis] for axis in order) == tuple(wanted):
            yield order


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {info.name for info in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    return copy


def _cut_model(model: onnx.ModelProto, cuts: Sequence[_Cut]) -> onnx.ModelProto:
    """``model`` with the dequantized tensors as inputs and the integers as outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    ends = {cut.dequantized for cut in cuts}
    kept = [node for node in copy.graph.node if node.output[0] not in ends]
    del copy.graph.node[:], copy.graph.output[:]
    copy.graph.node.extend(kept)
    copy.graph.output.extend(onnx.ValueInfoProto(name=cut.quantized) for cut in cuts)
    inputs = [helper.make_tensor_value_info(cut.dequantized, TensorProto.FLOAT, None) for cut in cuts]
    copy.graph.input.extend(inputs)
    return copy
