"""Prepare, train, freeze, finalize and split on every kind of small model."""

from typing import get_args

import keras
import numpy as np
import pytest
from keras import layers, ops, tree

import tfqat
from tfqat.core.encoding import encoding_of_values
from tfqat.errors import TfqatError
from tfqat.graph.build import build
from tfqat.graph.feed import by_input
from tfqat.models.efficientdet.model import efficientdet
from tfqat.rewrite.jit import jit_pays
from tfqat.rewrite.kernels import QuantConv2D
from tfqat.rewrite.model import batch_norm_layers, kernel_layers, range_layers
from tfqat.rewrite.prepare import relu6_model
from tfqat.rewrite.relu6 import DEFAULT
from tfqat.rewrite.split import split, without_quantizers
from tfqat.spec.schema import Quantization, Unbounded
from tfqat.view.view import view

NAMES = (
    "conv_net residual two_branches concat squeeze_excite nested separable bare_ops many_inputs subclassed unfoldable"
)


@pytest.fixture(params=NAMES.split())
def trained(request, zoo):
    """A prepared, calibrated and a little trained model, with its data."""
    keras.utils.set_random_seed(3)
    model = zoo.MODELS[request.param]()
    x = zoo.data(model, 16)
    qat = tfqat.prepare(model)
    report = tfqat.calibrate(qat, [x], method="minmax")
    assert not report.no_data
    qat.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    y = tree.map_structure(lambda t: np.ones(t.shape, "float32"), qat(x))
    qat.fit(x, y, epochs=2, batch_size=8, verbose=0)
    return model, qat, x


def outputs(model, x):
    return [np.array(value) for value in tree.flatten(model(x, training=False))]


def close(a, b, tolerance=1e-4):
    return all(np.abs(p - q).max() <= tolerance * max(1.0, np.abs(q).max()) for p, q in zip(a, b, strict=True))


def test_saves_and_loads_bit_for_bit(trained, tmp_path):
    _, qat, x = trained
    qat.save(tmp_path / "x.keras")
    loaded = keras.models.load_model(tmp_path / "x.keras")
    assert all(np.array_equal(a, b) for a, b in zip(outputs(qat, x), outputs(loaded, x), strict=True))
    assert loaded.placement == qat.placement
    assert all(np.array_equal(a, b) for a, b in zip(qat.get_weights(), loaded.get_weights(), strict=True))


def test_the_finalized_model_computes_the_same(trained):
    _, qat, x = trained
    before = [np.array(w) for w in qat.weights]
    final = tfqat.finalize(qat)
    # A value next to a tie may round the other way; a step of 1/127 of the range then shows in the output.
    assert close(outputs(final, x), outputs(qat, x), 0.02)
    assert all(np.array_equal(a, b) for a, b in zip(before, qat.weights, strict=True))
    assert not [layer for layer in final.layers if isinstance(layer, layers.Dropout)]
    assert tfqat.finalize(final) is final


def test_the_finalized_model_saves_and_loads_bit_for_bit(trained, tmp_path):
    _, qat, x = trained
    final = tfqat.finalize(qat)
    final.save(tmp_path / "x.keras")
    loaded = keras.models.load_model(tmp_path / "x.keras")
    assert loaded.finalized
    assert loaded.placement == final.placement
    assert all(np.array_equal(a, b) for a, b in zip(outputs(final, x), outputs(loaded, x), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(final.get_weights(), loaded.get_weights(), strict=True))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_of_half_floats_is_finalized_in_float32(policy):
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, dtype=policy)(inputs)
    x = layers.BatchNormalization(dtype=policy)(x)
    x = layers.Flatten(dtype=policy)(layers.ReLU(dtype=policy)(x))
    qat = tfqat.prepare(keras.Model(inputs, layers.Dense(2, dtype=policy)(x)))
    images = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype("float32")
    tfqat.calibrate(qat, images)
    final = tfqat.finalize(qat)
    assert {layer.compute_dtype for layer in final.layers} == {"float32"}
    assert np.allclose(final(images), ops.cast(qat(images), "float32"), atol=0.1)


