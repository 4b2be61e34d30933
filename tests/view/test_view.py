"""The view of each kind of model, and that what is built from it computes the same."""

import keras
import numpy as np
import pytest
from keras import layers, tree

from tfqat.errors import TfqatError
from tfqat.graph.build import build
from tfqat.graph.kinds import activation_kind, kind_of, snake_case
from tfqat.graph.run import run
from tfqat.view.view import view

NAMES = (
    "conv_net residual two_branches concat squeeze_excite nested separable bare_ops many_inputs subclassed unfoldable"
)


@pytest.mark.parametrize("name", NAMES.split())
def test_a_rebuilt_model_computes_the_same(zoo, fresh_names, name):
    model = zoo.MODELS[name]()
    x = zoo.data(model)
    before = [np.array(w) for w in model.weights]
    rebuilt = build(view(model))
    expected, received = model(x, training=False), rebuilt(x, training=False)
    tree.assert_same_structure(expected, received)
    for a, b in zip(tree.flatten(expected), tree.flatten(received), strict=True):
        # Fused and split activations may differ in the last bit.
        assert np.allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not {id(layer) for layer in rebuilt.layers} & {id(layer) for layer in model.layers}
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))


@pytest.mark.parametrize("name", NAMES.split())
def test_names_are_unique_ascii_and_survive_a_rebuild(zoo, fresh_names, name):
    graph = view(zoo.MODELS[name]())
    tensors = [*graph.inputs, *(tensor for op in graph.ops for tensor in op.outputs)]
    assert len(set(tensors)) == len(tensors)
    assert all(tensor.isascii() and not set(":,") & set(tensor) for tensor in tensors)
    again = view(build(graph))
    assert [op.name for op in again.ops] == [op.name for op in graph.ops]
    assert again.inputs == graph.inputs


def test_nested_models_are_inlined_by_path_and_second_calls_are_numbered(zoo):
    names = [op.name for op in view(zoo.nested()).ops]
    assert names == [
        "block/inner/conv", "block/inner/conv/relu", "block/act",
        "block/inner/conv/1", "block/inner/conv/relu/1", "block/act/1",
        "flat", "head",
    ]  # fmt: skip


def test_a_shared_layer_stays_shared(zoo):
    rebuilt = build(view(zoo.nested()))
    assert sum(isinstance(layer, layers.Conv2D) for layer in rebuilt.layers) == 1


def test_separable_convolution_is_two_ops(zoo):
    graph = view(zoo.separable())
    first, second, third = graph.ops[:3]
    assert [(op.name, op.kind) for op in (first, second, third)] == [
        ("sep/depthwise", "depthwise_conv2d"),
        ("sep/pointwise", "conv2d"),
        ("sep/relu", "relu"),
    ]
    assert graph.shapes["sep/depthwise"][-1] == 6


def test_a_sum_of_three_is_two_sums(zoo):
    sums = [op for op in view(zoo.many_inputs()).ops if op.kind == "add"]
    assert [(op.name, len(op.inputs)) for op in sums] == [("sum/pair1", 2), ("sum", 2)]


def test_constants_are_part_of_the_kind(zoo):
    kinds = [op.kind for op in view(zoo.bare_ops()).ops]
    assert kinds[:4] == ["divide_constant", "subtract_constant", "conv2d", "relu"]


def test_running_op_by_op_gives_the_models_outputs_and_the_hook_may_change_them(zoo):
    model = build(view(zoo.conv_net()))
    graph, x = view(model), zoo.data(model)
    tensors = run(graph, {"image": x})
    assert np.allclose(tensors[graph.outputs[0]], model(x), atol=1e-6)
    silenced = run(graph, {"image": x}, lambda op, outputs: [o * 0 for o in outputs] if op.name == "conv1" else outputs)
    assert not np.allclose(silenced[graph.outputs[0]], tensors[graph.outputs[0]])


