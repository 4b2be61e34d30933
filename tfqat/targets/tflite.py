"""TFLite (LiteRT, TFLite Micro): integers only; asymmetric INT8 activations, per-channel INT8 weights, INT32 biases.

Source: TensorFlow Lite 8-bit quantization specification. Ranges: average pooling, bilinear resizing keep their input's
grid; concatenation, padding, reshaping, slicing, minimum and maximum share it; sigmoid, softmax, log_softmax and tanh
have one that is fixed; a mean has its own. Only relu, relu6 and hard_tanh (relu_n1_to_1) fuse.
"""

from __future__ import annotations

from tfqat.core.scheme import Scheme
from tfqat.graph.block import chain
from tfqat.graph.target import Target

SPECIFICATION = "https://www.tensorflow.org/lite/performance/quantization_spec"

# What works over one axis is run on images of height 1.
WEIGHTED = frozenset("conv1d conv2d depthwise_conv1d depthwise_conv2d conv1d_transpose conv2d_transpose dense".split())
VOLUMES = (
    "conv3d conv3d_transpose average_pooling3d max_pooling3d global_average_pooling3d global_max_pooling3d".split()
)
FUSED = frozenset({"relu", "relu6", "hard_tanh"})
# One multiplication and one addition a channel: a 1 x 1 depthwise convolution.
AFFINE = frozenset(
    (
        "rescaling normalization batch_normalization add_constant subtract_constant multiply_constant divide_constant"
    ).split()
)
ELEMENTWISE = frozenset("add subtract multiply average".split())
ACTIVATIONS = frozenset("relu relu6 leaky_relu prelu elu gelu hard_silu".split())
SHARED = frozenset(
    (
        "max_pooling1d max_pooling2d max_pool global_max_pooling1d global_max_pooling2d max min maximum minimum "
        "concatenate reshape flatten ravel squeeze expand_dims permute transpose swapaxes moveaxis zero_padding1d "
        "zero_padding2d pad pad_filled cropping1d cropping2d get_item split tile repeat_vector up_sampling1d "
        "up_sampling2d stop_gradient copy"
    ).split()
)

# Pixels from 0 to 255 shifted to -1 to 1 would all lie half-way between two integers of the usual grid, and each
# program would round them in its own way; so would all zeros that a hard sigmoid shifts to the middle of 0 to 6. On a
# grid without the lowest integer they do not.
SHIFTING = frozenset("rescaling normalization add_constant subtract_constant".split())

TARGET = Target(
    name="tflite",
    activation=Scheme(symmetric=False),
    activation_of=dict.fromkeys(SHIFTING, Scheme(symmetric=False, narrow=True)),
    heads_decide=True,
    weight=Scheme(narrow=True),
    weighted=WEIGHTED,
    per_tensor=frozenset({"dense"}),
    own_range=AFFINE
    | ELEMENTWISE
    | ACTIVATIONS
    | {"global_average_pooling1d", "global_average_pooling2d", "mean", "matmul"},
    shared_range=SHARED,
    tied_range=frozenset({"average_pooling1d", "average_pooling2d", "average_pool", "up_sampling2d_smooth"}),
    fixed_range={
        "sigmoid": (0.0, 255 / 256),
        "softmax": (0.0, 255 / 256),
        "log_softmax": (-255 * 16 / 256, 0.0),
        "tanh": (-1.0, 127 / 128),
    },
    spelled_out=frozenset({"silu", "hard_sigmoid"}),
    blocks=(
        chain("weighted_bn_act", SPECIFICATION, WEIGHTED, {"batch_normalization"}, FUSED),
        chain("elementwise_act", SPECIFICATION, ELEMENTWISE, FUSED),
        chain("affine_act", SPECIFICATION, AFFINE, FUSED),
    ),
    causes=dict.fromkeys(VOLUMES, "its kernels over three axes know floats only"),
    integer_bias=True,
    integer_constants=True,
    float_inputs=False,
    float_outputs=False,
    exporters=("tflite", "qdq_onnx", "aimet"),
    source=SPECIFICATION,
)
