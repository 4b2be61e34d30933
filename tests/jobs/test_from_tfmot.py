"""TFMOT models as tfqat has them: the same outputs, all that a prepared model can do, ranges on other targets."""

from __future__ import annotations

import re

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import tfqat
from tfqat.adoption.ranges import settled
from tfqat.core.scheme import Scheme, scale_and_zero_point
from tfqat.errors import TfqatError
from tfqat.exporters import cache
from tfqat.jobs.from_tfmot import Wish, _nudged, import_tfmot
from tfqat.models.tfmot.model import KernelRange
from tfqat.models.tfmot.read import read_tfmot
from tfqat.rewrite.model import batch_norm_layers, kernel_layers, range_layers
from tfqat.rewrite.quantizer import Quantizer

MODELS = ["chain", "sequential", "branches", "activations", "unbatched", "prefix", "shared", "partial", "four_bits"]


def data_of(folder, name):
    """Inputs, as the model takes them, and TFMOT's own outputs."""
    arrays = np.load(folder / f"{name}.npz")
    inputs = [arrays[key] for key in arrays.files if key.startswith("x")]
    return inputs if len(inputs) > 1 else inputs[0], [arrays[key] for key in arrays.files if key.startswith("y")]


def outputs_of(model, inputs):
    outputs = model.predict(inputs, verbose=0)
    return outputs if isinstance(outputs, list) else [outputs]


@pytest.fixture(scope="module")
def own(tfmot_models):
    """Name -> the model with TFMOT's own placement, made once."""
    made = {}
    return lambda name: made.setdefault(name, tfqat.from_tfmot(tfmot_models / f"{name}.h5"))


@pytest.fixture(scope="module")
def tensorrt(tfmot_models):
    return tfqat.from_tfmot(tfmot_models / "branches.h5", "tensorrt")


@pytest.mark.parametrize("name", [*MODELS, "untrained"])
def test_the_outputs_are_tfmots_own_bit_for_bit(tfmot_models, own, name):
    inputs, expected = data_of(tfmot_models, name)
    for found, wanted in zip(outputs_of(own(name), inputs), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_live_model_is_read_in_tfmots_own_process(tfmot_models):
    _, (expected,) = data_of(tfmot_models, "untrained")
    np.testing.assert_array_equal(np.load(tfmot_models / "live.npz")["y"], expected)


def test_quantizers_stand_where_tfmot_has_them(tfmot_models, own):
    model = own("branches")
    found = {layer.name.replace(">quantizer", "") for layer in range_layers(model) if isinstance(layer, Quantizer)}
    # A ReLU behind an Add takes its Quantizer; a Concat takes those of the layers before it, but for a fused one.
    blocks = {"stem_relu", "branch_bn", "add_relu", "project", "plain_add", "join", "three>relu", "mix>relu"}
    assert found == {"image", "other", "mean", "first", "second"} | blocks


@pytest.mark.parametrize("name", ["chain", "branches"])
def test_saves_and_loads_bit_for_bit(tfmot_models, own, tmp_path, name):
    inputs, _ = data_of(tfmot_models, name)
    for model in (own(name), tfqat.finalize(own(name))):
        model.save(tmp_path / "model.keras")
        loaded = tfqat.load_model(tmp_path / "model.keras")
        for found, wanted in zip(outputs_of(loaded, inputs), outputs_of(model, inputs), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_fine_tuning_moves_weights_and_ranges_and_keeps_kernel_scales(tfmot_models):
    model = tfqat.from_tfmot(tfmot_models / "sequential.h5")
    images, (expected,) = data_of(tfmot_models, "sequential")
    before = {layer.name: np.array(layer.kernel_scale) for layer in kernel_layers(model)}
    kernels = {layer.name: np.array(layer.kernel) for layer in kernel_layers(model)}
    extents = {layer.name: np.array(layer.extent) for layer in range_layers(model)}
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, expected.argmax(axis=-1), epochs=2, verbose=0)
    assert all((np.array(layer.kernel_scale) == before[layer.name]).all() for layer in kernel_layers(model))
    assert all((np.array(layer.kernel) != kernels[layer.name]).any() for layer in kernel_layers(model))
    assert all((np.array(layer.extent) != extents[layer.name]).any() for layer in range_layers(model))
    tfqat.freeze(model)
    extents = {layer.name: np.array(layer.extent) for layer in range_layers(model)}
    model.fit(images, expected.argmax(axis=-1), epochs=1, verbose=0)
    assert all((np.array(layer.extent) == extents[layer.name]).all() for layer in range_layers(model))


def test_a_finalized_model_is_the_same_up_to_rounding(tfmot_models, own):
    images, (expected,) = data_of(tfmot_models, "sequential")
    final = tfqat.finalize(own("sequential"))
    assert not batch_norm_layers(final)
    assert not any(layer.half_up for layer in range_layers(final) if isinstance(layer, Quantizer))
    step = max(float(layer.encoding().scale) for layer in range_layers(final) if layer.name.startswith("logits"))
    assert np.abs(final.predict(images, verbose=0) - expected).max() < 3 * step


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([2, 4, 8]), st.booleans())
def test_settled_kernels_round_as_tensorflow_rounds(seed, per_channel, bits, ties):
    random, qmax = np.random.default_rng(seed), 2 ** (bits - 1) - 1
    high = random.uniform(1e-3, 3.0, (4,) if per_channel else ()).astype(np.float32)
    scale = np.asarray(high / np.float32(qmax), np.float32)
    kernel = random.normal(0, 1.2, (3, 3, 5, 4)) * qmax * scale
    kernel = ((np.floor(kernel / scale) + 0.5) * scale if ties else kernel).astype(np.float32)
    quantization = tf.quantization
    theirs = (
        quantization.fake_quant_with_min_max_vars_per_channel(kernel, -high, high, bits, narrow_range=True)
        if per_channel
        else quantization.fake_quant_with_min_max_vars(kernel, -high, high, bits, narrow_range=True)
    )
    ours = np.clip(np.rint(settled(kernel, KernelRange(high, bits)) / scale), -qmax, qmax) * scale
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5 * scale.max(), rtol=1e-6)