def test_running_can_drop_what_is_read_no_more(zoo):
    model = build(view(zoo.residual()))
    graph = view(model)
    assert set(run(graph, {"image": zoo.data(model)}, keep=graph.outputs)) == set(graph.outputs)


def test_a_subclassed_model_without_shape_says_what_to_do(zoo):
    with pytest.raises(TfqatError, match=r"build\(shape\)"):
        view(zoo.Subclassed())


def test_a_sequential_model_without_input_says_what_to_do():
    with pytest.raises(TfqatError, match=r"keras\.Input"):
        view(keras.Sequential([layers.Dense(2)]))


def test_strange_layer_names_become_safe_ones():
    inputs = keras.Input((4,), name="in:put")
    graph = view(keras.Model(inputs, layers.Dense(2, name="größe, a:b")(inputs)))
    assert graph.inputs == ("in_put",)
    assert graph.ops[0].name == "gr__e__a_b"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DepthwiseConv2D", "depthwise_conv2d"),
        ("Conv2DTranspose", "conv2d_transpose"),
        ("GlobalAveragePooling2D", "global_average_pooling2d"),
        ("GELU", "gelu"),
        ("GetItem", "get_item"),
    ],
)
def test_snake_case(name, expected):
    assert snake_case(name) == expected


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.ReLU(), "relu"),
        (layers.ReLU(max_value=6), "relu6"),
        (layers.ReLU(max_value=1), "clipped_relu"),
        (layers.ReLU(negative_slope=0.1), "leaky_relu"),
        (layers.LeakyReLU(), "leaky_relu"),
        (layers.PReLU(), "prelu"),
        (layers.ELU(), "elu"),
        (layers.Activation("swish"), "silu"),
        (layers.Activation("hard_swish"), "hard_silu"),
        (layers.Activation("linear"), "linear"),
        (layers.UpSampling2D(), "up_sampling2d"),
        (layers.UpSampling2D(interpolation="bilinear"), "up_sampling2d_smooth"),
        (layers.Add(), "add"),
    ],
)
def test_kind_of_layers(layer, expected):
    assert kind_of(type(layer).__name__, layer.get_config(), 2) == expected


@pytest.mark.parametrize(
    "name", ["relu", "relu6", "gelu", "elu", "selu", "silu", "tanh", "sigmoid", "softmax", "hard_sigmoid", "mish"]
)
def test_kind_of_an_activation_is_the_same_however_it_is_given(name):
    config = layers.Dense(2, activation=getattr(keras.activations, name)).get_config()
    assert activation_kind(config["activation"]) == activation_kind(name) == name


class _Forgetful(keras.layers.Layer):
    """A layer of the user's whose config leaves out an argument."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def get_config(self):
        return super().get_config()

    def call(self, inputs):
        return inputs * self.factor


def test_a_layer_that_cannot_be_made_again_is_named():
    inputs = keras.Input((4,))
    with pytest.raises(TfqatError, match=r"(?s)'mine'.*get_config"):
        build(view(keras.Model(inputs, _Forgetful(2.0, name="mine")(inputs))))


def test_a_nested_model_is_seen_in_the_sizes_that_it_is_called_with():
    backbone = keras.applications.MobileNetV2(input_shape=(None, None, 3), include_top=False, weights=None, alpha=0.35)
    image = keras.Input((64, 96, 3))
    model = keras.Model(image, backbone(image, training=False))
    graph = view(model)
    assert all(None not in shape[1:] for shape in graph.shapes.values())
    own = view(keras.applications.MobileNetV2(input_shape=(64, 96, 3), include_top=False, weights=None, alpha=0.35))
    assert [op.kind for op in graph.ops] == [op.kind for op in own.ops]
    assert list(graph.shapes.values()) == list(own.shapes.values())
    assert [tensor.shape[1:3] for tensor in backbone.inputs] == [(None, None)]


@pytest.mark.parametrize("given", ["model.keras", None])
def test_what_is_no_model_is_said(given):
    with pytest.raises(TfqatError, match="Expected a Keras model, received"):
        view(given)
