"""Zoo models: what scripts/zoo.py walks through; every model of keras.applications, and backbones of KerasHub."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

APPLICATIONS, HUB = "keras.applications", "KerasHub"
VOCABULARY, TOKENS = 100, 16
TINY_BERT = {"vocabulary_size": VOCABULARY, "num_layers": 2, "num_heads": 2, "hidden_dim": 128, "intermediate_dim": 512}
TINY_VIT = {"patch_size": 16, "num_layers": 4, "num_heads": 3, "hidden_dim": 192, "mlp_dim": 768}
# Backbones as their presets have them (keras_hub.models.<name>), text ones small; images are square, of the size asked.
BACKBONES: Mapping[str, Mapping[str, Any]] = {
    "ResNetBackbone": {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 128, 256, 512],
        "stackwise_num_blocks": [2, 2, 2, 2],
        "stackwise_num_strides": [1, 2, 2, 2],
        "block_type": "basic_block",
    },
    "MobileNetBackbone": {
        "stackwise_expansion": [[40, 56], [64, 144, 144], [72, 72], [144, 288, 288]],
        "stackwise_num_blocks": [2, 3, 2, 3],
        "stackwise_num_filters": [[16, 16], [24, 24, 24], [24, 24], [48, 48, 48]],
        "stackwise_kernel_size": [[3, 3], [5, 5, 5], [5, 5], [5, 5, 5]],
        "stackwise_num_strides": [[2, 1], [2, 1, 1], [1, 1], [2, 1, 1]],
        "stackwise_se_ratio": [[None, None], [0.25, 0.25, 0.25], [0.3, 0.3], [0.3, 0.25, 0.25]],
        "stackwise_activation": [["relu"] * 2, ["hard_swish"] * 3, ["hard_swish"] * 2, ["hard_swish"] * 3],
        "stackwise_padding": [[1, 1], [2, 2, 2], [2, 2], [2, 2, 2]],
        "output_num_filters": 288,
        "depthwise_filters": 8,
        "depthwise_stride": 2,
        "depthwise_residual": False,
        "last_layer_filter": 1024,
        "squeeze_and_excite": 0.5,
    },
    "EfficientNetBackbone": {
        "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
        "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
        "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
        "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
        "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
        "stackwise_squeeze_and_excite_ratios": [0.25] * 7,
        "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
        "stackwise_block_types": ["v1"] * 7,
        "stackwise_width_coefficients": [1.0] * 7,
        "stackwise_depth_coefficients": [1.0] * 7,
    },
    "CSPNetBackbone": {  # CSPDarkNet53
        "stem_filters": 32,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 2, 8, 8, 4],
        "stackwise_strides": [2] * 5,
        "stackwise_num_filters": [64, 128, 256, 512, 1024],
        "block_type": "dark_block",
        "stage_type": "csp",
        "bottle_ratio": [0.5, 1.0, 1.0, 1.0, 1.0],
        "block_ratio": [1.0, 0.5, 0.5, 0.5, 0.5],
        "expand_ratio": [2.0, 1.0, 1.0, 1.0, 1.0],
        "down_growth": True,
    },
    "DenseNetBackbone": {"stackwise_num_repeats": [6, 12, 24, 16]},
    "XceptionBackbone": {
        "stackwise_conv_filters": [[32, 64], [128, 128], [256, 256], [728, 728], [1024, 1024]],
        "stackwise_pooling": [False, True, True, True, False],
    },
    "ViTBackbone": TINY_VIT,
    "MiTBackbone": {  # SegFormer's encoder, B0
        "layerwise_depths": [2, 2, 2, 2],
        "num_layers": 4,
        "layerwise_num_heads": [1, 2, 5, 8],
        "layerwise_sr_ratios": [8, 4, 2, 1],
        "max_drop_path_rate": 0.1,
        "layerwise_patch_sizes": [7, 3, 3, 3],
        "layerwise_strides": [4, 2, 2, 2],
        "hidden_dims": [32, 64, 160, 256],
    },
    "BertBackbone": TINY_BERT,
    "DistilBertBackbone": TINY_BERT,
    "RobertaBackbone": TINY_BERT,
}


@dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    Attributes:
        name: the function of keras.applications, or the class of keras_hub.models.
        family: APPLICATIONS or HUB.
        build: image size (None for the model's own) -> the model, with random weights.
    """

    name: str
    family: str
    build: Callable[[int | None], Any]


def zoo() -> dict[str, Entry]:
    """All that is installed, by name."""
    entries = [*_applications(), *(_backbones() if importlib.util.find_spec("keras_hub") else ())]
    return {entry.name: entry for entry in entries}


def _applications() -> list[Entry]:
    import keras

    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return [Entry(name, APPLICATIONS, _application(function)) for name, function in functions]


def _application(function: Callable[..., Any]) -> Callable[[int | None], Any]:
    return lambda size: function(weights=None, **({"input_shape": (size, size, 3)} if size else {}))


def _backbones() -> list[Entry]:
    return [Entry(name, HUB, _backbone(name, config)) for name, config in BACKBONES.items()]


def _backbone(name: str, config: Mapping[str, Any]) -> Callable[[int | None], Any]:
    def build(size: int | None) -> Any:
        import keras_hub

        side = size or 224
        key = {"EfficientNetBackbone": "input_shape"}.get(name, "image_shape")
        image = {} if "vocabulary_size" in config else {key: (side, side, 3)}
        return getattr(keras_hub.models, name)(**config, **image)

    return build


def is_visual(model: Any) -> bool:
    """Whether the model takes images."""
    return len(model.inputs) == 1 and len(model.inputs[0].shape) == 4


def batches_for(model: Any, images: int, count: int) -> list[Any]:
    """``count`` batches of random inputs in the structure that the model takes: pixels, or tokens and their masks."""
    import keras
    import numpy as np

    generator = np.random.default_rng(0)

    def random(tensor: Any) -> Any:
        shape = (images, *(TOKENS if side is None else side for side in tensor.shape[1:]))
        if "float" in tensor.dtype:
            return generator.uniform(0, 255, shape).astype(tensor.dtype)
        kind = tensor._keras_history.operation.name
        if kind == "padding_mask":  # the last quarter of each text is padding
            return np.broadcast_to(np.arange(shape[-1]) < shape[-1] * 3 // 4, shape).astype(tensor.dtype)
        return generator.integers(0, VOCABULARY if kind == "token_ids" else 2, shape).astype(tensor.dtype)

    return [keras.tree.map_structure(random, model.input) for _ in range(count)]
