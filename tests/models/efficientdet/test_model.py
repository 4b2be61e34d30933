"""EfficientDet: its sizes, levels, outputs and backbones."""

from __future__ import annotations

import math
import re

import keras
import numpy as np
import pytest
from keras import layers

from tfqat.errors import TfqatError
from tfqat.models.declared import without_values
from tfqat.models.efficientdet.backbone import backbone_levels
from tfqat.models.efficientdet.fusion import WeightedSum
from tfqat.models.efficientdet.model import efficientdet
from tfqat.models.efficientdet.scaling import SCALINGS

SMALL = {"width": 8, "depth": 1, "head_depth": 1}


def tiny(size=128):
    """A backbone of one convolution a stride."""
    x = image = keras.Input((size, size, 3), name="image")
    for number in range(1, 6):
        x = layers.Conv2D(4 * number, 3, 2, padding="same", activation="silu", name=f"conv{number}")(x)
    return keras.Model(image, x, name="tiny")


# Millions, arXiv 1911.09070, table 2. Image size and number of weights are independent: a small image is quicker.
@pytest.mark.parametrize(
    ("name", "millions"), [("efficientdet_d0", 3.9), ("efficientdet_d1", 6.6), ("efficientdet_d2", 8.1)]
)
def test_has_as_many_weights_as_the_paper_says(name, millions):
    with without_values():
        model = efficientdet(name, (128, 128, 3), 90)
        received = sum(math.prod(variable.shape) for variable in model.trainable_weights) / 1e6
    assert received == pytest.approx(millions, rel=0.02)


def test_d0_has_the_weights_of_the_authors_own():
    """3,880,067 is what google/automl reports for its D0 of 90 classes."""
    with without_values():
        model = efficientdet("efficientdet_d0", (128, 128, 3), 90)
        assert sum(math.prod(variable.shape) for variable in model.trainable_weights) == 3_880_067


def test_the_table_is_the_papers():
    rows = [(s.image_size, s.width, s.depth, s.head_depth) for s in SCALINGS.values()]
    assert rows == [
        (512, 64, 3, 3), (640, 88, 4, 3), (768, 112, 5, 3), (896, 160, 6, 4), (1024, 224, 7, 4), (1280, 288, 7, 4),
        (1280, 384, 8, 5), (1536, 384, 8, 5),
    ]  # fmt: skip
    assert [name for name, s in SCALINGS.items() if not s.weighted] == ["efficientdet_d6", "efficientdet_d7"]


@pytest.mark.parametrize("shape", [(128, 128, 3), (256, 128, 3)], ids=str)
def test_gives_nine_anchors_a_place_of_five_levels(shape):
    model = efficientdet("efficientdet_d0", shape, 7, **SMALL)
    places = sum((shape[0] >> level) * (shape[1] >> level) for level in range(3, 8))
    assert {name: tensor.shape for name, tensor in model.output.items()} == {
        "class_logits": (None, 9 * places, 7),
        "box_regression": (None, 9 * places, 4),
    }


def test_heads_run_over_levels_rows_columns_and_the_nine():
    """Each level's numbers stand where its anchors will: those of one place beside each other, finest level first."""
    model = efficientdet("efficientdet_d0", (128, 128, 3), 2, backbone=tiny(), **SMALL)
    maps = [model.get_layer(f"class_level{level}").input for level in range(3, 8)]
    parts = keras.Model(model.input, [*maps, model.output["class_logits"]])
    *maps, joined = (np.asarray(y) for y in parts(np.random.default_rng(0).random((2, 128, 128, 3), np.float32)))
    expected = []
    for values in maps:
        for row in range(values.shape[1]):
            for column in range(values.shape[2]):
                expected += [values[:, row, column, 2 * k : 2 * k + 2] for k in range(9)]
    np.testing.assert_array_equal(joined, np.stack(expected, axis=1))


