"""Kernels alone of few bits: in the placement, in training, and as INT4 in a Q/DQ ONNX that onnxruntime runs."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from onnx import TensorProto, numpy_helper

import tfqat
from tfqat.errors import TfqatError
from tfqat.spec.load import load_spec

IMAGES = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
RULE = {"match": "dense*", "quantize": "weights", "weight_bits": 4}


def net():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(image)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(16, activation="relu", name="dense1")(x)
    x = layers.Dense(12, activation="relu", name="dense2")(x)
    return keras.Model(image, layers.Dense(3, name="head")(layers.Dense(8, activation="relu", name="last")(x)))


def trained(rules=(RULE,), **options):
    qat = tfqat.prepare(net(), rules=list(rules), **options)
    tfqat.calibrate(qat, [IMAGES])
    qat.compile("sgd", "mse", jit_compile=False)
    qat.fit(IMAGES, np.ones((32, 3)), epochs=2, verbose=0)
    return qat


def test_the_layer_and_its_activation_run_in_float_between_integers():
    plan = tfqat.placement(net(), rules=[RULE])
    rows = {row.op: row for row in plan.rows}
    assert rows["dense1"].state == rows["dense1/relu"].state == rows["dense2/relu"].state == "float"
    assert rows["dense1"].reason == "rule 'dense*': its kernel alone"
    assert plan.weights["dense1"].bits == plan.weights["dense2"].bits == 4
    # Nothing is rounded between float layers; what the next integer layer reads is.
    assert set(plan.activations) == {"image", "conv/relu", "pool", "dense2/relu", "last/relu"}
    assert plan.int8_mac_share == pytest.approx(
        (8 * 8 * 27 * 8 + 12 * 8) / (8 * 8 * 27 * 8 + 8 * 16 + 16 * 12 + 12 * 8)
    )
    assert "float, kernel 4 bits" in str(plan)


@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_the_file_holds_the_trained_integers_as_int4_and_runs_alike(tmp_path, ranges):
    qat = trained(ranges=ranges)
    tfqat.export(qat, tmp_path, opset=21)
    model = onnx.load(tmp_path / "model.qdq.onnx")
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    final = tfqat.finalize(qat)
    for name in ("dense1", "dense2"):
        stored = arrays[f"{name}/kernel/quantize"]
        assert stored.data_type == TensorProto.INT4
        assert len(stored.raw_data) == (np.prod(stored.dims) + 1) // 2
        scale = numpy_helper.to_array(arrays[f"{name}/kernel/scale"])
        integers = numpy_helper.to_array(stored).astype(np.float32)
        assert np.abs(integers).max() == 7
        np.testing.assert_array_equal(integers * scale, final.get_layer(name)._kernel.numpy())
    assert not [node for node in model.graph.node if node.name == "dense1/kernel/quantize"]
    session = onnxruntime.InferenceSession(tmp_path / "model.qdq.onnx", providers=["CPUExecutionProvider"])
    (told,) = session.run(None, {"image": IMAGES})
    # All but images with a value at a tie between two integers.
    assert np.isclose(told, final.predict(IMAGES, verbose=0), atol=1e-5).all(axis=1).mean() > 0.8
    report = tfqat.verify(qat, tmp_path, [IMAGES])
    assert report.passed, report


def test_beside_a_cache_the_layers_run_in_float_with_these_kernels(tmp_path, capsys):
    tfqat.export(trained(), tmp_path, opset=21)
    assert "dense1:fp32,dense1/relu:fp32" in (tmp_path / "layer_precisions.txt").read_text()
    assert "requantized" not in capsys.readouterr().out


def test_the_file_reads_back_and_is_written_again(tmp_path):
    tfqat.export(trained(), tmp_path, opset=21)
    tfqat.convert([tmp_path / "model.qdq.onnx"], "encodings", tmp_path / "read/")
    again = [tmp_path / "read/encodings.json", tmp_path / "read/model.onnx"]
    tfqat.convert(again, "qdq_onnx", tmp_path / "again/")
    models = [onnx.load(path) for path in (tmp_path / "model.qdq.onnx", tmp_path / "again/model.qdq.onnx")]
    first, second = ({tensor.name: tensor for tensor in model.graph.initializer} for model in models)
    for name in ("dense1/kernel/quantize", "dense2/kernel/quantize"):
        assert first[name].data_type == second[name].data_type == TensorProto.INT4
        np.testing.assert_array_equal(numpy_helper.to_array(first[name]), numpy_helper.to_array(second[name]))


def test_an_older_opset_is_an_error_that_says_so(tmp_path):
    with pytest.raises(TfqatError, match="opset 21 on; received opset 17"):
        tfqat.export(trained(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("target", "rule", "message"),
    [
        ("tensorrt", {"match": "conv", "quantize": "weights", "weight_bits": 4}, r"'conv' \(conv2d\), of 4 bits"),
        ("tensorrt", {"match": "*", "quantize": "weights", "weight_bits": 4}, "reads dense with 4 bits beside float"),
        ("tensorrt", {"match": "dense1", "quantize": "weights"}, r"of 8 bits; .* Give its kernel so many"),
        ("tensorrt", {"match": "pool", "quantize": "weights"}, "covers no op with a kernel"),
        ("tensorrt_dla", RULE, "tensorrt_dla reads no kernel beside float"),
        ("tflite", RULE, "tflite reads no kernel beside float"),
        ("sima", RULE, "sima reads no kernel beside float"),
        ("tensorrt", {"match": "dense1", "quantize": "kernels"}, "expected true, false or 'weights'"),
    ],
)
def test_what_the_device_cannot_read_is_an_error(target, rule, message):
    with pytest.raises(TfqatError, match=message):
        tfqat.placement(net(), target, rules=[rule])


def test_a_spec_says_it_with_the_same_word(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(
        "results_dir: out\ndataset_config: {kind: digits}\nmodel_config: {architecture: resnet8, num_classes: 10}\n"
        "training_config: {float_epochs: 1}\n"
        'quantization_config: {rules: [{match: "logits", quantize: weights, weight_bits: 4}]}\n'
    )
    assert load_spec(path).quantization.rules[0].quantize == "weights"
