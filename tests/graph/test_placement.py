"""Placement: what is quantized in small models, what is not and why; golden tables for large ones."""

from pathlib import Path

import keras
import pytest
from keras import layers, ops

import tfqat
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.graph.placement import placement_from_dict

GOLDEN = Path(__file__).parent / "golden"
TABLES = sorted(
    path.relative_to(GOLDEN).with_suffix("").as_posix()
    for path in GOLDEN.glob("*/*.txt")
    if path.parent.name not in ("structures", "detectors")
)


def states(model, **options):
    return {row.op: (row.state, row.reason) for row in tfqat.placement(model, **options).rows}


def test_there_are_golden_tables():
    assert len(TABLES) == 13


@pytest.mark.parametrize("name", TABLES)
def test_golden_table(name, fresh_names):
    target, architecture = name.split("/")
    plan = tfqat.placement(getattr(keras.applications, architecture)(weights=None), target)
    assert plan.int8_mac_share == 1.0
    assert str(plan) + "\n" == (GOLDEN / f"{name}.txt").read_text(), "run scripts/golden.py and read the difference"


def test_a_block_has_one_quantizer_at_its_end(zoo):
    plan = tfqat.placement(zoo.conv_net())
    assert list(plan.activations) == ["image", "relu1", "pool"]
    assert plan.weights == {"conv1": Scheme(narrow=True, axis=(-1,))}
    assert states(zoo.conv_net()) == {
        "conv1": ("int8", "fused with batch_normalization, relu6"),
        "bn1": ("int8", "fused into conv1"),
        "relu1": ("int8", "fused into conv1"),
        "pool": ("int8", "own range"),
        "head": ("float", "output layer: outputs stay float"),
        "head/softmax": ("float", "output layer: outputs stay float"),
    }


def test_a_residual_add_takes_one_unquantized_convolution(zoo):
    plan = tfqat.placement(zoo.residual())
    # No Q/DQ between conv_a, bn_a and the Add, which fuse; the identity branch is quantized.
    assert list(plan.activations) == ["image", "stem/relu", "out_relu"]


def test_of_two_convolutions_the_later_one_fuses_with_the_add(zoo):
    plan = tfqat.placement(zoo.two_branches())
    assert "short" in plan.activations
    assert "long_b" not in plan.activations
    assert "join" not in plan.activations


def test_of_two_equally_late_convolutions_the_first_input_fuses():
    inputs = keras.Input((4, 4, 2))
    a, b = layers.Conv2D(2, 1, name="a")(inputs), layers.Conv2D(2, 1, name="b")(inputs)
    outputs = layers.Conv2D(1, 1, name="head")(layers.Add(name="sum")([b, a]))
    plan = tfqat.placement(keras.Model(inputs, outputs))
    assert "a" in plan.activations
    assert "b" not in plan.activations


def test_a_convolution_that_is_read_twice_does_not_fuse():
    inputs = keras.Input((4, 4, 2), name="image")
    a = layers.Conv2D(2, 1, name="a")(inputs)
    total = layers.Add(name="sum")([a, inputs])
    outputs = layers.Conv2D(1, 1, name="head")(layers.Concatenate(name="cat")([total, a]))
    plan = tfqat.placement(keras.Model(inputs, outputs))
    assert set(plan.activations) == {"image", "a", "sum"}


def test_adding_a_tensor_to_itself_quantizes_it():
    inputs = keras.Input((4, 4, 2), name="image")
    a = layers.Conv2D(2, 1, name="a")(inputs)
    outputs = layers.Conv2D(1, 1, name="head")(layers.Add(name="sum")([a, a]))
    assert set(tfqat.placement(keras.Model(inputs, outputs)).activations) == {"image", "a", "sum"}


def test_concat_and_maxpool_tie_ranges(zoo):
    plan = tfqat.placement(zoo.concat())
    assert plan.groups == {"a/relu": "a/relu", "c/relu": "a/relu"}
    assert {row.op for row in plan.rows if row.state == "shared"} == {"b", "cat"}
    assert not {"b", "cat"} & set(plan.activations)


def test_the_first_quantizer_comes_after_preprocessing(zoo):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Normalization(name="norm")(layers.Rescaling(1 / 255, name="scale")(inputs))
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="head")(layers.Conv2D(2, 1, name="conv")(x)))
    plan = tfqat.placement(model)
    assert next(iter(plan.activations)) == "norm"
    assert states(model)["scale"] == ("float", "before the first Quantizer")
    assert next(iter(tfqat.placement(zoo.bare_ops()).activations)) not in ("image", "true_divide")


def test_what_a_composite_activation_reads_is_observed(zoo):
    plan = tfqat.placement(zoo.squeeze_excite())
    assert plan.observed == ("stem",)
    assert {"stem/silu", "squeeze", "excite/sigmoid", "scale"} <= set(plan.activations)


def test_a_batchnorm_that_cannot_fold_is_listed(zoo):
    got = states(zoo.unfoldable())
    assert got["bn"] == ("float", "no weighted op to fold into: stays a float multiply-add")
    assert got["conv2"] == ("int8", "fused with relu6")
    assert "act" in tfqat.placement(zoo.unfoldable()).activations


