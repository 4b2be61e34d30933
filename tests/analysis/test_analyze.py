"""The numbers of an analysis against numpy, and against models that prepare makes with rules."""

from __future__ import annotations

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfqat
from tfqat.analysis import analyze as analyze_module
from tfqat.analysis import sensitivity
from tfqat.errors import TfqatError
from tfqat.rewrite.prepare import relu6_model
from tfqat.rewrite.quantizer import Quantizer

# Block -> what of the model is in it, and the tensor that it quantizes.
BLOCKS = {
    "image": ((), "image"),
    "stem": (("stem", "stem_bn", "stem_relu"), "stem_relu"),
    "branch": (("branch", "join", "join_relu"), "join_relu"),
    "depthwise": (("depthwise", "depthwise_relu"), "depthwise_relu"),
    "last": (("last", "last_relu"), "last_relu"),
    "pool": (("pool",), "pool"),
}
KERNELS = [name for name in BLOCKS if name not in ("image", "pool")]


@pytest.fixture(scope="module")
def found(qat, images, labels):
    return tfqat.analyze(qat, (images, labels))


@pytest.fixture(scope="module")
def plain(float_model):
    """The float model with ReLU6, as it is prepared."""
    return relu6_model(float_model)


def block(found, name):
    return next(block for block in found.blocks if block.name == name)


def relative(outputs, reference):
    return float(np.linalg.norm(outputs - reference) / np.linalg.norm(reference))


def judge(float_model, qat, rules, rounding):
    """A model made by rules, with the analysed model's ranges; of its Quantizers only those of ``rounding`` round."""
    model = tfqat.prepare(float_model, rules=rules)
    for layer in model.layers:
        if isinstance(layer, Quantizer):
            if layer.name.split(">")[0] in rounding:
                layer.set_weights(qat.get_layer(layer.name).get_weights())
            else:
                layer.call = pass_on(layer.absorbs_relu6)
    return lambda images: np.asarray(model(images, training=False))


def pass_on(absorbs_relu6):
    return lambda inputs, training=None: keras.ops.relu6(inputs) if absorbs_relu6 else inputs


def test_the_blocks_part_the_model(found):
    assert {b.name: [t.name for t in b.tensors] for b in found.blocks} == {n: [t] for n, (_, t) in BLOCKS.items()}
    assert {b.name for b in found.blocks if b.kernel} == set(KERNELS)


@pytest.mark.parametrize("name", KERNELS)
def test_alone_quantized_is_what_rules_that_keep_the_rest_float_make(
    name, found, float_model, plain, qat, images, labels
):
    ops, tensor = BLOCKS[name]
    rules = [*({"match": op, "quantize": True} for op in ops), {"match": "*", "quantize": False}]
    outputs = judge(float_model, qat, rules, {tensor})(images)
    score = block(found, name).alone_quantized
    assert score.output_error == pytest.approx(relative(outputs, plain.predict(images, verbose=0)), rel=1e-3)
    assert score.accuracy == pytest.approx((outputs.argmax(-1) == labels).mean())


@pytest.mark.parametrize("name", ["stem", "depthwise", "last"])
def test_alone_float_is_what_a_rule_that_keeps_the_block_float_makes(
    name, found, float_model, plain, qat, images, labels
):
    """Not the residual one: a rule for it makes the other branch of the Add another block."""
    _, tensor = BLOCKS[name]
    rules = [{"match": name, "quantize": False}]
    step = np.asarray(qat.get_layer("image>quantizer").extent)[0] / 127
    # The rule leaves no reader that wants the image rounded.
    given = np.clip(np.rint(images / step), -128, 127) * step if name == "stem" else images
    outputs = judge(float_model, qat, rules, {t for _, t in BLOCKS.values()} - {tensor})(given)
    score = block(found, name).alone_float
    assert score.output_error == pytest.approx(relative(outputs, plain.predict(images, verbose=0)), rel=1e-3)
    assert score.accuracy == pytest.approx((outputs.argmax(-1) == labels).mean())