def _softly(x):
    y = layers.Dense(6, name="stem")(x)
    return layers.Attention(use_scale=True, name="attention")([y, y])


def _in_words(x):
    y = layers.Dense(6, name="stem")(x)
    return ops.einsum("bst,btc->bsc", ops.softmax(ops.einsum("bsc,btc->bst", y, y) / 2), y)


ATTENTIONS = {
    "einsum": _in_words,
    "attention": _softly,
    "heads": lambda x: layers.MultiHeadAttention(2, 4, name="attention")(x, x, use_causal_mask=True),
    "groups": lambda x: layers.GroupQueryAttention(4, 4, 2, name="attention")(x, x),
}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("attend", ATTENTIONS.values(), ids=ATTENTIONS)
def test_attention_in_any_precision_is_quantized_and_exported(policy, attend, tmp_path):
    before, kind = keras.config.dtype_policy(), "float64" if policy == "float64" else "float32"
    floatx = keras.config.floatx()
    keras.config.set_floatx(kind)
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(0)
        tokens = keras.Input((5, 6), name="tokens")
        y = layers.GlobalAveragePooling1D(name="mean")(layers.Dense(6, name="mid")(attend(tokens)))
        model = keras.Model(tokens, layers.Dense(3, name="head", dtype=kind)(y))
        x = np.random.default_rng(0).normal(size=(8, 5, 6)).astype(kind)
        qat = tfqat.prepare(model)
        assert [row.state for row in qat.placement.rows if row.kind == "matmul"] == ["int8", "int8"]
        unquantized = build(without_quantizers(view(qat)))
        tolerance = {"mixed_float16": 3e-3, "mixed_bfloat16": 3e-2, "float64": 1e-6}[policy]
        wanted = np.asarray(model(x), "float64")
        assert np.abs(np.asarray(unquantized(x), "float64") - wanted).max() <= tolerance * np.abs(wanted).max()
        tfqat.calibrate(qat, [x])
        tfqat.export(qat, tmp_path)
        report = tfqat.verify(qat, tmp_path, x)
        assert report.passed, report
    finally:
        keras.config.set_dtype_policy(before)
        keras.config.set_floatx(floatx)


def test_finalized_kernels_lie_on_their_grid(trained):
    final = tfqat.finalize(trained[1])
    for layer in kernel_layers(final):
        kernel, encoding = np.array(layer.weights[0]), layer.kernel_encoding()
        assert np.array_equal(encoding.fake_quantize(kernel), kernel)
        assert np.array_equal(np.abs(encoding.quantize(kernel)).reshape(-1, 1).max(), 127)


def test_the_split_model_is_stock_and_its_encodings_name_its_tensors(trained):
    _, qat, x = trained
    final = tfqat.finalize(qat)
    model, encodings = split(final)
    assert not [layer for layer in model.layers if "tfqat" in type(layer).__module__]
    graph = view(model)
    tensors = {*graph.inputs, *(tensor for op in graph.ops for tensor in op.outputs)}
    assert set(encodings.activations) <= tensors
    assert set(encodings.weights) <= {op.name for op in graph.ops}
    assert set(encodings.float_ops) <= {op.name for op in graph.ops}
    # The split model with its encodings put back by numpy computes what the finalized one does.
    assert close(_simulate(graph, encodings, model, x), outputs(final, x), 0.02)


def _simulate(graph, encodings, model, x):
    from tfqat.graph.run import run

    def rounded(tensor, value):
        encoding = encodings.activations.get(tensor)
        if encoding is None or encoding.origin == "calibrated":
            return value
        return ops.convert_to_tensor(encoding.fake_quantize(np.array(value)))

    values = {name: rounded(name, value) for name, value in by_input(graph, x).items()}
    visit = lambda op, outs: [rounded(t, o) for t, o in zip(op.outputs, outs, strict=True)]  # noqa: E731
    tensors = run(graph, values, visit)
    return [np.array(tensors[name]) for name in graph.outputs]