def test_a_kernel_of_zeros_alone_stays_one():
    kernel = settled(np.ones((1, 1, 2, 2), np.float32), KernelRange(np.asarray([0.0, 1.0], np.float32)))
    assert np.abs(kernel[..., 0]).max() < 1e-18
    assert (kernel[..., 1] == 1).all()


def test_the_placement_is_that_of_prepare(tfmot_models, tensorrt):
    prepared = tfqat.placement(read_tfmot(tfmot_models / "branches.h5").model, "tensorrt", relu6=())
    assert tensorrt.placement.activations == prepared.activations
    assert tensorrt.placement.groups == prepared.groups
    assert "branch_bn" not in tensorrt.placement.activations  # the Add takes this convolution in
    assert "first" not in tensorrt.placement.activations  # outputs stay float


def test_symmetric_ranges_reach_as_far_as_tfmots(tfmot_models, tensorrt):
    ranges = read_tfmot(tfmot_models / "branches.h5").activations
    extents = {layer.name.replace(">quantizer", "").replace(">", "/"): layer.extent for layer in range_layers(tensorrt)}
    for name in ("image", "other", "plain_add"):
        assert float(extents[name][0]) == np.float32(max(-ranges[name].low, ranges[name].high))
    # Nothing is below 0 behind a ReLU, whatever low bound TFMOT kept.
    assert float(extents["stem_relu"][0]) == np.float32(ranges["stem_relu"].high)


def test_what_a_concat_reads_has_the_range_of_what_it_gives(tfmot_models, tensorrt):
    ranges = read_tfmot(tfmot_models / "branches.h5").activations
    layers = {layer.name: layer for layer in range_layers(tensorrt)}
    for name in ("one_relu", "two_relu"):
        assert float(layers[f"{name}>quantizer"].extent[0]) == np.float32(ranges["join"].high)
    joint = {float(layers[f"{name}>quantizer"].encoding().scale) for name in ("one_relu", "two_relu", "three>relu")}
    assert len(joint) == 1


