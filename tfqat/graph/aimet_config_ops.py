"""ONNX op: the name by which an AIMET-style config speaks of ops, and the kinds of tfqat that it covers.

Sources: the ONNX operator list (a test compares it with the installed onnx) and the names beside it that AIMET's own
configs use; which of them only move integers: AIMET, ``_is_grid_preserving_op``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from tfqat.graph.kinds import KERNEL_AXES

# Kind -> the ONNX ops that speak for it, the decisive one first: what is not said of that is asked of the next.
# AIMET takes a Linear for Gemm and MatMul alike, and a ReLU6 for a Clip, or (in TensorFlow) for a Relu.
ONNX_NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "depthwise_conv1d", "depthwise_conv2d"), ("Conv",)),
    **dict.fromkeys(("conv1d_transpose", "conv2d_transpose", "conv3d_transpose"), ("ConvTranspose",)),
    "dense": ("Gemm", "MatMul"),
    **dict.fromkeys(("matmul", "dot"), ("MatMul",)),
    "batch_normalization": ("BatchNormalization",),
    "relu": ("Relu",),
    "relu6": ("Clip", "Relu"),
    **dict.fromkeys(("clipped_relu", "hard_tanh", "clip"), ("Clip",)),
    "leaky_relu": ("LeakyRelu",),
    "prelu": ("PRelu",),
    "elu": ("Elu",),
    "selu": ("Selu",),
    "celu": ("Celu",),
    "sigmoid": ("Sigmoid",),
    "hard_sigmoid": ("HardSigmoid",),
    "hard_silu": ("HardSwish",),
    "tanh": ("Tanh",),
    "gelu": ("Gelu", "GELU", "GeLU"),
    "softplus": ("Softplus",),
    "softsign": ("Softsign",),
    "mish": ("Mish",),
    **dict.fromkeys(("softmax", "masked_softmax"), ("Softmax",)),
    "where": ("Where",),
    "log_softmax": ("LogSoftmax",),
    "exponential": ("Exp",),
    "log": ("Log",),
    "sqrt": ("Sqrt",),
    "absolute": ("Abs",),
    "negative": ("Neg",),
    **dict.fromkeys(("power", "power_constant"), ("Pow",)),
    **dict.fromkeys(("add", "add_constant"), ("Add",)),
    **dict.fromkeys(("subtract", "subtract_constant"), ("Sub",)),
    **dict.fromkeys(("multiply", "multiply_constant", "square"), ("Mul",)),
    **dict.fromkeys(("divide", "divide_constant"), ("Div",)),
    **dict.fromkeys(("maximum", "maximum_constant"), ("Max",)),
    **dict.fromkeys(("minimum", "minimum_constant"), ("Min",)),
    "average": ("Mean",),
    "sum": ("ReduceSum",),
    "rescaling": ("Add", "Mul"),
    "normalization": ("Div", "Sub"),
    **dict.fromkeys(
        (
            "average_pooling1d average_pooling2d average_pooling3d adaptive_average_pooling1d "
            "adaptive_average_pooling2d adaptive_average_pooling3d average_pool adaptive_average_pool"
        ).split(),
        ("AveragePool",),
    ),
    **dict.fromkeys(
        "global_average_pooling1d global_average_pooling2d global_average_pooling3d".split(),
        ("GlobalAveragePool", "AveragePool"),
    ),
    "mean": ("ReduceMean",),
    **dict.fromkeys(
        (
            "max_pooling1d max_pooling2d max_pooling3d adaptive_max_pooling1d adaptive_max_pooling2d "
            "adaptive_max_pooling3d max_pool adaptive_max_pool"
        ).split(),
        ("MaxPool",),
    ),
    **dict.fromkeys(
        "global_max_pooling1d global_max_pooling2d global_max_pooling3d".split(), ("GlobalMaxPool", "MaxPool")
    ),
    "max": ("ReduceMax",),
    "min": ("ReduceMin",),
    **dict.fromkeys(("concatenate", "stack"), ("Concat",)),
    "reshape": ("Reshape",),
    **dict.fromkeys(("flatten", "ravel"), ("Flatten", "Reshape")),
    **dict.fromkeys(("permute", "transpose", "swapaxes", "moveaxis"), ("Transpose",)),
    "squeeze": ("Squeeze",),
    "expand_dims": ("Unsqueeze",),
    **dict.fromkeys("zero_padding1d zero_padding2d zero_padding3d pad pad_filled".split(), ("Pad",)),
    **dict.fromkeys("cropping1d cropping2d cropping3d slice flip center_crop".split(), ("Slice",)),
    "get_item": ("Slice", "Gather"),
    "take": ("Gather",),
    **dict.fromkeys(
        (
            "up_sampling1d up_sampling2d up_sampling3d up_sampling2d_smooth resizing resizing_smooth resize "
            "resize_smooth"
        ).split(),
        ("Resize", "Upsample"),
    ),
    "depth_to_space": ("DepthToSpace",),
    "space_to_depth": ("SpaceToDepth",),
    **dict.fromkeys(("split", "array_split", "unstack"), ("Split",)),
    **dict.fromkeys(("repeat", "tile", "repeat_vector"), ("Tile",)),
    "broadcast_to": ("Expand",),
    **dict.fromkeys(("roll", "rot90"), ("Concat",)),
    **dict.fromkeys(("stop_gradient", "copy"), ("Identity",)),
    "cast": ("Cast",),
}
WEIGHTED = frozenset(KERNEL_AXES)
# The integers of their output are integers of their input, so it needs no range of its own.
MOVING = frozenset(
    (
        "max_pooling1d max_pooling2d max_pooling3d max_pool global_max_pooling1d global_max_pooling2d "
        "global_max_pooling3d adaptive_max_pooling1d adaptive_max_pooling2d adaptive_max_pooling3d adaptive_max_pool "
        "max min reshape flatten permute transpose squeeze expand_dims zero_padding1d zero_padding2d zero_padding3d "
        "pad cropping1d cropping2d cropping3d up_sampling1d up_sampling2d up_sampling3d resizing resize get_item take "
        "slice split array_split unstack repeat tile flip swapaxes moveaxis ravel repeat_vector broadcast_to "
        "stop_gradient copy center_crop roll rot90 depth_to_space space_to_depth"
    ).split()
)
# They have no negative output, so a lower bound of 0 says nothing new of them.
NONNEGATIVE = frozenset("relu relu6 sigmoid hard_sigmoid softmax masked_softmax softplus exponential".split())

# All operators of the ONNX standard up to opset 24, whether a Keras layer becomes one or not.
ONNX_OPS = frozenset(
    (
        "Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool "
        "BatchNormalization Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast "
        "CastLike Ceil Celu CenterCropPad Clip Col2Im Compress Concat ConcatFromSequence Constant ConstantOfShape Conv "
        "ConvInteger ConvTranspose Cos Cosh CumSum DFT DeformConv DepthToSpace DequantizeLinear Det Div Dropout "
        "DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements "
        "GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample "
        "GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If ImageDecoder "
        "InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop "
        "LpNormalization LpPool MatMul MatMulInteger Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization "
        "MelWeightMatrix Min Mish Mod Mul Multinomial Neg NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not "
        "OneHot Optional OptionalGetElement OptionalHasElement Or PRelu Pad Pow QLinearConv QLinearMatMul "
        "QuantizeLinear RMSNormalization RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range "
        "Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
        "ReduceSumSquare RegexFullMatch Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT Scan "
        "Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty SequenceErase "
        "SequenceInsert SequenceLength SequenceMap Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax "
        "SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth Split SplitToSequence Sqrt Squeeze StringConcat "
        "StringNormalizer StringSplit Sub Sum Swish Tan Tanh TensorScatter TfIdfVectorizer ThresholdedRelu Tile TopK "
        "Transpose Trilu Unique Unsqueeze Upsample Where Xor"
    ).split()
)
# Names in AIMET's configs that are no ONNX operators.
AIMET_OPS = frozenset(
    (
        "BatchPermutation BatchToSpace ChannelShuffle CropAndResize GELU GeLU LayerNorm MaskedSoftmax SpaceToBatch"
    ).split()
)
# AIMET's searches for patterns that are one op in Keras: there is nothing left to fuse.
PASSES = ("LayerNormalization", "MaskedSoftmax", "MatmulAdd", "RMSNormalization")


def kinds_named(name: str) -> frozenset[str]:
    """The kinds that an ONNX op speaks for; none where no INT8 op of tfqat becomes one."""
    return frozenset(kind for kind, names in ONNX_NAMES.items() if name in names)


def nearest_op(word: str) -> str | None:
    """The known op whose name is most like ``word``."""
    return nearest(word, ONNX_OPS | AIMET_OPS)


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that is most like ``word``, whatever its case; None where none is alike."""
    by_form = {choice.lower(): choice for choice in sorted(choices)}
    found = get_close_matches(word.lower(), by_form, n=1)
    return by_form[found[0]] if found else None