def test_whole_forms(found, float_model, plain, qat, images, labels):
    reference = plain.predict(images, verbose=0)
    outputs = {
        "float": reference,
        "quantized": qat.predict(images, verbose=0),
        "weights_only": judge(float_model, qat, [], ())(images),
    }
    for name, values in outputs.items():
        assert found.forms[name].output_error == pytest.approx(relative(values, reference), rel=1e-3), name
        assert found.forms[name].accuracy == pytest.approx((values.argmax(-1) == labels).mean()), name


def test_activations_only(found, qat, plain, images, float_model):
    """The prepared model with the kernels of its layers rounded by nobody."""
    model = tfqat.prepare(float_model)
    model.set_weights(qat.get_weights())
    for name in KERNELS:
        model.get_layer(name).finalized = True  # what it holds is taken as it is
    error = relative(np.asarray(model(images)), plain.predict(images, verbose=0))
    assert found.forms["activations_only"].output_error == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_tensor_against_numpy(name, found, plain, qat, images):
    tensor = BLOCKS[name][1]
    part = keras.Model(plain.inputs, plain.get_layer(tensor).output)
    x = part.predict(images, verbose=0).astype(np.float64) if name != "image" else images.astype(np.float64)
    step = float(qat.get_layer(f"{tensor}>quantizer").extent[0]) / 127
    rounded = np.clip(np.rint(x / step), -128, 127) * step
    report = block(found, name).tensors[0]
    assert report.mse == pytest.approx(((rounded - x) ** 2).mean(), rel=1e-3)
    assert report.sqnr_db == pytest.approx(10 * np.log10((x**2).sum() / ((rounded - x) ** 2).sum()), abs=0.01)
    assert (report.low, report.high) == pytest.approx((x.min(), x.max()), rel=1e-5)
    assert (report.clip_low, report.clip_high) == pytest.approx((-128 * step, 127 * step), rel=1e-5)
    counts, _ = np.histogram(x, 128, (x.min(), x.max()))
    assert sum(report.histogram.counts) == pytest.approx(x.size, abs=64)
    # Bars are made of finer bins, and one at the border of two is shared between them.
    assert np.abs(np.cumsum(report.histogram.counts) - np.cumsum(counts)).max() < 0.02 * x.size


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_against_numpy(name, found, float_model):
    kernel = float_model.get_layer(name).kernel.numpy().astype(np.float64)
    flat = kernel.reshape(9, -1) if name == "depthwise" else kernel.reshape(-1, kernel.shape[-1])
    step = np.abs(flat).max(axis=0) / 127
    noise = np.rint(flat / step) * step - flat
    report = block(found, name).kernel
    assert report.rounding.mse == pytest.approx((noise**2).mean(), rel=1e-3)
    assert report.rounding.sqnr_db == pytest.approx(10 * np.log10((flat**2).sum() / (noise**2).sum()), abs=0.01)
    assert report.channels.low == pytest.approx(flat.min(axis=0))
    assert report.channels.high == pytest.approx(flat.max(axis=0))
    widths = np.abs(flat).max(axis=0)
    assert report.channels.ratio == pytest.approx(widths.max() / widths.min())


def test_blocks_come_worst_first(found):
    errors = [b.alone_quantized.output_error for b in found.blocks]
    assert errors == sorted(errors, reverse=True)
    assert found.blocks[0].sqnr_db == min(
        [t.sqnr_db for t in found.blocks[0].tensors] + ([k.rounding.sqnr_db] if (k := found.blocks[0].kernel) else [])
    )


def chain() -> keras.Model:
    keras.utils.set_random_seed(5)
    image = x = keras.Input((12, 12, 3), name="image")
    for name in ("one", "two", "three", "four"):
        x = layers.Conv2D(8, 3, activation="relu", name=name)(x)
    x = layers.Dense(5, name="head")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(image, x, name="chain")


