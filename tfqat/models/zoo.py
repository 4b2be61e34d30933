"""Zoo: the float model that a spec describes, by architecture, checkpoint or the user's own function."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from tfqat.data import input_shape
from tfqat.data.user_function import call_with, user_function
from tfqat.errors import TfqatError
from tfqat.graph.build import build
from tfqat.models.efficientdet.model import efficientdet
from tfqat.models.load import load_model
from tfqat.models.precision import check_precision, precision
from tfqat.models.resnet8 import resnet8
from tfqat.models.tfmot.model import is_tfmot
from tfqat.models.tfmot.read import read_tfmot
from tfqat.models.vit import vit
from tfqat.models.weights import load_weights
from tfqat.spec import names
from tfqat.view.view import view

# Models of tfqat's own: name -> function of input_shape and num_classes.
OWN: dict[str, Callable[..., keras.Model]] = {"resnet8": resnet8, "vit": vit}
IMAGENET = "imagenet"
IMAGENET_CLASSES = 1000


def float_model(spec: Any, trust: bool = False) -> keras.Model:
    """The float model of ``spec``, its weights drawn from ``spec.random_seed``, checked against the spec's images.

    A ``python`` function is called with ``input_shape`` and ``num_classes``, where it has such arguments.
    Python code in a checkpoint (Lambda layers) is refused without ``trust``.
    With ImageNet weights and another number of classes than 1000, the top is replaced by a new Dense.

    Raises:
        TfqatError: a model that cannot be built or read, or takes other images than the spec has.
    """
    section = spec.model
    keras.utils.set_random_seed(spec.random_seed)
    shape = tuple(section.input_shape or input_shape(spec.dataset))
    with precision(spec.training.precision):
        model = _functional(_from_source(section, shape, trust), shape)
    check_precision(model, spec.training.precision)
    _check_images(model, shape, source_of(section))
    return model


def _from_source(section: Any, shape: tuple[int, ...], trust: bool) -> keras.Model:
    if section.checkpoint:
        return _from_checkpoint(section, shape, trust)
    return _from_function(section, shape) if section.python else _from_architecture(section, shape)


def _from_checkpoint(section: Any, shape: tuple[int, ...], trust: bool) -> keras.Model:
    """The model in a file; of one that TFMOT quantized, the float model inside; weights alone in their architecture."""
    if is_tfmot(section.checkpoint):
        return read_tfmot(section.checkpoint).model
    if not (section.architecture or section.python):
        return load_model(section.checkpoint, trust=trust)
    model = _from_function(section, shape) if section.python else _from_architecture(section, shape)
    if not model.built:
        model(keras.Input(shape))
    return load_model(section.checkpoint, architecture=model)


def _from_architecture(section: Any, shape: tuple[int, ...]) -> keras.Model:
    try:
        model = _builder(section.architecture)(section, shape)
        if section.weights not in (None, IMAGENET):
            load_weights(model, Path(section.weights))
    except (TypeError, ValueError, OSError, KeyError) as error:
        raise TfqatError(
            f"model_config: {section.architecture} cannot be built with input_shape {shape}, num_classes "
            f"{section.num_classes}, weights {section.weights} and options {section.options.given()}: {error}"
        ) from error
    return model


def _builder(architecture: str) -> Callable[[Any, Any], keras.Model]:
    if architecture in names.DETECTORS:
        return _detector
    return _own if architecture in OWN else _application


def _own(section: Any, shape: tuple[int, ...]) -> keras.Model:
    return OWN[section.architecture](shape, section.num_classes)


def _application(section: Any, shape: tuple[int, ...]) -> keras.Model:
    build = getattr(keras.applications, section.architecture, None)
    if build is None:
        raise TfqatError(f"model_config.architecture: Keras {keras.__version__} has no {section.architecture}.")
    options = section.options.given()
    if section.weights == IMAGENET:
        return _pretrained(build, shape, section.num_classes, options)
    return build(weights=None, input_shape=shape, classes=section.num_classes, **options)


def _detector(section: Any, shape: Any) -> keras.Model:
    """An EfficientDet; its backbone may be a function of the user's own, which is called with ``input_shape``."""
    options: dict[str, Any] = section.options.given()
    backbone = options.pop("backbone", None)
    if backbone and ":" in backbone:
        backbone = _own_backbone(backbone, shape)
    own = {name: options.pop(name) for name in names.BACKBONE_OPTIONS if name in options}
    weights = IMAGENET if section.weights == IMAGENET else None
    made = {"backbone": backbone, "weights": weights, "backbone_options": own, **options}
    return efficientdet(section.architecture, shape, section.num_classes, **made)


def _own_backbone(name: str, shape: Any) -> keras.Model:
    key = "model_config.options.backbone"
    model = call_with(user_function(name, key), {"input_shape": shape})
    if not isinstance(model, keras.Model) or getattr(model, "inputs", None) is None:
        received = f"{type(model).__name__} without inputs" if isinstance(model, keras.Model) else type(model).__name__
        raise TfqatError(f"{key}: {name} must return a functional keras.Model, returned {received}.")
    return model


def _pretrained(build: Callable[..., keras.Model], shape: tuple[int, ...], classes: int, options: Any) -> keras.Model:
    """With ImageNet weights, which Keras downloads once."""
    if classes == IMAGENET_CLASSES:
        return build(weights=IMAGENET, input_shape=shape, **options)
    base = build(weights=IMAGENET, include_top=False, pooling="avg", input_shape=shape, **options)
    top = keras.layers.Dense(classes, activation="softmax", name="predictions")
    return keras.Model(base.inputs, top(base.outputs[0]), name=base.name)


def _from_function(section: Any, shape: tuple[int, ...]) -> keras.Model:
    function = user_function(section.python, "model_config.python")
    model = call_with(function, {"input_shape": shape, "num_classes": section.num_classes})
    if not isinstance(model, keras.Model):
        raise TfqatError(
            f"model_config.python: {section.python} must return a keras.Model, returned {type(model).__name__}."
        )
    return model


def _functional(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """The model with known inputs and outputs: a subclassed one is traced on a symbolic image, which also lets it be
    saved without a ``get_config`` of its own.

    Raises:
        TfqatError: its ``call`` cannot be traced; names the line at which it stopped, and what to change.
    """
    if isinstance(model, keras.Sequential):
        if not model.built:
            model.build((None, *shape))
        return model
    if getattr(model, "inputs", None) is not None:
        return model
    if not model.built:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its layers are built when it is traced
            model.build((None, *shape))
    return build(view(model, input_names=["image"]))


def _fits(size: int | None, wanted: int) -> bool:
    return size is None or size == wanted


def source_of(section: Any) -> str:
    """Where the model of a spec's section comes from, as messages name it."""
    return section.checkpoint or section.python or section.architecture


def _check_images(model: keras.Model, shape: tuple[int, ...], source: str) -> None:
    """Raises TfqatError unless the model takes one image of the data."""
    if len(model.inputs) != 1:
        raise TfqatError(
            f"model_config: {source} has {len(model.inputs)} inputs; the commands expect one. Train such a model from "
            "Python: tfqat.prepare, and fit or a loop of your own."
        )
    received = tuple(model.inputs[0].shape[1:])
    if len(received) != len(shape) or not all(map(_fits, received, shape)):
        raise TfqatError(
            f"model_config: {source} takes images of shape {received}; expected {tuple(shape)}, as dataset_config has "
            "them. Change dataset_config (image_size) or the model."
        )
