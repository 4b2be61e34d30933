"""EfficientDet: images -> class logits and box regression of all anchors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import keras
from keras import layers

from tfqat.errors import TfqatError
from tfqat.models.efficientdet.backbone import backbone_levels
from tfqat.models.efficientdet.bifpn import LEVELS, bifpn, made_levels
from tfqat.models.efficientdet.heads import head
from tfqat.models.efficientdet.scaling import SCALINGS, Scaling

ACTIVATIONS = ("silu", "relu6")
# 3 scales x 3 ratios at each place.
ANCHORS = 9


def efficientdet(
    name: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    activation: str = "silu",
    backbone: str | keras.Model | None = None,
    weights: str | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    batch_norm_momentum: float | None = None,
    **sizes: int | bool,
) -> keras.Model:
    """Images ``input_shape`` -> ``class_logits`` ``(batch, anchors, num_classes)`` and ``box_regression``
    ``(batch, anchors, 4)``, both raw; anchors run over the levels 3 to 7, then rows, columns, and the 9 of a place.

    EfficientNets scale pixels from 0 to 255 themselves; other backbones take images as their authors say.

    Args:
        name: ``efficientdet_d0`` to ``efficientdet_d7``.
        input_shape: height and width are multiples of 128, so that each level has half the size of the one before.
        num_classes: classes.
        activation: ``silu`` or ``relu6``, also in place of the backbone's SiLUs.
        backbone: another than the name's: ``narrow_resnet``, one of keras.applications, or a functional model (see
            backbone.py).
        weights: of the backbone: None or ``imagenet``.
        backbone_options: of a backbone by name, as ``{"alpha": 0.35}`` for a narrow MobileNetV2.
        batch_norm_momentum: of every BatchNorm, the backbone's too; None leaves them as they are. Of a training of n
            steps, statistics of momentum m still hold ``m ** n`` of their first values: with MobileNet's 0.999 two
            thirds after 400 steps.
        sizes: ``width``, ``depth``, ``head_depth`` or ``weighted`` where they differ from the name's (see scaling.py).

    Raises:
        TfqatError: an unknown name, activation, size or backbone, a momentum that is none, or an image size that does
            not halve to level 7.
    """
    scaling = _scaling(name, sizes)
    _check_image(input_shape)
    if activation not in ACTIVATIONS:
        raise TfqatError(f"activation: expected one of {', '.join(ACTIVATIONS)}, received {activation!r}.")
    image = keras.Input(input_shape, name="image")
    image, maps = backbone_levels(backbone or scaling.backbone, image, activation, weights, backbone_options)
    maps = made_levels(maps, scaling.width)
    for number in range(scaling.depth):
        maps = bifpn(maps, scaling.width, scaling.weighted, activation, f"bifpn{number}")
    outputs = {
        "class_logits": head(maps, scaling.head_depth, ANCHORS, num_classes, activation, "class"),
        "box_regression": head(maps, scaling.head_depth, ANCHORS, 4, activation, "box"),
    }
    joined = {key: layers.Concatenate(axis=1, name=key)(levels) for key, levels in outputs.items()}
    model = keras.Model(image, joined, name=name)
    if batch_norm_momentum is not None:
        _set_momentum(model, batch_norm_momentum)
    return model


def _set_momentum(model: keras.Model, momentum: float) -> None:
    if not 0 <= momentum < 1:
        raise TfqatError(f"batch_norm_momentum: expected a number from 0 to below 1, received {momentum}.")
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = momentum


def _scaling(name: str, sizes: Mapping[str, Any]) -> Scaling:
    if name not in SCALINGS:
        near = get_close_matches(str(name), SCALINGS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TfqatError(f"efficientdet: expected one of {', '.join(SCALINGS)}, received {name!r}.{hint}")
    known = ("width", "depth", "head_depth", "weighted")
    if unknown := sorted(set(sizes) - set(known)):
        raise TfqatError(f"efficientdet: expected sizes among {', '.join(known)}, received {', '.join(unknown)}.")
    return replace(SCALINGS[name], **sizes)


def _check_image(shape: tuple[int, int, int]) -> None:
    stride = 2 ** LEVELS[-1]
    if any(not size or size % stride for size in shape[:2]):
        nearest = [max(stride, stride * round((size or stride) / stride)) for size in shape[:2]]
        raise TfqatError(
            f"efficientdet: an image of {shape[0]} x {shape[1]} does not halve {LEVELS[-1]} times; expected multiples "
            f"of {stride}, as {nearest[0]} x {nearest[1]}."
        )