@pytest.mark.parametrize(("name", "reader"), [("one", "two"), ("two", "three"), ("three", "four")])
def test_a_planted_outlier_channel_is_ranked_first(name, reader, images):
    """One channel is 200 times as large and its reader divides it again, so that the float model computes the same."""
    model = chain()
    before = model.predict(images, verbose=0)
    kernel, bias = (w.numpy() for w in model.get_layer(name).weights)
    kernel[..., 3] *= 200
    following, rest = (w.numpy() for w in model.get_layer(reader).weights)
    following[:, :, 3, :] /= 200
    model.get_layer(name).set_weights([kernel, bias])
    model.get_layer(reader).set_weights([following, rest])
    assert np.allclose(model.predict(images, verbose=0), before, atol=1e-5)
    qat = tfqat.prepare(model, relu6=())
    tfqat.calibrate(qat, images, method="minmax")
    found = tfqat.analyze(qat, images)
    assert found.blocks[0].name == name
    ratios = {b.name: b.kernel.channels.ratio for b in found.blocks if b.kernel}
    assert max(ratios, key=ratios.get) == name


@pytest.mark.parametrize("name", ["stem", "last"])
def test_a_range_that_clips_is_found(name, float_model, images, plain):
    qat = tfqat.prepare(float_model)
    tfqat.calibrate(qat, images, method="minmax", batches=2)
    tensor = BLOCKS[name][1]
    layer = qat.get_layer(f"{tensor}>quantizer")
    layer.set_range(np.asarray(layer.extent) * 0.1)
    found = tfqat.analyze(qat, images)
    x = keras.Model(plain.inputs, plain.get_layer(tensor).output).predict(images, verbose=0)
    step = float(layer.extent[0]) / 127
    assert found.blocks[0].name == name
    assert found.blocks[0].tensors[0].clipped == pytest.approx((np.rint(x / step) > 127).mean(), rel=1e-3)
    assert all(t.clipped < 0.01 for b in found.blocks[1:] for t in b.tensors)


def test_parts_of_the_samples_add_up(found, qat, images, labels, monkeypatch):
    monkeypatch.setattr(sensitivity, "MEMORY", 1)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(7)
    parted = tfqat.analyze(qat, batches)
    for one, other in zip(found.blocks, parted.blocks, strict=True):
        assert one.name == other.name
        assert one.alone_float.output_error == pytest.approx(other.alone_float.output_error, rel=1e-3)
        assert one.alone_quantized.accuracy == other.alone_quantized.accuracy


class Clock:
    """Each look at it takes a second."""

    def __init__(self):
        self.now = 0

    def monotonic(self):
        self.now += 1
        return float(self.now)


@pytest.mark.parametrize("memory", [2**30, 1], ids=["one_part", "many_parts"])
@pytest.mark.parametrize("budget", [0.5, 4.5, 1000])
def test_the_budget_goes_to_the_lowest_sqnr_and_nothing_is_dropped(budget, memory, qat, images, monkeypatch):
    clock = SimpleNamespace(monotonic=Clock().monotonic)
    monkeypatch.setattr(sensitivity, "time", clock)
    monkeypatch.setattr(analyze_module, "time", clock)
    monkeypatch.setattr(sensitivity, "MEMORY", memory)
    found = tfqat.analyze(qat, images[:2], budget=budget)
    by_sqnr = [b.name for b in sorted(found.blocks, key=lambda b: b.sqnr_db)]
    done = [b.name for b in found.blocks if b.alone_quantized]
    assert set(done) == set(by_sqnr[: len(done)])
    assert set(found.not_measured) == set(BLOCKS) - set(done)
    assert [b.name for b in found.blocks[len(done) :]] == by_sqnr[len(done) :]
    assert (len(done) == 0) == (budget == 0.5)
    assert (len(done) == len(BLOCKS)) == (budget == 1000)
    assert all(b.tensors for b in found.blocks)


@pytest.mark.parametrize("given", ["none", "regression", "image_like"])
def test_without_labels_there_are_errors_and_no_accuracies(given, found, qat, images, labels):
    data = {
        "none": images,
        "regression": (images, labels / 2),
        "image_like": [(images, images)],
    }[given]
    bare = tfqat.analyze(qat, data)
    assert not bare.labelled
    assert all(score.accuracy is None for score in bare.forms.values())
    for one, other in zip(found.blocks, bare.blocks, strict=True):
        assert other.alone_quantized.accuracy is None
        assert one.alone_quantized.output_error == pytest.approx(other.alone_quantized.output_error, rel=1e-3)


