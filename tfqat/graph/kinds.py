"""Kind: what an op computes, as one canonical word, whatever Keras class or function computes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Weighted ops with a quantized form: kind -> channel axes of the kernel, counted from the end.
# Depthwise kernels (h, w, C, M) have the two merged; transposed ones are (h, w, out, in).
KERNEL_AXES = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), (-1,)),
    **dict.fromkeys(("depthwise_conv1d", "depthwise_conv2d"), (-2, -1)),
    **dict.fromkeys(("conv1d_transpose", "conv2d_transpose", "conv3d_transpose"), (-2,)),
    "dense": (-1,),
}
# Weighted ops without one: they stay float, and say so.
OTHER_WEIGHTED = frozenset(
    (
        "separable_conv1d separable_conv2d einsum_dense embedding reversible_embedding tied_projection "
        "multi_head_attention grouped_query_attention attention additive_attention lstm gru simple_rnn "
        "rnn bidirectional time_distributed conv_lstm1d conv_lstm2d conv_lstm3d"
    ).split()
)
# Nothing at inference, so they are looked through and vanish when the model is finalized.
IDENTITY = frozenset(
    (
        "linear dropout spatial_dropout1d spatial_dropout2d spatial_dropout3d alpha_dropout gaussian_noise "
        "gaussian_dropout activity_regularization identity random_flip random_rotation random_zoom "
        "random_translation random_contrast random_brightness random_saturation random_hue random_shear "
        "random_sharpness random_grayscale random_invert random_posterization random_gaussian_blur "
        "random_perspective random_elastic_transform random_erasing random_color_degeneration random_color_jitter "
        "random_crop solarization aug_mix mix_up cut_mix rand_augment"
    ).split()
)
# Ops on a model input before it is quantized: the first Quantizer comes after them.
PREPROCESSING = frozenset("rescaling normalization cast resizing resizing_smooth center_crop".split())
ACTIVATIONS = frozenset(
    (
        "relu relu6 clipped_relu leaky_relu prelu elu selu celu sigmoid hard_sigmoid tanh hard_tanh silu "
        "hard_silu gelu softplus softsign mish exponential log_sigmoid tanh_shrink soft_shrink hard_shrink "
        "squareplus sparse_plus softmax log_softmax sparsemax linear"
    ).split()
)

_SYNONYMS = {
    "swish": "silu",
    "hard_swish": "hard_silu",
    "p_re_lu": "prelu",
    "re_lu": "relu",
    "leaky_re_lu": "leaky_relu",
    "true_divide": "divide",
    "amax": "max",
    "exp": "exponential",
    **{f"quant_{kind}": kind for kind in KERNEL_AXES},
    "absorbed_re_lu6": "relu6",
    "freezable_batch_normalization": "batch_normalization",
}
# Kind -> its interpolation where its config names none.
_RESIZING = {"up_sampling2d": "nearest", "resizing": "bilinear", "resize": "bilinear"}
# Of two tensors; ``add_constant`` and the like where one of them is a constant.
BINARY = frozenset("add subtract multiply divide maximum minimum power".split())


def snake_case(name: str) -> str:
    """``DepthwiseConv2D`` -> ``depthwise_conv2d``."""
    spaced = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()


def kind_of(class_name: str, config: Mapping[str, Any], tensor_inputs: int) -> str:
    """The kind of an op, from its class, its config (and what else it is called with) and how many tensors it reads."""
    if class_name == "Activation":
        return activation_kind(config.get("activation"))
    plain = snake_case(class_name)
    plain = _SYNONYMS.get(plain, plain)
    if plain == "relu" and class_name == "ReLU":
        return _relu_kind(config)
    if plain == "leaky_relu" and not _number(config.get("negative_slope")):
        return "relu"
    if plain in _RESIZING and _mixes(config, _RESIZING[plain]):
        return f"{plain}_smooth"
    if plain == "pad" and config.get("constant_values") not in (None, 0):
        return "pad_filled"
    if plain == "softmax" and tensor_inputs == 2:
        return "masked_softmax"
    if plain == "reversible_embedding" and config.get("reverse"):
        return "tied_projection"
    if plain in BINARY and tensor_inputs == 1:
        return f"{plain}_constant"
    return plain


def activation_kind(activation: Any) -> str:
    """The kind of a Keras activation as it stands in a config: a name, None, or a serialized function."""
    if activation is None:
        return "linear"
    if isinstance(activation, Mapping):
        inner = activation.get("config")
        activation = inner if isinstance(inner, str) else activation.get("class_name", "custom")
    name = snake_case(str(activation))
    return _SYNONYMS.get(name, name)


def _mixes(config: Mapping[str, Any], usual: str) -> bool:
    """Whether a resizing gives values that its input has not, zeros aside."""
    return config.get("interpolation", usual) != "nearest" or bool(_number(config.get("fill_value")))


def _relu_kind(config: Mapping[str, Any]) -> str:
    top, slope, threshold = (_number(config.get(key)) for key in ("max_value", "negative_slope", "threshold"))
    if threshold or (slope and top is not None):
        return "clipped_relu"
    if slope:
        return "leaky_relu"
    return {None: "relu", 6.0: "relu6"}.get(top, "clipped_relu")


def _number(value: Any) -> float | None:
    # Keras 3 files hold some numbers as {"class_name": "__numpy__", "config": {"value": 0.3}}.
    if isinstance(value, Mapping):
        value = value.get("config", {}).get("value")
    return None if value is None else float(value)
