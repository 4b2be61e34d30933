"""Kind: how TFLite runs a kind of op on integers; the table of all that it does.

A kind that is not here has no int8 form in TFLite, or none that these exports need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tfqat.exporters.tflite_graph import elementwise, layout, product, spatial, weighted
from tfqat.exporters.tflite_graph.affine import AFFINE, affine
from tfqat.exporters.tflite_graph.emission import Emission, Step
from tfqat.graph.kinds import IDENTITY

Emit = Callable[[Emission, Step], None]


@dataclass(frozen=True)
class Kind:
    """One kind of op.

    Attributes:
        emit: writes a step whose op is of this kind.
        fuses: whether its operator applies a ReLU before it rounds.
    """

    emit: Emit
    fuses: bool = False


_WEIGHTED: dict[str, Emit] = {
    **dict.fromkeys(("conv1d", "conv2d"), weighted.conv),
    **dict.fromkeys(("depthwise_conv1d", "depthwise_conv2d"), weighted.depthwise_conv),
    **dict.fromkeys(("conv1d_transpose", "conv2d_transpose"), weighted.conv_transpose),
    "dense": weighted.dense,
}
_ARITHMETIC: dict[str, Emit] = {
    "add": elementwise.binary("ADD"),
    "subtract": elementwise.binary("SUB"),
    "multiply": elementwise.multiply,
    "average": elementwise.average,
    "matmul": product.matmul,
}
_ACTIVATIONS: dict[str, Emit] = {
    "relu": elementwise.activation("RELU"),
    "relu6": elementwise.activation("RELU6"),
    "leaky_relu": elementwise.activation("LEAKY_RELU", elementwise.leaky_slope),
    "prelu": elementwise.prelu,
    "elu": elementwise.activation("ELU", elementwise.elu_alpha),
    "gelu": elementwise.activation("GELU", elementwise.gelu_form),
    "hard_silu": elementwise.activation("HARD_SWISH"),
    "sigmoid": elementwise.activation("LOGISTIC"),
    "tanh": elementwise.activation("TANH"),
    "softmax": elementwise.activation("SOFTMAX", elementwise.softmax_axis),
    "log_softmax": elementwise.activation("LOG_SOFTMAX", elementwise.log_softmax_axis),
}
_SPATIAL: dict[str, Emit] = {
    **dict.fromkeys("average_pooling1d average_pooling2d average_pool".split(), spatial.pooling("AVERAGE_POOL_2D")),
    **dict.fromkeys("max_pooling1d max_pooling2d max_pool".split(), spatial.pooling("MAX_POOL_2D")),
    **dict.fromkeys(("global_average_pooling1d", "global_average_pooling2d"), spatial.global_pooling("MEAN")),
    **dict.fromkeys(("global_max_pooling1d", "global_max_pooling2d"), spatial.global_pooling("REDUCE_MAX")),
    "mean": spatial.reduction("MEAN"),
    "max": spatial.reduction("REDUCE_MAX"),
    "min": spatial.reduction("REDUCE_MIN"),
    **dict.fromkeys(
        ("up_sampling1d", "up_sampling2d"),
        spatial.up_sampling("RESIZE_NEAREST_NEIGHBOR", ("nearest",), halfPixelCenters=False),
    ),
    "up_sampling2d_smooth": spatial.up_sampling("RESIZE_BILINEAR", ("bilinear",), halfPixelCenters=True),
}
_LAYOUT: dict[str, Emit] = {
    "concatenate": layout.concatenate,
    **dict.fromkeys(("zero_padding1d", "zero_padding2d"), layout.zero_padding),
    "pad": layout.pad,
    "pad_filled": layout.pad,
    **dict.fromkeys(("cropping1d", "cropping2d"), layout.cropping),
    "get_item": layout.get_item,
    "split": layout.split,
    "tile": layout.tile,
    "repeat_vector": layout.repeat_vector,
    "maximum": elementwise.extreme("MAXIMUM"),
    "minimum": elementwise.extreme("MINIMUM"),
    **dict.fromkeys("reshape flatten ravel squeeze expand_dims".split(), layout.reshape),
    **dict.fromkeys("permute transpose swapaxes moveaxis".split(), layout.transpose),
    **dict.fromkeys(IDENTITY | {"stop_gradient", "copy"}, layout.identity),
}

KINDS: Mapping[str, Kind] = {
    **{kind: Kind(emit, fuses=True) for kind, emit in (_WEIGHTED | _ARITHMETIC).items()},
    **dict.fromkeys(AFFINE, Kind(affine, fuses=True)),
    **{kind: Kind(emit) for kind, emit in (_ACTIVATIONS | _SPATIAL | _LAYOUT).items()},
}