def test_the_given_model_is_untouched(zoo):
    model = zoo.residual()
    config, weights = model.get_config(), model.get_weights()
    qat = tfqat.prepare(model)
    tfqat.calibrate(qat, [zoo.data(model)])
    assert model.get_config() == config
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    assert not {id(layer) for layer in model.layers} & {id(layer) for layer in qat.layers}


def test_evaluation_moves_nothing(zoo):
    model = zoo.conv_net()
    qat = tfqat.prepare(model)
    x = zoo.data(model, 8)
    tfqat.calibrate(qat, [x])
    qat.compile("sgd", "mse")
    before = qat.get_weights()
    qat.evaluate(x * 100, np.zeros((8, 3)), verbose=0)
    qat.predict(x * 100, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, qat.get_weights(), strict=True))


def test_freezing_reaches_a_loop_that_was_compiled_before(zoo):
    keras.utils.set_random_seed(0)
    model = zoo.conv_net()
    qat, x = tfqat.prepare(model), zoo.data(model, 16)
    tfqat.calibrate(qat, [x])
    qat.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    labels = np.eye(3, dtype="float32")[np.arange(16) % 3]
    qat.fit(x, labels, verbose=0)
    tfqat.freeze(qat)
    frozen = [np.array(w) for w in qat.non_trainable_weights]
    learning = [np.array(w) for w in qat.trainable_weights]
    qat.fit(x * 1.1, labels, verbose=0)  # further would be clipped whole, and teach the weights nothing
    assert all(np.array_equal(a, b) for a, b in zip(frozen, qat.non_trainable_weights, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(learning, qat.trainable_weights, strict=True))
    assert len(batch_norm_layers(qat)) == 1


def test_what_quantizers_round_is_on_the_grid(zoo):
    model = zoo.conv_net()
    qat, x = tfqat.prepare(model), zoo.data(model)
    tfqat.calibrate(qat, [x])
    for layer in range_layers(qat):
        part = keras.Model(qat.inputs, layer.output)
        steps = np.array(part(x)) / layer.encoding().scale
        assert np.abs(steps - np.rint(steps)).max() < 1e-3


@pytest.mark.skipif(jit_pays(), reason="XLA costs on TensorFlow's CPU only")
def test_a_users_own_compile_does_not_turn_xla_on_where_it_costs(zoo):
    qat = tfqat.prepare(zoo.conv_net())
    qat.compile("sgd", "mse")
    assert not qat.jit_compile
    # Keras before 3.13 asks only the layers.
    assert not any(layer.supports_jit for layer in [*range_layers(qat), *kernel_layers(qat)])


def test_ranges_of_a_concat_are_one_after_training(zoo):
    model = zoo.concat()
    qat, x = tfqat.prepare(model), zoo.data(model, 16)
    tfqat.calibrate(qat, [x])
    tied = [layer for layer in range_layers(qat) if layer.group]
    assert len(tied) == 2
    assert tied[0].encoding() == tied[1].encoding()
    assert not np.array_equal(tied[0].extent, tied[1].extent)


def test_tied_ranges_survive_saving(zoo, tmp_path):
    model = zoo.concat()
    qat, x = tfqat.prepare(model), zoo.data(model, 16)
    tfqat.calibrate(qat, [x])
    qat.save(tmp_path / "x.keras")
    loaded = tfqat.load_model(tmp_path / "x.keras")
    tied = [layer for layer in range_layers(loaded) if layer.group]
    assert tied[0].encoding() == tied[1].encoding()


def test_learned_scales_of_kernels_train_and_are_what_every_form_rounds_by(zoo, tmp_path):
    model = zoo.conv_net()
    qat, x = tfqat.prepare(model, ranges="learned"), zoo.data(model, 16)
    tfqat.calibrate(qat, [x])
    before = [layer.kernel_encoding().scale for layer in kernel_layers(qat)]
    qat.compile("adam", "mse")
    qat.fit(x, np.ones((16, *qat.output_shape[1:])), epochs=2, verbose=0)
    for layer, scale in zip(kernel_layers(qat), before, strict=True):
        after = layer.kernel_encoding().scale
        assert not np.array_equal(after, scale)
        assert (np.abs(after / scale - 1) < 0.2).all()  # two steps of Adam move it a little
    qat.save(tmp_path / "qat.keras")
    np.testing.assert_array_equal(tfqat.load_model(tmp_path / "qat.keras")(x), qat(x))
    np.testing.assert_allclose(tfqat.finalize(qat)(x), qat(x), rtol=1e-4, atol=1e-4)


def test_learned_ranges_freeze_whatever_the_optimizer_does(zoo):
    model = zoo.residual()
    qat, x = tfqat.prepare(model, ranges="learned"), zoo.data(model, 16)
    tfqat.calibrate(qat, [x])
    qat.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", jit_compile=False)
    qat.fit(x * 2, np.ones((16, 2)), epochs=2, verbose=0)
    tfqat.freeze(qat)
    scales = [layer.encoding().scale for layer in range_layers(qat)]
    qat.fit(x * 2, np.ones((16, 2)), epochs=2, verbose=0)
    assert scales == [layer.encoding().scale for layer in range_layers(qat)]


@pytest.mark.parametrize("ranges", ["moving_average", "learned", "fixed"])
def test_each_way_of_learning_ranges_trains(zoo, ranges):
    model = zoo.residual()
    qat, x = tfqat.prepare(model, ranges=ranges), zoo.data(model, 16)
    tfqat.calibrate(qat, [x])
    before = [np.array(layer.extent) for layer in range_layers(qat)]
    qat.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
    qat.fit(x * 2, np.ones((16, 2)), epochs=2, verbose=0)
    moved = any(not np.array_equal(a, layer.extent) for a, layer in zip(before, range_layers(qat), strict=True))
    assert moved == (ranges != "fixed")
    tfqat.finalize(qat)


def test_relu6_is_asked_for_and_reported(zoo):
    model = zoo.residual()
    assert [line.split(":")[0] for line in tfqat.placement(model).changes] == ["stem/relu", "out_relu"]
    assert not tfqat.placement(model, relu6=[]).changes
    kept = tfqat.placement(model, rules=[{"match": "stem", "relu6": False}])
    assert kept.changes == ("out_relu: relu -> relu6",)


def test_relu6_spares_what_is_computed_from_weights():
    """A relu that keeps a learned factor positive is no activation: it may give more than 6."""

    @tfqat.quantizable
    class Scale(layers.Layer):
        def build(self, shape):
            self.first, self.second = (self.add_weight(shape=(), name=f"w{n}") for n in range(2))

        def call(self, x):
            return ops.relu(x * ops.relu(self.first) + ops.relu(self.first * self.second))

    inputs = keras.Input((4,))
    x = Scale(name="scale")(layers.Dense(4, name="a")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    model.get_layer("scale").first.assign(50.0)
    model.get_layer("scale").second.assign(0.5)
    model.get_layer("a").set_weights([np.eye(4) * 0.02, np.zeros(4)])
    changes = tfqat.placement(model).changes
    assert [line.split(": ")[1] for line in changes] == ["relu -> relu6"]
    x = np.full((1, 4), -24.0, "float32")  # relu(-24 + 25) = 1
    np.testing.assert_allclose(relu6_model(model)(x), model(x), rtol=1e-5)


def test_relu6_spares_outputs():
    inputs = keras.Input((4,), name="x")
    x = layers.ReLU(name="inner")(layers.Dense(3, name="d1")(inputs))
    model = keras.Model(inputs, layers.Activation("relu", name="last")(layers.Dense(3, name="d2")(x)))
    assert tfqat.placement(model).changes == ("inner: relu -> relu6",)


@pytest.mark.parametrize("layer", [layers.LeakyReLU(), layers.PReLU(), layers.ELU(), layers.Activation("relu")])
def test_relu6_takes_the_place_of_each_activation(layer):
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, layers.Dense(2)(layer(layers.Dense(3)(inputs))))
    x = np.random.default_rng(0).normal(0, 20, (32, 4)).astype("float32")
    converted = relu6_model(model)
    first, head = model.layers[1], model.layers[-1]
    expected = head(np.clip(np.array(first(x)), 0, 6))
    assert np.allclose(converted(x), expected, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(get_args(Unbounded)))
def test_relu6_takes_the_place_of_what_a_spec_may_list(kind):
    layer = layers.PReLU(name="act") if kind == "prelu" else layers.Activation(kind, name="act")
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, layers.Dense(2)(layer(layers.Dense(3)(inputs))))
    x = np.random.default_rng(0).normal(0, 20, (32, 4)).astype("float32")
    expected = model.layers[-1](np.clip(np.array(model.layers[1](x)), 0, 6))
    assert tfqat.placement(model, relu6=[kind]).changes == (f"act: {kind} -> relu6",)
    assert np.allclose(relu6_model(model, relu6=[kind])(x), expected, atol=1e-5)
    assert bool(tfqat.placement(model).changes) == (kind in DEFAULT)