def test_one_hot_labels_and_columns_are_labels(found, qat, images, labels):
    for given in (np.eye(5, dtype="float32")[labels], labels[:, None]):
        scores = tfqat.analyze(qat, (images, given)).forms
        assert {n: s.accuracy for n, s in scores.items()} == {n: s.accuracy for n, s in found.forms.items()}


def test_fewer_images(qat, images, labels):
    few = tfqat.analyze(qat, (images, labels), images=13)
    assert few.samples == 13
    outputs = qat.predict(images[:13], verbose=0)
    assert few.forms["quantized"].accuracy == pytest.approx((outputs.argmax(-1) == labels[:13]).mean())
    many = tfqat.analyze(qat, images[:5], images=50)
    assert (many.samples, many.asked) == (5, 50)


def test_a_model_of_a_fixed_batch_size_takes_whole_batches(images):
    image = keras.Input(batch_shape=(4, 12, 12, 3), name="image")
    x = layers.Conv2D(2, 3, activation="relu", name="conv")(image)
    x = layers.Lambda(lambda values: keras.ops.reshape(values, (4, -1)), name="flat")(x)  # takes no other
    qat = tfqat.prepare(keras.Model(image, layers.Dense(3, name="head")(x)))
    tfqat.calibrate(qat, [images[:4]])
    assert tfqat.analyze(qat, images[:11]).samples == 8
    with pytest.raises(TfqatError, match="The data have 3 samples, expected at least 4"):
        tfqat.analyze(qat, images[:3])


def test_the_model_is_left_as_it_is(qat, images):
    before = [np.array(weight) for weight in qat.get_weights()]
    outputs = np.asarray(qat(images))
    tfqat.analyze(qat, images)
    assert all(np.array_equal(a, b) for a, b in zip(before, qat.get_weights(), strict=True))
    assert np.array_equal(np.asarray(qat(images)), outputs)


def test_two_inputs_two_outputs_and_a_shared_layer():
    keras.utils.set_random_seed(0)
    left, right = keras.Input((8, 8, 2), name="left"), keras.Input((8, 8, 2), name="right")
    conv = layers.Conv2D(4, 3, activation="relu", name="conv")
    x = layers.Concatenate(name="both")([conv(left), conv(right)])
    x = layers.Conv2D(4, 3, activation="relu", name="after")(x)
    flat = layers.Flatten(name="flat")(x)
    outputs = {"a": layers.Dense(3, name="a")(flat), "b": layers.Dense(2, name="b")(flat)}
    model = tfqat.prepare(keras.Model({"left": left, "right": right}, outputs))
    rng = np.random.default_rng(0)
    batch = {name: rng.normal(size=(6, 8, 8, 2)).astype("float32") for name in ("left", "right")}
    tfqat.calibrate(model, [batch], method="minmax")
    found = tfqat.analyze(model, [(batch, {"a": np.arange(6), "b": np.arange(6)})])
    assert {b.name for b in found.blocks} == {"left", "right", "conv", "conv/1", "after"}
    assert not found.labelled
    plain = relu6_model(model_float(model))
    wanted, got = plain(batch), model(batch)
    mean = np.mean([relative(np.asarray(got[key]), np.asarray(wanted[key])) for key in ("a", "b")])
    assert found.forms["quantized"].output_error == pytest.approx(mean, rel=1e-3)


def model_float(model):
    from tfqat.graph.build import build
    from tfqat.rewrite.split import without_quantizers
    from tfqat.view.view import view

    return build(without_quantizers(view(model)))


@pytest.mark.parametrize(
    ("target", "ranges"),
    [("tensorrt", "moving_average"), ("tensorrt", "learned"), ("tflite", "moving_average"), ("sima", "moving_average")],
)
def test_every_kernel_and_quantizer_is_in_one_block(target, ranges, float_model, images):
    model = tfqat.prepare(float_model, target=target, ranges=ranges)
    tfqat.calibrate(model, images, batches=1)
    found = tfqat.analyze(model, images[:8])
    tensors = [t.name for b in found.blocks for t in b.tensors]
    assert sorted(tensors) == sorted(model.placement.activations)
    assert sorted(b.name for b in found.blocks if b.kernel) == sorted(model.placement.weights)
    reference = np.asarray(model_float(model)(images[:8]))
    error = relative(np.asarray(model(images[:8])), reference)
    assert found.forms["quantized"].output_error == pytest.approx(error, rel=1e-3)


