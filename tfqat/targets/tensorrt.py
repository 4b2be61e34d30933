"""TensorRT on NVIDIA GPUs: symmetric INT8, per-tensor activations, per-channel weights, float outputs.

Sources: TensorRT developer guide, "Working with Quantized Types" (explicit quantization, Q/DQ placement), "Types of
Fusions" and "Fused Attention"; NVIDIA yolo_deepstream, yolov7_qat, "Guidance of Q/DQ insertion" (shared ranges of
Concat and MaxPool).
"""

from __future__ import annotations

from tfqat.core.scheme import Scheme
from tfqat.graph.block import Step, chain
from tfqat.graph.target import Target

GUIDE = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html"
ATTENTION = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/transformers-fused-attention.html"
FUSIONS = "https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/best-practices.html#types-of-fusions"

# Its parser runs one spatial axis as two.
CONVOLUTIONS = frozenset(
    (
        "conv1d conv2d conv3d depthwise_conv1d depthwise_conv2d conv1d_transpose conv2d_transpose conv3d_transpose"
    ).split()
)
WEIGHTED = CONVOLUTIONS | {"dense"}
# One kernel each, so nothing inside them needs a range.
PLAIN = frozenset(
    "relu relu6 clipped_relu leaky_relu prelu elu selu sigmoid tanh hard_tanh clip softplus softsign".split()
)
# Several elementwise kernels unless TensorRT recognizes the pattern.
COMPOSITE = frozenset("silu hard_silu gelu hard_sigmoid mish celu".split())
ELEMENTWISE = frozenset("add subtract multiply divide maximum minimum average".split())
WITH_CONSTANT = frozenset(
    "add_constant subtract_constant multiply_constant divide_constant maximum_constant minimum_constant".split()
)
# A factor and a summand, which go into the kernel and the bias.
AFFINE = WITH_CONSTANT - {"maximum_constant", "minimum_constant"}
# They give values that none of their inputs had.
MIXING = frozenset(
    (
        "average_pooling1d average_pooling2d average_pooling3d average_pool global_average_pooling1d "
        "global_average_pooling2d global_average_pooling3d adaptive_average_pooling1d adaptive_average_pooling2d "
        "adaptive_average_pooling3d adaptive_average_pool mean sum up_sampling2d_smooth resizing_smooth resize_smooth "
        "pad_filled"
    ).split()
)
SHARED = frozenset(
    (
        "max_pooling1d max_pooling2d max_pooling3d max_pool global_max_pooling1d global_max_pooling2d "
        "global_max_pooling3d adaptive_max_pooling1d adaptive_max_pooling2d adaptive_max_pooling3d adaptive_max_pool "
        "max min concatenate stack reshape flatten ravel permute transpose swapaxes moveaxis squeeze expand_dims "
        "zero_padding1d zero_padding2d zero_padding3d pad cropping1d cropping2d cropping3d center_crop get_item slice "
        "split array_split unstack take flip roll rot90 repeat tile repeat_vector broadcast_to up_sampling1d "
        "up_sampling2d up_sampling3d resizing resize depth_to_space space_to_depth stop_gradient copy"
    ).split()
)
SCALING = frozenset({"multiply_constant", "divide_constant"})
# What may happen to the scores of an attention: scales, a cap (``c * tanh(x / c)``), what they are added to or chosen
# by (a bias, a mask), and the axes of images or windows parted and merged for that.
ON_SCORES = SCALING | frozenset(
    (
        "tanh add subtract add_constant subtract_constant where causal_mask reshape permute transpose swapaxes "
        "moveaxis expand_dims squeeze"
    ).split()
)
# Both products on integers, and the scores between them in float, as the fused kernels have them.
SCORES = chain(
    "attention",
    ATTENTION,
    {"matmul"},
    *([ON_SCORES] * 12),
    Step(frozenset({"softmax", "masked_softmax"})),
    takes_floats=True,
)

TARGET = Target(
    name="tensorrt",
    activation=Scheme(bits=8, signed=True, symmetric=True),
    weight=Scheme(bits=8, signed=True, symmetric=True, narrow=True),
    weighted=WEIGHTED,
    # INT4 is for the weights of MatMul and Gemm alone (the guide's "weight-only quantization"; TensorRT 10 and later).
    weights_only={"dense": frozenset({4})},
    own_range=PLAIN | COMPOSITE | ELEMENTWISE | WITH_CONSTANT | MIXING | {"matmul"},
    shared_range=SHARED,
    composite=COMPOSITE | {"add_constant"},
    # A sum, which a convolution before it takes in like a residual, and a scale.
    spelled_out=frozenset({"average"}),
    blocks=(
        chain(
            "conv_bn_scale_add_act",
            FUSIONS,
            CONVOLUTIONS,
            {"batch_normalization"},
            *([AFFINE] * 6),
            {"add"},
            PLAIN | COMPOSITE,
        ),
        chain("weighted_bn_scale_act", FUSIONS, WEIGHTED, {"batch_normalization"}, *([AFFINE] * 6), PLAIN | COMPOSITE),
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
        chain("elementwise_act", FUSIONS, ELEMENTWISE | WITH_CONSTANT, PLAIN | COMPOSITE),
        chain("bn_act", FUSIONS, {"batch_normalization"}, PLAIN | COMPOSITE),
        chain("matmul_scale", FUSIONS, {"matmul"}, SCALING, takes_floats=True),
        SCORES,
    ),
    residual_heads=CONVOLUTIONS,
    float_outputs=True,
    exporters=("tensorrt", "tensorrt_dla", "qdq_onnx", "aimet"),
    source=GUIDE,
)