def test_kernels_keep_tfmots_scale(tfmot_models):
    model, found = tfqat.from_tfmot(tfmot_models / "chain.h5", "tensorrt"), read_tfmot(tfmot_models / "chain.h5")
    encodings = {layer.name: layer.kernel_encoding() for layer in kernel_layers(model)}
    # One for each of the multiplier's two, over the four channels; one for the whole kernel, over all.
    np.testing.assert_array_equal(encodings["wide"].scale, np.tile(found.kernels["wide"].extent / np.float32(127), 4))
    np.testing.assert_array_equal(encodings["hidden"].scale, [found.kernels["hidden"].extent / np.float32(127)] * 6)
    assert {encoding.origin for encoding in encodings.values()} == {"imported"}


def test_a_kernel_that_tfmot_left_float_is_quantized_anew(tfmot_models, own):
    assert own("unbatched").placement.float_ops == {"conv": "TFMOT left its kernel in float"}
    found = import_tfmot(read_tfmot(tfmot_models / "unbatched.h5"), Wish("tensorrt"))
    assert found.report.requantized == (("conv", "TFMOT left its kernel in float"),)
    conv = next(layer for layer in kernel_layers(found.model) if layer.name == "conv")
    assert conv.kernel_encoding().origin == "learned"


def test_a_kernel_with_one_scale_is_computed_anew_where_a_batch_norm_is_folded_into_it(tfmot_models):
    report = import_tfmot(read_tfmot(tfmot_models / "sequential.h5"), Wish("tflite")).report
    assert report.requantized == (("hidden", "as hidden_bn is folded into it first"),)


def test_tensors_without_a_range_are_listed(tfmot_models):
    with pytest.raises(TfqatError, match=r"2 tensors .* none in TFMOT.*rescale, elu.*dataset"):
        tfqat.from_tfmot(tfmot_models / "partial.h5", "tensorrt")


def test_a_dataset_calibrates_what_has_no_range_and_nothing_else(tfmot_models):
    images, _ = data_of(tfmot_models, "partial")
    found = import_tfmot(read_tfmot(tfmot_models / "partial.h5"), Wish("tensorrt", method="minmax"), images)
    extents = {layer.name: float(layer.extent[0]) for layer in range_layers(found.model)}
    ranges = read_tfmot(tfmot_models / "partial.h5").activations
    assert found.report.calibrated == ("rescale", "elu")
    assert extents["rescale>quantizer"] == pytest.approx(np.abs(images).max() / 4, rel=1e-6)
    assert extents["conv1>relu>quantizer"] == np.float32(ranges["conv1/relu"].high)
    # Its kernels were calibrated with TFMOT's scales: what ELU gives is as in the float model, up to rounding.
    tfmot = read_tfmot(tfmot_models / "partial.h5").model
    elu = keras.Model(tfmot.input, tfmot.get_layer("elu").output).predict(images, verbose=0)
    assert extents["elu>quantizer"] == pytest.approx(np.abs(elu).max(), rel=0.1)


def test_a_calibrated_model_is_as_accurate_as_tfmots(tfmot_models, capsys):
    images, (expected,) = data_of(tfmot_models, "partial")
    tfqat.from_tfmot(tfmot_models / "partial.h5", "tflite", (images, expected.argmax(axis=-1)))
    printed = capsys.readouterr().out
    after = float(re.search(r"accuracy: TFMOT 100.00%, tflite ([\d.]+)%", printed)[1])
    assert after >= 99


