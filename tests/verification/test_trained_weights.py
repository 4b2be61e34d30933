"""Kernels with learned scales or of 4 bits: every file of every target holds the trained ones, and verify holds."""

import json
import re

import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from onnx import numpy_helper

import tfqat

IMAGES = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
LABELS = np.random.default_rng(1).integers(0, 4, 64)
FOUR = ({"match": "*", "weight_bits": 4},)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """An AIMET-style config: symmetric kernels per channel, asymmetric activations."""
    yes = "True"
    path = tmp_path_factory.mktemp("config") / "device.json"
    document = {
        "defaults": {
            "ops": {"is_output_quantized": yes},
            "params": {"is_quantized": yes, "is_symmetric": yes},
            "strict_symmetric": "False",
            "per_channel_quantization": yes,
        },
        "params": {"bias": {"is_quantized": "False"}},
        "op_type": {},
        "supergroups": [{"op_list": ["Conv", "Relu"]}, {"op_list": ["Gemm", "Relu"]}],
        "model_input": {"is_input_quantized": yes},
        "model_output": {},
    }
    path.write_text(json.dumps(document))
    return str(path)


def trained(target, ranges, rules):
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv1")(image)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn1")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="conv2")(x)
    x = layers.ReLU(name="relu2")(x)
    x = layers.Dense(12, activation="relu", name="dense")(layers.GlobalAveragePooling2D(name="pool")(x))
    qat = tfqat.prepare(keras.Model(image, layers.Dense(4, name="head")(x)), target, rules, ranges=ranges)
    tfqat.calibrate(qat, [IMAGES])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    qat.compile(keras.optimizers.Adam(5e-3), loss, jit_compile=False)
    qat.fit(IMAGES, LABELS, epochs=6, batch_size=16, verbose=0)
    return qat


def kernels_of(path):
    """Op -> values of its kernel in an ONNX file, in Q/DQ files as the nodes there leave them."""
    model = onnx.load(path)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {name.removesuffix("/kernel"): array for name, array in arrays.items() if name.endswith("/kernel")}
    for node in model.graph.node:
        op = node.input[0].removesuffix("/quantize").removesuffix("/kernel")
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[0] in arrays:
            values, scale = arrays[node.input[0]], arrays[node.input[1]]
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            spread = scale.reshape([-1 if place == axis and scale.ndim else 1 for place in range(values.ndim)])
            integers = values if node.op_type == "DequantizeLinear" else np.rint(values / spread)
            found[op] = integers.astype(np.float32) * spread
    return found


def in_onnx(name, kernel):
    """A kernel of Keras as ONNX has it."""
    orders = {"conv1": (3, 2, 0, 1), "conv2": (2, 3, 0, 1), "dense": (0, 1)}
    return kernel.transpose(orders[name])


def integers_of(path):
    """The values of all constant int8 tensors of a flatbuffer, as the interpreter tells them."""
    interpreter = Interpreter(model_path=str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    found = []
    for detail in interpreter.get_tensor_details():
        scales, axis = (
            detail["quantization_parameters"]["scales"],
            detail["quantization_parameters"]["quantized_dimension"],
        )
        if detail["dtype"] == np.int8 and len(detail["shape"]) in (2, 4) and scales.size:
            values = interpreter.get_tensor(detail["index"])
            shape = [-1 if place == axis and scales.size > 1 else 1 for place in range(values.ndim)]
            found.append(values * scales.reshape(shape))
    return found


def in_tflite(name, kernel):
    """A kernel of Keras as TFLite has it."""
    orders = {"conv1": (3, 0, 1, 2), "conv2": (3, 0, 1, 2), "dense": (1, 0)}
    return kernel.transpose(orders[name])


@pytest.mark.parametrize("rules", [(), FOUR], ids=["8 bits", "4 bits"])
@pytest.mark.parametrize("ranges", ["learned", "moving_average"])
@pytest.mark.parametrize("target", ["tensorrt", "tensorrt_dla", "tflite", "sima", "config"])
def test_each_file_holds_the_trained_kernels(tmp_path, capsys, target, ranges, rules, request):
    if target == "config":
        target = request.getfixturevalue("config")
    qat = trained(target, ranges, rules)
    files = tfqat.export(qat, tmp_path, calibration=[IMAGES])
    told = capsys.readouterr().out
    report = tfqat.verify(qat, tmp_path, [IMAGES])
    assert report.passed, report
    assert {row.name for row in report.rows}  # each file was run
    final = tfqat.finalize(qat)
    wanted = {name: np.array(final.get_layer(name)._kernel) for name in ("conv1", "conv2", "dense")}
    for role in set(files) & {"onnx", "qdq_onnx"}:
        found = kernels_of(files[role])
        for name, kernel in wanted.items():
            np.testing.assert_allclose(found[name], in_onnx(name, kernel), rtol=1e-6, atol=0)
    for name, kernel in wanted.items() if "tflite" in files else ():
        there = in_tflite(name, kernel)
        assert any(
            a.shape == there.shape and np.allclose(a, there, rtol=1e-6, atol=0) for a in integers_of(files["tflite"])
        )
    if "cache" in files and rules:
        assert len(re.findall(r"requantized: (conv1|conv2|dense) moves by up to 0\.02", told)) == 3
    elif "cache" in files:
        assert "requantized" not in told  # max|w| / 127 is the trained scale


def test_a_learned_scale_leaves_no_integer_unused():
    qat = trained("tensorrt", "learned", ())
    for name in ("conv1", "conv2", "dense"):
        layer = qat.get_layer(name)
        before = np.array(layer.kernel_extent)
        layer.kernel_extent.assign(before * 3)
        encoding = layer.kernel_encoding()
        kernel = np.array(layer._kernel)
        flat = kernel.reshape(-1, kernel.shape[-1]) if name != "conv2" else kernel.reshape(9, -1)
        integers = np.abs(np.rint(flat / encoding.scale))
        np.testing.assert_array_equal(integers.max(axis=0), 127)
        # By half a step at most: the next coarser scale would round the largest weight to 126.
        assert (encoding.scale <= np.abs(flat).max(axis=0) / 126.5).all()
