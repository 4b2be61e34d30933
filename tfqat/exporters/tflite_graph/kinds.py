"""Kind: how TFLite runs a kind of op on integers; the table of all that it does.

A kind that is not here has no int8 form in TFLite, or none that these exports need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tfqat.exporters.tflite_graph import elementwise, layout, spatial, weighted
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
    "conv2d": weighted.conv2d,
    "depthwise_conv2d": weighted.depthwise_conv2d,
    "conv2d_transpose": weighted.conv2d_transpose,
    "dense": weighted.dense,
}
_ARITHMETIC: dict[str, Emit] = {
    "add": elementwise.binary("ADD"),
    "subtract": elementwise.binary("SUB"),
    "multiply": elementwise.multiply,
    "average": elementwise.average,
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
    "average_pooling2d": spatial.pooling("AVERAGE_POOL_2D"),
    "average_pool": spatial.pooling("AVERAGE_POOL_2D"),
    "max_pooling2d": spatial.pooling("MAX_POOL_2D"),
    "max_pool": spatial.pooling("MAX_POOL_2D"),
    "global_average_pooling2d": spatial.global_pooling("MEAN"),
    "global_max_pooling2d": spatial.global_pooling("REDUCE_MAX"),
    "mean": spatial.reduction("MEAN"),
    "max": spatial.reduction("REDUCE_MAX"),
    "min": spatial.reduction("REDUCE_MIN"),
    "up_sampling2d": spatial.up_sampling("RESIZE_NEAREST_NEIGHBOR", ("nearest",), halfPixelCenters=False),
    "up_sampling2d_smooth": spatial.up_sampling("RESIZE_BILINEAR", ("bilinear",), halfPixelCenters=True),
}
_LAYOUT: dict[str, Emit] = {
    "concatenate": layout.concatenate,
    "zero_padding2d": layout.zero_padding2d,
    "pad": layout.pad,
    "pad_filled": layout.pad,
    "cropping2d": layout.cropping2d,
    "get_item": layout.get_item,
    "split": layout.split,
    "tile": layout.tile,
    "repeat_vector": layout.repeat_vector,
    "maximum": elementwise.extreme("MAXIMUM"),
    "minimum": elementwise.extreme("MINIMUM"),
    **dict.fromkeys("reshape flatten ravel squeeze expand_dims".split(), layout.reshape),
    **dict.fromkeys("permute transpose swapaxes".split(), layout.transpose),
    **dict.fromkeys(IDENTITY, layout.identity),
}

KINDS: Mapping[str, Kind] = {
    **{kind: Kind(emit, fuses=True) for kind, emit in (_WEIGHTED | _ARITHMETIC).items()},
    **dict.fromkeys(AFFINE, Kind(affine, fuses=True)),
    **{kind: Kind(emit) for kind, emit in (_ACTIVATIONS | _SPATIAL | _LAYOUT).items()},
}