def test_a_range_of_zeros_alone_is_none(tfmot_models):
    """TFMOT's input quantizer starts so, and a layer that gave nothing but zeros ends so."""
    tfmot = read_tfmot(tfmot_models / "untrained.h5")
    assert (tfmot.activations["image"].low, tfmot.activations["image"].high) == (0, 0)
    images, _ = data_of(tfmot_models, "untrained")
    with pytest.raises(TfqatError, match=r"1 tensors .* none in TFMOT.*: image\."):
        import_tfmot(tfmot, Wish("tensorrt"))
    for target in ("tensorrt", None):
        found = import_tfmot(tfmot, Wish(target, method="minmax"), images)
        assert "image" in found.report.calibrated
        (image,) = [layer for layer in range_layers(found.model) if layer.name == "image>quantizer"]
        assert float(np.max(image.extent)) == pytest.approx(np.abs(images).max(), rel=1e-6)
    assert import_tfmot(tfmot, Wish()).report.zeros == ("image",)


def test_the_report_says_what_became_of_each_range(tfmot_models, capsys):
    images, (expected,) = data_of(tfmot_models, "unbatched")
    model = tfqat.from_tfmot(tfmot_models / "unbatched.h5", "tensorrt", (images, expected.argmax(axis=-1)))
    printed = capsys.readouterr().out
    found = read_tfmot(tfmot_models / "unbatched.h5").activations["image"]
    wider = max(-found.low, found.high) / 127 / ((found.high - found.low) / 255)
    assert f"image: asymmetric [{found.low:.4g}, {found.high:.4g}] -> symmetric" in printed
    assert f"steps {wider:.2f} times as wide" in printed
    assert "range dropped: logits (output layer: outputs stay float)" in printed
    assert "accuracy: TFMOT 100.00%, tensorrt " in printed
    assert any("image: asymmetric" in line for line in model.placement.changes)


def test_a_dataset_that_can_be_read_once_is_enough(tfmot_models, capsys):
    images, (expected,) = data_of(tfmot_models, "unbatched")
    batches = ((images[at : at + 8], expected[at : at + 8].argmax(axis=-1)) for at in range(0, 32, 8))
    tfqat.from_tfmot(tfmot_models / "unbatched.h5", "tensorrt", batches)
    assert "accuracy: TFMOT 100.00%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "formats"),
    [
        ("tensorrt", ["tensorrt", "aimet"]),
        ("tensorrt", ["tensorrt_dla"]),
        ("tflite", ["tflite", "qdq_onnx", "aimet"]),
        ("sima", ["qdq_onnx"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_every_exporter_takes_it(tfmot_models, tmp_path, target, formats):
    inputs, _ = data_of(tfmot_models, "branches")
    model = tfqat.from_tfmot(tfmot_models / "branches.h5", target)
    files = tfqat.export(model, tmp_path, formats=formats, calibration=[(inputs,)])
    assert all(path.exists() for path in files.values())
    report = tfqat.verify(model, tmp_path)
    assert report.passed, report.problems


def test_a_cache_holds_the_imported_scales(tfmot_models, tensorrt, tmp_path):
    files = tfqat.export(tensorrt, tmp_path)
    scales = cache.read(files["cache"]).scales
    ranges = read_tfmot(tfmot_models / "branches.h5").activations
    high = max(-ranges["image"].low, ranges["image"].high)
    assert scales["image"] == pytest.approx(high / 127, rel=1e-6)
    onnx.checker.check_model(str(files["qdq_onnx"]), full_check=True)


def test_tfmots_own_placement_exports_as_tflite(tfmot_models, own, tmp_path):
    model = own("sequential")
    tfqat.export(model, tmp_path)
    images, _ = data_of(tfmot_models, "sequential")
    assert tfqat.verify(model, tmp_path, images).passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "tensorflow"}, "Unknown target"),
        ({"rules": [{"match": "conv", "quantize": False}]}, "rules: without a target"),
        ({"relu6": ["relu"]}, "relu6: without a target"),
        ({"target": "tensorrt", "rules": [{"match": "nothing", "quantize": False}]}, "matches no op"),
        ({"decay": 2}, "decay"),
        ({"method": "guess"}, "method"),
    ],
)
def test_options_that_cannot_be_are_refused(tfmot_models, options, message):
    with pytest.raises(TfqatError, match=message):
        tfqat.from_tfmot(tfmot_models / "unbatched.h5", **options)