def test_specs_and_python_convert_the_same_by_default():
    assert Quantization().relu6 == DEFAULT


def test_a_detector_of_silu_becomes_one_of_relu6():
    sizes = {"width": 8, "depth": 1, "head_depth": 1}
    model = efficientdet("efficientdet_d0", (128, 128, 3), 2, backbone="EfficientNetB0", **sizes)
    plan = tfqat.placement(model, relu6=["silu"])
    assert "silu" not in {row.kind for row in plan.rows}
    assert len(plan.changes) == sum(row.kind == "silu" for row in tfqat.placement(model).rows) > 50


def test_a_model_without_anything_to_quantize_is_an_error():
    inputs = keras.Input((4,))
    with pytest.raises(TfqatError, match="no layer that tensorrt can quantize"):
        tfqat.prepare(keras.Model(inputs, layers.Softmax()(inputs)))


def test_a_train_step_of_ones_own_is_told_to_be_left_out():
    class Own(keras.Model):
        def train_step(self, data):
            return {}

    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(2)(keras.layers.Dense(3)(inputs))
    assert tfqat.placement(Own(inputs, outputs)).changes[0].startswith("Own.train_step: not taken over")
    assert tfqat.placement(keras.Model(inputs, outputs)).changes == ()


def test_a_layer_called_in_int8_and_as_a_float_output_is_told_to_be_parted():
    dense = keras.layers.Dense(4, name="dense")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, dense(dense(inputs)))
    assert "dense: dense/1 shares its weights and stays float" in tfqat.placement(model).changes[0]
    assert len(tfqat.prepare(model).trainable_variables) == 4


