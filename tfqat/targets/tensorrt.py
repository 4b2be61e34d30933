"""TensorRT on NVIDIA GPUs: symmetric INT8, per-tensor activations, per-channel weights, float outputs.

Sources: TensorRT developer guide, "Working with Quantized Types" (explicit quantization, Q/DQ placement) and "Types of
Fusions"; NVIDIA yolo_deepstream, yolov7_qat, "Guidance of Q/DQ insertion" (shared ranges of Concat and MaxPool).
"""

from __future__ import annotations

from tfqat.core.scheme import Scheme
from tfqat.graph.block import Step, chain
from tfqat.graph.target import Target

GUIDE = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html"
FUSIONS = "https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/best-practices.html#types-of-fusions"

CONVOLUTIONS = frozenset({"conv2d", "depthwise_conv2d", "conv2d_transpose"})
WEIGHTED = CONVOLUTIONS | {"dense"}
# One kernel each, so nothing inside them needs a range.
PLAIN = frozenset("relu relu6 clipped_relu leaky_relu prelu elu selu sigmoid tanh softplus softsign".split())
# Several elementwise kernels unless TensorRT recognizes the pattern.
COMPOSITE = frozenset("silu hard_silu gelu hard_sigmoid mish celu".split())
ELEMENTWISE = frozenset("add subtract multiply divide maximum minimum average".split())
WITH_CONSTANT = frozenset(
    ["add_constant", "subtract_constant", "multiply_constant", "divide_constant", "maximum_constant"]
)
# They give values that none of their inputs had.
MIXING = frozenset(
    (
        "average_pooling2d global_average_pooling2d adaptive_average_pooling2d mean up_sampling2d_smooth pad_filled"
    ).split()
)
SHARED = frozenset(
    (
        "max_pooling2d global_max_pooling2d adaptive_max_pooling2d max concatenate reshape flatten permute "
        "transpose squeeze expand_dims zero_padding2d pad cropping2d up_sampling2d get_item slice split unstack "
        "repeat tile roll flip swapaxes moveaxis ravel repeat_vector broadcast_to stop_gradient"
    ).split()
)

TARGET = Target(
    name="tensorrt",
    activation=Scheme(bits=8, signed=True, symmetric=True),
    weight=Scheme(bits=8, signed=True, symmetric=True, narrow=True),
    weighted=WEIGHTED,
    own_range=PLAIN | COMPOSITE | ELEMENTWISE | WITH_CONSTANT | MIXING | {"matmul"},
    shared_range=SHARED,
    composite=COMPOSITE | {"add_constant"},
    blocks=(
        chain("conv_bn_add_act", FUSIONS, CONVOLUTIONS, {"batch_normalization"}, {"add"}, PLAIN | COMPOSITE),
        chain("weighted_bn_act", FUSIONS, WEIGHTED, {"batch_normalization"}, PLAIN | COMPOSITE),
        # x -> relu6(x + 3) / 6, as keras.applications' MobileNetV3 spells the hard sigmoid.
        chain(
            "weighted_hard_sigmoid",
            FUSIONS,
            WEIGHTED,
            {"batch_normalization"},
            Step(frozenset({"add_constant"})),
            Step(frozenset({"relu6"})),
            Step(frozenset({"multiply_constant"})),
        ),
        chain("elementwise_act", FUSIONS, ELEMENTWISE, PLAIN | COMPOSITE),
        chain("bn_act", FUSIONS, {"batch_normalization"}, PLAIN | COMPOSITE),
    ),
    residual_heads=CONVOLUTIONS,
    float_outputs=True,
    exporters=("tensorrt", "tensorrt_dla", "qdq_onnx", "aimet"),
    source=GUIDE,
)