def test_labels_that_are_no_classes_are_refused(tfmot_models):
    images, _ = data_of(tfmot_models, "unbatched")
    with pytest.raises(TfqatError, match=r"labels have shape \(32, 4, 4\)"):
        tfqat.from_tfmot(tfmot_models / "unbatched.h5", "tensorrt", [(images, np.zeros((32, 4, 4)))])


IMAGES = np.zeros((4, 8, 8, 2), np.float32)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (7, "expected batches .*received int"),
        ("images.npz", "expected batches .*received str"),
        ([], "saw no data in 0 batches: rescale, elu"),
        (IMAGES[:0], "saw no data in 0 batches"),
        (IMAGES[0], r"shape \(8, 8, 2\).*'image'; expected .*\(None, 8, 8, 2\)"),
        (IMAGES[..., :1], r"shape \(4, 8, 8, 1\)"),
        ([(IMAGES.astype(str), np.zeros(4))], "dtype <U"),
        ([([IMAGES, IMAGES], np.zeros(4))], "has 1 inputs, .*a batch has 2"),
        ((IMAGES, np.asarray([0, 1, 2, 3])), "labels are 0 to 3; expected integers from 0 to 2"),
        ((IMAGES, np.asarray([0, 1, -1, 2])), "labels are -1 to 2"),
        ((IMAGES, np.asarray(list("abca"))), "labels are dtype <U1"),
    ],
)
def test_a_dataset_that_the_model_cannot_take_is_refused(tfmot_models, dataset, message):
    with pytest.raises(TfqatError, match=message):
        tfqat.from_tfmot(tfmot_models / "partial.h5", "tensorrt", dataset)


def test_a_format_that_the_target_does_not_write_names_the_way_out(own, tmp_path):
    with pytest.raises(TfqatError, match=r"'tensorrt_dla'.*prepare or import the model for a target that writes it"):
        tfqat.export(own("sequential"), tmp_path, formats=["tensorrt_dla"])


def test_rules_and_relu6_are_obeyed(tfmot_models):
    rules = [{"match": "conv", "quantize": False}]
    images, _ = data_of(tfmot_models, "unbatched")
    model = tfqat.from_tfmot(tfmot_models / "unbatched.h5", "tensorrt", images, rules=rules, relu6=["relu"])
    assert "conv" not in model.placement.weights
    assert "conv2/relu: relu -> relu6" in model.placement.changes


def test_learned_ranges_start_from_tfmots(tfmot_models):
    model = tfqat.from_tfmot(tfmot_models / "unbatched.h5", "tensorrt", ranges="learned")
    ranges = read_tfmot(tfmot_models / "unbatched.h5").activations
    (image,) = [layer for layer in range_layers(model) if layer.name == "image>quantizer"]
    assert image.extent.trainable
    assert float(image.extent[0]) == np.float32(max(-ranges["image"].low, ranges["image"].high))


def test_both_ends_of_tfmots_ranges_are_learned_on(tfmot_models, tmp_path):
    model = tfqat.from_tfmot(tfmot_models / "sequential.h5", ranges="learned")
    images, labels = data_of(tfmot_models, "sequential")
    before = {layer.name: np.array(layer.extent) for layer in range_layers(model) if layer.ranges == "learned"}
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(images, labels, epochs=2, verbose=0)
    after = {layer.name: np.array(layer.extent) for layer in range_layers(model) if layer.ranges == "learned"}
    moved = np.array([before[name] != after[name] for name in before])
    assert moved.any(axis=0).all()
    tfqat.export(model, tmp_path)
    assert tfqat.verify(model, tmp_path, images).passed


def test_zero_points_are_tfmots_also_at_halves():
    """TensorFlow rounds 0.5 up, tfqat to even: -low / scale is 0.5, 1.5, 2.5, ... here."""
    for half in range(20):
        low, high = -(half + 0.5) / 8, 255 / 8 - (half + 0.5) / 8
        scheme = Scheme(symmetric=False)
        _, zero_point = scale_and_zero_point(scheme, *_nudged(scheme, low, high))
        assert int(zero_point) == half + 1 - 128