def test_an_untrained_class_head_says_one_percent():
    model = efficientdet("efficientdet_d0", (128, 128, 3), 2, backbone=tiny(), **SMALL)
    bias = np.asarray(model.get_layer("class_last").bias)
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), 0.01, rtol=1e-5)
    assert not np.asarray(model.get_layer("box_last").bias).any()


def test_levels_share_convolutions_and_have_their_own_batch_norms():
    model = efficientdet("efficientdet_d0", (128, 128, 3), 2, backbone=tiny(), **SMALL)
    assert len(model.get_layer("class_conv0")._inbound_nodes) == 5
    assert {layer.name for layer in model.layers if layer.name.startswith("class_bn")} == {
        f"class_bn0_level{level}" for level in range(3, 8)
    }


def test_the_largest_sum_without_weights():
    sums = {"width": 8, "depth": 1, "head_depth": 1, "backbone": tiny()}
    kinds = {
        name: {type(layer) for layer in efficientdet(name, (128, 128, 3), 2, **sums).layers if "fusion" in layer.name}
        for name in ("efficientdet_d5", "efficientdet_d6", "efficientdet_d7")
    }
    assert list(kinds.values()) == [{WeightedSum}, {layers.Add}, {layers.Add}]


def test_relu6_replaces_every_silu_and_keeps_the_weights():
    backbone = tiny()
    model = efficientdet("efficientdet_d0", (128, 128, 3), 2, activation="relu6", backbone=backbone, **SMALL)
    found = {layer.get_config().get("activation") for layer in model.layers} - {None, "linear"}
    assert found == {"relu6"}
    for number in range(1, 6):
        received = np.asarray(model.get_layer(f"conv{number}").kernel)
        np.testing.assert_array_equal(received, np.asarray(backbone.get_layer(f"conv{number}").kernel))
    named = efficientdet("efficientdet_d0", (128, 128, 3), 2, activation="relu6", **SMALL)
    assert not {"silu", "swish"} & {layer.get_config().get("activation") for layer in named.layers}


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("EfficientNetB0", (40, 112, 320)),  # the paper's, arXiv 1905.11946, table 1
        ("EfficientNetV2B0", (48, 112, 192)),
        ("MobileNetV2", (32, 96, 320)),
        ("MobileNetV3Small", (24, 48, 96)),
        ("ResNet50", (512, 1024, 2048)),
        ("VGG16", (512, 512, 512)),
        ("narrow_resnet", (48, 96, 160)),
    ],
)
def test_levels_three_to_five_are_where_blocks_end(name, channels):
    with without_values():
        _, maps = backbone_levels(name, keras.Input((128, 128, 3)), "silu")
    assert [tuple(tensor.shape[1:]) for tensor in maps] == [
        (16, 16, channels[0]), (8, 8, channels[1]), (4, 4, channels[2]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("ResNet50V2", ["conv3_block3_out", "conv4_block5_out", "conv5_block3_out"]),
        ("NASNetMobile", ["normal_concat_3", "normal_concat_8", "normal_concat_12"]),
    ],
)
def test_levels_are_not_inner_tensors_of_the_block_that_halves(name, ends):
    with without_values():
        _, maps = backbone_levels(name, keras.Input((128, 128, 3)), "silu")
    assert [tensor._keras_history.operation.name for tensor in maps] == ends


def test_a_level_may_end_in_an_operation_that_is_no_layer():
    """A shortcut that `+` adds, as in ConvNeXt; without it the level would be the branch beside it."""
    x = image = keras.Input((128, 128, 3))
    wanted = []
    for stride in range(1, 6):
        x = layers.Conv2D(4, 3, 2, padding="same", name=f"half{stride}")(x)
        x = x + layers.Conv2D(4, 3, padding="same", name=f"branch{stride}")(x)
        wanted.append(x)
    _, maps = backbone_levels(keras.Model(image, x), image, "silu")
    assert [id(tensor) for tensor in maps] == [id(tensor) for tensor in wanted[2:]]