def test_a_prepared_model_cannot_be_prepared_again(zoo):
    with pytest.raises(TfqatError, match="prepared already"):
        tfqat.prepare(tfqat.prepare(zoo.conv_net()))


def test_finalizing_without_data_names_the_quantizers(zoo):
    with pytest.raises(TfqatError, match=r"3 of 3 Quantizers have seen no data: image, relu1, pool"):
        tfqat.finalize(tfqat.prepare(zoo.conv_net()))


@pytest.mark.parametrize("verb", ["freeze", "finalize", "calibrate"])
def test_a_float_model_is_refused_by_the_other_verbs(zoo, verb):
    arguments = [zoo.conv_net()] + ([[]] if verb == "calibrate" else [])
    with pytest.raises(TfqatError, match="prepare"):
        getattr(tfqat, verb)(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranges": "average"}, "moving_average, learned, fixed"),
        ({"relu6": ["rellu"]}, "Did you mean 'relu'"),
        ({"decay": 1.5}, "between 0 and 1"),
        ({"observe_fraction": 0}, "above 0"),
        ({"freeze_after": -1}, "from 0"),
        ({"ranges": "fixed", "freeze_after": 5}, "nothing to freeze"),
        ({"ranges": "learned", "decay": 0.9}, "decay: received 0.9 .*moving_average' only"),
        ({"ranges": "fixed", "observe_fraction": 0.5}, "observe_fraction: received 0.5 .*moving_average' only"),
        ({"ranges": "learned", "ranges_rate_multiplier": 0.0}, "above 0"),
        ({"ranges_rate_multiplier": 2.0}, "learned' only"),
    ],
)
def test_a_bad_option_is_an_error(zoo, options, message):
    with pytest.raises(TfqatError, match=message):
        tfqat.prepare(zoo.conv_net(), **options)