def test_the_walk_back_from_an_output_ends_at_relu_add_and_pooling():
    inputs = keras.Input((8, 8, 2), name="image")
    x = layers.ReLU(name="act")(layers.Conv2D(2, 1, name="conv")(inputs))
    headless = keras.Model(inputs, x)
    assert states(headless)["conv"][0] == "int8"
    assert "act" in tfqat.placement(headless).activations
    pooled = keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x))
    assert states(pooled)["pool"] == ("int8", "own range")


def test_the_walk_back_passes_reshape_concat_and_softmax():
    inputs = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(4, 1, activation="relu", name="body")(inputs)
    heads = [layers.Reshape((-1, 2), name=f"flat_{n}")(layers.Conv2D(4, 1, name=f"head_{n}")(x)) for n in "ab"]
    model = keras.Model(inputs, layers.Softmax(name="prob")(layers.Concatenate(axis=1, name="cat")(heads)))
    got = states(model)
    assert {name for name, (state, _) in got.items() if state == "float"} == {
        "head_a", "head_b", "flat_a", "flat_b", "cat", "prob",
    }  # fmt: skip
    assert list(tfqat.placement(model).activations) == ["image", "body/relu"]


@pytest.mark.parametrize(("filling", "state"), [(0.0, "shared"), (0.7, "int8")])
def test_padding_with_other_values_than_zero_has_a_range_of_its_own(filling, state):
    inputs = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(2, 1, name="conv")(inputs)
    x = keras.ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=filling)
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Conv2D(2, 1, name="conv2")(x)))
    assert [row.state for row in tfqat.placement(model).rows if row.kind.startswith("pad")] == [state]


def test_unknown_ops_stay_float_and_say_so():
    inputs = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(2, 1, name="conv")(inputs)
    x = layers.LayerNormalization(name="ln")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Conv2D(2, 1, name="conv2")(x)))
    state, reason = states(model)["ln"]
    assert state == "float"
    assert reason.startswith("tensorrt has no INT8 form of layer_normalization")
    assert set(tfqat.placement(model).activations) == {"image", "conv", "ln", "conv2"}


def test_a_dynamic_matmul_has_both_inputs_quantized():
    a, b = keras.Input((4, 8), name="a"), keras.Input((8, 4), name="b")
    x = ops.matmul(a, b)
    model = keras.Model([a, b], layers.Dense(2, name="head")(layers.Dense(3, activation="relu", name="d")(x)))
    plan = tfqat.placement(model)
    assert {"a", "b"} <= set(plan.activations)


def test_a_rule_keeps_ops_in_float_with_all_that_fuses(zoo):
    got = states(zoo.residual(), rules=[{"match": "conv_*", "quantize": False}])
    assert got["conv_a"] == ("float", "rule 'conv_*'")
    plan = tfqat.placement(zoo.residual(), rules=[{"match": "conv_*", "quantize": False}])
    assert "conv_a" not in plan.weights
    assert plan.int8_mac_share < 1


def test_the_first_rule_that_matches_decides(zoo):
    rules = [{"match": "stem", "quantize": True}, {"match": "*", "quantize": False}]
    plan = tfqat.placement(zoo.residual(), rules=rules)
    assert list(plan.weights) == ["stem"]


def test_a_rule_can_quantize_an_output_layer(zoo):
    plan = tfqat.placement(zoo.conv_net(), rules=[{"match": "head", "quantize": True}])
    assert set(plan.weights) == {"conv1", "head"}
    assert "head" not in plan.activations


def test_a_rule_names_nested_models_whole(zoo):
    plan = tfqat.placement(
        zoo.nested(), rules=[{"match": "block", "quantize": False}, {"match": "head", "quantize": True}]
    )
    assert list(plan.weights) == ["head"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"match": "conv9", "quantize": False}, "near names: conv1"),
        ({"match": "conv1", "quantise": False}, "Did you mean 'quantize'"),
        ({"match": "conv1", "quantize": "no"}, "true, false or 'weights'"),
        ({"match": "conv1"}, "asks for nothing"),
        ({"quantize": False}, "match"),
        ("conv1", "mapping"),
    ],
)
def test_a_bad_rule_is_an_error(zoo, rule, message):
    with pytest.raises(TfqatError, match=message):
        tfqat.placement(zoo.conv_net(), rules=[rule])


def test_a_rule_that_cannot_be_honoured_is_an_error(zoo):
    with pytest.raises(TfqatError, match=r"head/softmax \(softmax\): output layer"):
        tfqat.placement(zoo.conv_net(), rules=[{"match": "head/softmax", "quantize": True}])


def test_an_unknown_target_lists_the_valid_ones(zoo):
    with pytest.raises(TfqatError, match="Did you mean 'tensorrt'"):
        tfqat.placement(zoo.conv_net(), target="tensort")


def test_a_placement_survives_its_dictionary(zoo):
    for build in zoo.MODELS.values():
        plan = tfqat.placement(build())
        assert placement_from_dict(plan.to_dict()) == plan


def test_placement_leaves_the_model_alone(zoo):
    model = zoo.residual()
    config, nodes = model.get_config(), [len(layer._outbound_nodes) for layer in model.layers]
    tfqat.placement(model)
    assert model.get_config() == config
    assert [len(layer._outbound_nodes) for layer in model.layers] == nodes
