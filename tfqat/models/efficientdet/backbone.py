"""Backbone: the net whose feature maps of strides 8, 16 and 32 are levels 3 to 5."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from tfqat.errors import TfqatError
from tfqat.models.efficientdet.narrow import narrow_resnet
from tfqat.view.nodes import nodes_in_order

STRIDES = (8, 16, 32)
# Family -> the layers at which its blocks end. The next block begins at its input's size and halves it later, so that
# the last tensor of a stride would be an inner one; layers behind the last block belong to the classifier.
BLOCK_ENDS = {
    "EfficientNet": r"block\d+[a-z]_(add|project_bn|project_activation)",
    "MobileNetV2": r"block_\d+_(add|project_BN)",
    "MobileNetV3": r"expanded_conv(_\d+)?_(add|project_bn)",
    "NASNet": r"(normal|reduction)_concat_.*",
    r"ResNet\d+V2": r"conv\d_block\d+_out",
}
# Backbones of tfqat's own: name -> function of the input.
OWN: dict[str, Callable[..., keras.Model]] = {"narrow_resnet": narrow_resnet}
_SILU = ("silu", "swish")


def backbone_levels(
    backbone: str | keras.Model,
    image: keras.KerasTensor,
    activation: str,
    weights: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[Any, list[Any]]:
    """The input of a backbone, and its feature maps of strides 8, 16 and 32.

    Args:
        backbone: a name in keras.applications or OWN, built on ``image``; or a functional model with three outputs of
            those strides, or of one output, of which the last tensor of each stride is taken.
        image: the input.
        activation: replaces each SiLU of the backbone.
        weights: of a named one, as keras.applications takes it.
        options: of a named one, further arguments that it takes, as MobileNetV2's ``alpha``.

    Raises:
        TfqatError: no such backbone, one that does not take the options, or without a feature map of a stride.
    """
    if isinstance(backbone, str):
        model, ends = _named(backbone, image, weights, options or {}), _block_ends(backbone)
    elif options:
        raise TfqatError(f"backbone_options: {backbone.name} is a model already; expected none, received {options}.")
    else:
        model, ends = backbone, ".*"
    if len(model.inputs) != 1 or tuple(model.inputs[0].shape[1:]) != tuple(image.shape[1:]):
        given = [tuple(tensor.shape[1:]) for tensor in model.inputs]
        raise TfqatError(f"backbone: {model.name} takes {given}; expected one image of {tuple(image.shape[1:])}.")
    if activation not in _SILU:
        model = _with_activation(model, activation)
    tensors = model.outputs if len(model.outputs) > 1 else _ends(model, ends)
    return model.inputs[0], _of_strides(model.name, tensors, image)


def _named(name: str, image: keras.KerasTensor, weights: str | None, options: Mapping[str, Any]) -> keras.Model:
    try:
        if name in OWN:
            return _own(name, image, weights, options)
        return _application(name)(include_top=False, weights=weights, input_tensor=image, **options)
    except TypeError as error:
        raise TfqatError(f"backbone_options: {name} does not take {dict(options)}: {error}") from error


def _own(name: str, image: keras.KerasTensor, weights: str | None, options: Mapping[str, Any]) -> keras.Model:
    if weights:
        raise TfqatError(f"backbone: {name} has no weights {weights!r}; expected None.")
    return OWN[name](image, **options)


def _application(name: str) -> Callable[..., keras.Model]:
    build = getattr(keras.applications, name, None)
    if not callable(build):
        known = ", ".join([*OWN, *(n for n in dir(keras.applications) if n[0].isupper())])
        raise TfqatError(f"backbone: there is no {name!r}; expected one of {known}.")
    return build


def _block_ends(name: str) -> str:
    return next((pattern for family, pattern in BLOCK_ENDS.items() if re.match(family, name)), ".*")


def _with_activation(model: keras.Model, activation: str) -> keras.Model:
    """The model with another activation in place of SiLU, in nested models too; the same weights."""

    def clone(op: keras.Operation) -> keras.Operation:
        if not isinstance(op, keras.layers.Layer):
            # The class of keras.ops.silu is not public; an operation has no state, so that others serve both models.
            silu = type(op).__name__ == "Silu"
            return keras.layers.Activation(activation, name=op.name) if silu else op
        config = op.get_config()
        if config.get("activation") in _SILU:
            config["activation"] = activation
        return type(op).from_config(config)

    changed = keras.models.clone_model(model, input_tensors=model.input, clone_function=clone, recursive=True)
    changed.set_weights(model.get_weights())
    return changed


def _ends(model: keras.Model, pattern: str) -> Iterable[Any]:
    """The feature maps that calls of what is named so give, nested models and operations such as ``x + y`` included."""
    nodes = [node for node in nodes_in_order(model.inputs, model.outputs) if re.fullmatch(pattern, node.operation.name)]
    return [tensor for node in nodes for tensor in node.output_tensors if len(tensor.shape) == 4]


def _of_strides(name: str, tensors: Iterable[Any], image: Any) -> list[Any]:
    """The last tensor of each stride."""
    height, width = image.shape[1:3]
    found = {tuple(tensor.shape[1:3]): tensor for tensor in tensors}
    wanted = [(height // stride, width // stride) for stride in STRIDES]
    if missing := [size for size in wanted if size not in found]:
        raise TfqatError(
            f"backbone: {name} has no feature map of {missing} on an image of {height} x {width}; expected one of each "
            f"stride of {STRIDES}, found {sorted(found, reverse=True)}. A model of your own, such as one with another "
            "nested in it, may have the three as its outputs."
        )
    return [found[size] for size in wanted]
