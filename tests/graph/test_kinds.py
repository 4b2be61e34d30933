"""Kinds: each class of keras.layers has a verdict, and those that count as doing nothing do nothing."""

import keras
import numpy as np
import pytest
from keras import layers

from tfqat.graph.causes import CAUSES
from tfqat.graph.kinds import (
    ACTIVATIONS,
    IDENTITY,
    KERNEL_AXES,
    OTHER_WEIGHTED,
    PREPROCESSING,
    kind_of,
    snake_case,
)
from tfqat.targets import load_target

# Classes that no model holds as an op of its own.
NO_OPS = "Layer Wrapper InputLayer MaxNumBoundingBoxes LSTMCell GRUCell SimpleRNNCell StackedRNNCells".split()
# Placed by rules of their own: graph.place, graph.attention.
BY_RULE = {"batch_normalization", "dot"}
CLASSES = {
    cls.__name__: cls
    for cls in vars(layers).values()
    if isinstance(cls, type) and issubclass(cls, layers.Layer) and cls.__name__ not in NO_OPS
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_layer_of_keras_is_int8_gone_or_float_for_a_cause(name):
    kind = kind_of(name, {}, 1)
    target = load_target("tensorrt")
    placed = target.weighted | target.own_range | target.shared_range | set(KERNEL_AXES)
    gone = IDENTITY | PREPROCESSING
    assert kind in placed | gone | ACTIVATIONS | OTHER_WEIGHTED | CAUSES.keys() | BY_RULE


# What the constructors of layers that do nothing must be given.
GIVEN = {
    **dict.fromkeys(
        "RandomRotation RandomZoom RandomContrast RandomBrightness RandomSharpness RandomHue".split(), (0.2,)
    ),
    **dict.fromkeys("RandomTranslation RandomShear".split(), (0.2, 0.2)),
    **dict.fromkeys("RandomSaturation RandomColorDegeneration".split(), (0.3,)),
    **dict.fromkeys("Dropout SpatialDropout2D AlphaDropout GaussianDropout GaussianNoise".split(), (0.5,)),
    "RandomPosterization": (4,),
    "RandomCrop": (6, 6),
}
DOING_NOTHING = [name for name in CLASSES if snake_case(name) in IDENTITY and "SpatialDropout" not in name]


@pytest.mark.parametrize("name", DOING_NOTHING)
def test_a_layer_that_counts_as_doing_nothing_does_nothing_at_inference(name):
    keras.utils.set_random_seed(0)
    layer = CLASSES[name](*GIVEN.get(name, ()))
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    result = layer(images, training=False) if layer._call_has_training_arg else layer(images)
    assert np.array_equal(result, images)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (layers.Resizing(4, 4), "resizing_smooth"),
        (layers.Resizing(4, 4, interpolation="nearest"), "resizing"),
        (layers.Resizing(4, 4, "nearest", pad_to_aspect_ratio=True, fill_value=3), "resizing_smooth"),
        (layers.UpSampling2D(interpolation="bicubic"), "up_sampling2d_smooth"),
        (layers.SeparableConv1D(3, 3), "separable_conv1d"),
        (layers.DepthwiseConv1D(3), "depthwise_conv1d"),
        (layers.Conv3DTranspose(3, 3), "conv3d_transpose"),
    ],
)
def test_forms_that_differ_in_what_they_compute_are_kinds_of_their_own(layer, kind):
    assert kind_of(type(layer).__name__, layer.get_config(), 1) == kind