def test_the_report_is_json_that_says_all(found, qat, images, tmp_path):
    written = tfqat.analyze(qat, images, images=8, output=tmp_path / "out")
    document = json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=pytest.fail)
    assert document == written.to_dict()
    assert [b["name"] for b in document["blocks"]] == [b.name for b in written.blocks]
    assert document["model"] == "small"
    assert document["target"] == "tensorrt"
    assert document["samples"] == 8
    assert set(document["versions"]) >= {"tfqat", "keras"}
    assert document["forms"]["weights_only"]["accuracy"] is None


def test_a_tensor_that_loses_nothing_is_no_error(images):
    """A dead channel, a dead tensor: no ratio by zero, no infinite SQNR in the JSON."""
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="dead")(image)
    model = keras.Model(image, layers.Dense(2, name="head")(layers.Flatten(name="flat")(x)))
    kernel, bias = model.get_layer("dead").get_weights()
    kernel[..., 1] = 0
    model.get_layer("dead").set_weights([kernel, bias - 1e3])
    qat = tfqat.prepare(model)
    tfqat.calibrate(qat, images)
    found = tfqat.analyze(qat, images)
    assert block(found, "dead").tensors[0].sqnr_db is None
    assert block(found, "dead").kernel.channels.dead == 1
    assert np.isfinite(block(found, "dead").kernel.channels.ratio)
    json.dumps(found.to_dict(), allow_nan=False)


WRONG = {
    "none": ({"images": 0}, "images: expected a whole number of at least 1, received 0"),
    "fraction": ({"images": 1.5}, "received 1.5"),
    "no_time": ({"budget": 0}, "budget: expected seconds above 0"),
    "not_a_number": ({"budget": float("nan")}, "budget"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_numbers(arguments, message, qat, images):
    with pytest.raises(TfqatError, match=message):
        tfqat.analyze(qat, images, **arguments)


def test_wrong_models_and_data(float_model, qat, images):
    with pytest.raises(TfqatError, match=r"not one that tfqat\.prepare returned"):
        tfqat.analyze(float_model, images)
    with pytest.raises(TfqatError, match="is finalized"):
        tfqat.analyze(tfqat.finalize(qat), images)
    with pytest.raises(TfqatError, match="Quantizers have seen no data"):
        tfqat.analyze(tfqat.prepare(float_model), images)
    with pytest.raises(TfqatError, match="no sample"):
        tfqat.analyze(qat, iter(()))
    with pytest.raises(TfqatError, match="tensor 'image' has NaN"):
        tfqat.analyze(qat, images * np.nan)


def test_a_folder_that_cannot_be_is_found_before_the_work(qat, images, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(analyze_module, "statistics_of", lambda *_: pytest.fail("worked first"))
    with pytest.raises(FileExistsError):
        tfqat.analyze(qat, images, output=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_bfloat16_number_without_an_axis_within_the_model():
    """As the sum of the weights of EfficientDet's fusion."""
    from tfqat.models.efficientdet.fusion import WeightedSum

    image = keras.Input((8, 8, 3), name="image")
    convs = [layers.Conv2D(4, 3, dtype="mixed_bfloat16", name=f"conv{number}")(image) for number in range(2)]
    fused = layers.ReLU(dtype="mixed_bfloat16")(WeightedSum(dtype="mixed_bfloat16", name="fusion")(convs))
    model = keras.Model(image, layers.Dense(3, name="head")(layers.Flatten()(fused)))
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    qat = tfqat.prepare(model)
    tfqat.calibrate(qat, images, method="minmax", batches=1)
    assert {block.name for block in tfqat.analyze(qat, images).blocks} > {"conv0", "conv1"}
