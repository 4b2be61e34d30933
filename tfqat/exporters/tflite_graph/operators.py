"""Operator: a TFLite builtin with an int8 form; its version in the file, its options, the runtimes that know it.

Versions and runtimes: ``tensorflow/lite/tools/versioning/op_version.cc`` and ``runtime_version.cc``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Operator:
    """One builtin.

    Attributes:
        version: the one whose kernel takes int8.
        runtime: the oldest TFLite runtime with that version.
        options: name of its options table in the schema, None where it has none.
        later: further versions (for what the usual one cannot) -> the oldest runtime with them.
    """

    version: int
    runtime: str
    options: str | None = None
    later: Mapping[int, str] = field(default_factory=dict)

    def runtime_of(self, version: int) -> str:
        """The oldest runtime with that version."""
        return self.later.get(version, self.runtime)


OPERATORS: Mapping[str, Operator] = {
    "ADD": Operator(2, "1.14.0", "AddOptions"),
    "AVERAGE_POOL_2D": Operator(2, "1.14.0", "Pool2DOptions"),
    "BATCH_MATMUL": Operator(2, "2.3.0", "BatchMatMulOptions"),
    "CONCATENATION": Operator(2, "1.14.0", "ConcatenationOptions"),
    "CONV_2D": Operator(3, "1.14.0", "Conv2DOptions", {6: "2.9.0"}),  # 6: groups
    "DEPTHWISE_CONV_2D": Operator(3, "1.14.0", "DepthwiseConv2DOptions"),
    "ELU": Operator(1, "1.14.0"),
    "FULLY_CONNECTED": Operator(4, "1.14.0", "FullyConnectedOptions", {5: "2.0.0"}),  # 5: inputs of more axes
    "GELU": Operator(1, "2.5.0", "GeluOptions"),
    "HARD_SWISH": Operator(1, "1.15.0", "HardSwishOptions"),
    "LEAKY_RELU": Operator(1, "1.13.1", "LeakyReluOptions"),
    "LOGISTIC": Operator(2, "1.14.0"),
    "LOG_SOFTMAX": Operator(2, "1.14.0", "LogSoftmaxOptions"),
    "MAXIMUM": Operator(2, "1.14.0", "MaximumMinimumOptions"),
    "MAX_POOL_2D": Operator(2, "1.14.0", "Pool2DOptions"),
    "MEAN": Operator(2, "1.14.0", "ReducerOptions"),
    "MINIMUM": Operator(2, "1.14.0", "MaximumMinimumOptions"),
    "MIRROR_PAD": Operator(2, "2.3.0", "MirrorPadOptions"),
    "MUL": Operator(2, "1.14.0", "MulOptions", {3: "1.15.0"}),  # 3: a step of the output below that of a product
    "PACK": Operator(1, "1.11.0", "PackOptions"),
    "PAD": Operator(2, "1.14.0", "PadOptions"),
    "PADV2": Operator(2, "1.14.0", "PadV2Options"),
    "PRELU": Operator(1, "1.8.0"),
    "REDUCE_MAX": Operator(2, "1.14.0", "ReducerOptions"),
    "REDUCE_MIN": Operator(2, "1.14.0", "ReducerOptions"),
    "RELU": Operator(2, "2.1.0"),
    "RELU6": Operator(2, "1.14.0"),
    "RESHAPE": Operator(1, "1.5.0", "ReshapeOptions"),
    "RESIZE_BILINEAR": Operator(3, "2.2.0", "ResizeBilinearOptions"),
    "RESIZE_NEAREST_NEIGHBOR": Operator(2, "1.14.0", "ResizeNearestNeighborOptions"),
    "SHAPE": Operator(1, "1.10.0", "ShapeOptions"),
    "SOFTMAX": Operator(2, "1.14.0", "SoftmaxOptions"),
    "STRIDED_SLICE": Operator(2, "1.14.0", "StridedSliceOptions"),
    "SUB": Operator(2, "1.14.0", "SubOptions"),
    "TANH": Operator(2, "1.14.0"),
    "TILE": Operator(3, "2.8.0", "TileOptions"),
    "TRANSPOSE": Operator(2, "1.14.0", "TransposeOptions"),
    "TRANSPOSE_CONV": Operator(3, "2.3.0", "TransposeConvOptions", {4: "2.12.0"}),  # 4: a fused activation
}