def test_strict_refuses_weighted_ops_that_stay_float():
    inputs = keras.Input((8, 4), name="x")
    x = layers.GRU(4, return_sequences=True, name="g1")(inputs)
    x = layers.Dense(4, name="d1")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    with pytest.raises(TfqatError, match=r"g1 \(gru\)"):
        tfqat.prepare(model, strict=True)
    tfqat.prepare(model, strict=True, rules=[{"match": "g1", "quantize": False}])


def test_a_layer_with_two_batchnorms_gets_two_kernels():
    inputs = keras.Input((6, 6, 3), name="x")
    conv = layers.Conv2D(3, 3, padding="same", name="conv")
    a = layers.BatchNormalization(name="bn_a")(conv(inputs))
    b = layers.BatchNormalization(name="bn_b")(conv(layers.ReLU()(a)))
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="head")(layers.ReLU()(b)))
    for name, value in (("bn_a", 2.0), ("bn_b", 0.5)):
        model.get_layer(name).gamma.assign([value] * 3)
    qat, x = tfqat.prepare(model), np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype("float32")
    assert sum(isinstance(layer, QuantConv2D) for layer in qat.layers) == 1
    tfqat.calibrate(qat, [x], method="minmax")
    final = tfqat.finalize(qat)
    assert sum(isinstance(layer, QuantConv2D) for layer in final.layers) == 2
    assert close(outputs(final, x), outputs(qat, x), 0.02)


def test_folding_carries_scales_by_the_gain():
    inputs = keras.Input((6, 6, 3), name="x")
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="dw")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="head")(layers.ReLU()(x)))
    gamma = np.float32([1, -2, 0.5, 3, -0.1, 0])
    model.get_layer("bn").gamma.assign(gamma)
    qat = tfqat.prepare(model)
    tfqat.calibrate(qat, [np.ones((2, 6, 6, 3), "float32")])
    before = kernel_layers(qat)[0].kernel_encoding()
    after = kernel_layers(tfqat.finalize(qat))[0].kernel_encoding()
    gain = np.abs(gamma) / np.sqrt(1 + 1e-3)
    assert after.scale[:5] == pytest.approx((before.scale * gain)[:5], rel=1e-5)
    kernel = np.array(kernel_layers(qat)[0].weights[0])
    again = encoding_of_values(before.scheme, np.array(kernel_layers(tfqat.finalize(qat))[0].weights[0]))
    signs = np.sign(gamma[:5]).astype(int)
    integers = before.quantize(kernel).reshape(9, 6)[:, :5]
    assert np.array_equal(again.quantize(again.fake_quantize(kernel * 0)), np.zeros(kernel.shape))
    final_kernel = np.array(kernel_layers(tfqat.finalize(qat))[0].weights[0])
    assert np.array_equal(after.quantize(final_kernel).reshape(9, 6)[:, :5], integers * signs)


def test_learned_ranges_count_as_seen_once_they_have_trained(zoo):
    model = zoo.residual()
    qat, x = tfqat.prepare(model, ranges="learned"), zoo.data(model, 16)
    qat.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
    qat.fit(x, np.ones((16, 2)), verbose=0)
    assert tfqat.finalize(qat).finalized


def test_a_clone_without_its_placement_says_so(zoo):
    model = zoo.residual()
    clone = keras.models.clone_model(tfqat.prepare(model))
    with pytest.raises(TfqatError, match="cloned without its placement"):
        clone.placement  # noqa: B018