def nested():
    """Strides of one shared layer, of an operation, and of a nested model, each with a SiLU."""
    act = layers.Activation("silu", name="shared")
    part = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.Conv2D(4, 3, padding="same", activation="silu")], name="part"
    )
    x = image = keras.Input((128, 128, 3))
    for number in range(1, 6):
        x = layers.Conv2D(4, 3, 2, padding="same", name=f"conv{number}")(x)
        x = {3: keras.ops.silu, 4: part}.get(number, act)(x)
    return keras.Model(image, x)


def test_a_level_may_end_in_a_later_call_and_in_a_nested_model():
    backbone = nested()
    _, maps = backbone_levels(backbone, backbone.input, "silu")
    assert [tensor._keras_history.operation.name for tensor in maps][1:] == ["part", "shared"]
    assert [tensor._keras_history.node_index for tensor in maps][2] == 2
    assert type(maps[0]._keras_history.operation).__name__ == "Silu"


def test_relu6_takes_the_place_of_operations_and_of_what_is_nested():
    backbone = nested()
    image, maps = backbone_levels(backbone, backbone.input, "relu6")
    x = 100 * np.random.default_rng(0).normal(size=(1, 128, 128, 3)).astype(np.float32)
    received = keras.Model(image, maps)(x)
    weights = iter(backbone.get_weights())
    relu6 = lambda y: keras.ops.clip(y, 0, 6)  # noqa: E731
    expected = []
    for number in range(1, 6):
        for stride in (2, 1) if number == 4 else (2,):
            x = keras.ops.conv(x, next(weights), stride, "same") + next(weights)
            x = x if (number, stride) == (4, 2) else relu6(x)
        expected.append(x)
    for found, wanted in zip(received, expected[2:], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_options_go_to_the_named_backbone():
    with without_values():
        _, maps = backbone_levels("MobileNetV2", keras.Input((128, 128, 3)), "silu", options={"alpha": 0.35})
    assert [tensor.shape[-1] for tensor in maps] == [16, 32, 112]


def test_a_narrow_resnet_has_two_blocks_a_level_and_the_activation_asked_for():
    model = efficientdet(
        "efficientdet_d0",
        (128, 128, 3),
        2,
        activation="relu6",
        backbone="narrow_resnet",
        backbone_options={"width": 4},
        **SMALL,
    )
    own = [layer for layer in model.layers if re.match(r"stem|level[2-5]_(conv|block)", layer.name)]
    kernels = {layer.name: layer.kernel.shape for layer in own if isinstance(layer, layers.Conv2D)}
    # Of 3 x 3: the stem, one of stride 4 and its block, two blocks a level; of 1 x 1: where a level begins.
    assert [shape[0] for shape in kernels.values()].count(3) == 1 + 1 + 2 + 3 * 4
    assert {name: shape[2:] for name, shape in kernels.items() if shape[0] == 1} == {
        "level3_block1_shortcut": (6, 12), "level4_block1_shortcut": (12, 24), "level5_block1_shortcut": (24, 40),
    }  # fmt: skip
    activations = [layer.activation for layer in own if isinstance(layer, layers.Activation)]
    assert activations == [keras.activations.relu6] * (1 + 1 + 7 * 2)


def test_a_backbone_with_three_outputs_says_its_levels_itself():
    whole = tiny()
    own = keras.Model(whole.input, [whole.get_layer(f"conv{n}").output for n in (5, 3, 4)])
    _, maps = backbone_levels(own, keras.Input((128, 128, 3)), "silu")
    assert [tensor.shape[-1] for tensor in maps] == [12, 16, 20]


@pytest.mark.parametrize(("momentum", "expected"), [(None, {0.99, 0.999}), (0.5, {0.5})], ids=str)
def test_momentum_is_that_of_every_batch_norm(momentum, expected):
    model = efficientdet(
        "efficientdet_d0", (128, 128, 3), 2, backbone="MobileNetV2", batch_norm_momentum=momentum, **SMALL
    )
    copy = keras.models.model_from_json(model.to_json())
    found = [layer.momentum for layer in copy.layers if isinstance(layer, layers.BatchNormalization)]
    assert set(found) == expected


def test_momentum_is_how_much_of_the_old_statistics_stays():
    model = efficientdet("efficientdet_d0", (128, 128, 3), 2, backbone=tiny(), batch_norm_momentum=0.25, **SMALL)
    norm = model.get_layer("class_bn0_level3")
    images = np.random.default_rng(0).random((2, 128, 128, 3), np.float32)
    given = np.asarray(keras.Model(model.input, norm.input)(images, training=True))
    model(images, training=True)
    np.testing.assert_allclose(norm.moving_mean, 0.75 * given.mean((0, 1, 2)), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, 0.25 + 0.75 * given.var((0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize(("count", "weights"), [(2, (1.0, 3.0)), (3, (0.5, -2.0, 4.0))], ids=str)
def test_weighted_sum_is_the_formula(count, weights):
    generator = np.random.default_rng(0)
    maps = [generator.normal(size=(2, 3, 3, 4)).astype(np.float32) for _ in range(count)]
    layer = WeightedSum()
    np.testing.assert_allclose(layer(maps), sum(maps) / (count + 1e-4), rtol=1e-5, atol=1e-6)
    layer.shares.assign(weights)
    positive = np.maximum(weights, 0)
    expected = sum(w * x for w, x in zip(positive, maps, strict=True)) / (positive.sum() + 1e-4)
    np.testing.assert_allclose(layer(maps), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("efficientdet_d8", (128, 128, 3), {}, "Did you mean 'efficientdet_d"),
        ("efficientdet_d0", (200, 128, 3), {}, "200 x 128 does not halve 7 times.*as 256 x 128"),
        ("efficientdet_d0", (None, 128, 3), {}, "does not halve"),
        ("efficientdet_d0", (128, 128, 3), {"activation": "gelu"}, "one of silu, relu6, received 'gelu'"),
        (
            "efficientdet_d0",
            (128, 128, 3),
            {"backbone": "ResNet51"},
            "no 'ResNet51'; expected one of narrow_resnet, .*ResNet50",
        ),
        ("efficientdet_d0", (128, 128, 3), {"backbone": "tiny", "batch_norm_momentum": 1.0}, "below 1, received 1.0"),
        ("efficientdet_d0", (128, 128, 3), {"backbone": "tiny", "backbone_options": {"alpha": 1}}, "tiny is a model"),
        (
            "efficientdet_d0",
            (128, 128, 3),
            {"backbone": "MobileNetV2", "backbone_options": {"width": 2}},
            "MobileNetV2 does not take {'width': 2}: .*width",
        ),
        (
            "efficientdet_d0",
            (128, 128, 3),
            {"backbone": "narrow_resnet", "backbone_options": {"alpha": 2}},
            "narrow_resnet does not take {'alpha': 2}: .*alpha",
        ),
        (
            "efficientdet_d0",
            (128, 128, 3),
            {"backbone": "narrow_resnet", "weights": "imagenet"},
            "narrow_resnet has no weights 'imagenet'",
        ),
        ("efficientdet_d0", (128, 128, 3), {"channels": 3}, "among width, .*received channels"),
        ("efficientdet_d0", (256, 256, 3), {"backbone": "tiny"}, r"takes \[\(128, 128, 3\)\]"),
        ("efficientdet_d0", (128, 128, 3), {"backbone": "short"}, r"no feature map of \[\(8, 8\), \(4, 4\)\]"),
    ],
)
def test_what_cannot_be_built_is_an_error(name, shape, options, message):
    short = lambda: keras.Model((model := tiny()).input, model.get_layer("conv3").output, name="short")  # noqa: E731
    models = {"tiny": tiny, "short": short}
    if options.get("backbone") in models:
        options = {**options, "backbone": models[options["backbone"]]()}
    with pytest.raises(TfqatError, match=message):
        efficientdet(name, shape, 2, **options)
