"""A target read from a config: what the config says is what is trained, and what the exported files say."""

from __future__ import annotations

import json

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers

import tfqat

BIAS = {"bias": {"is_quantized": "False"}}
GROUPS = [{"op_list": ["Conv", "Relu"]}, {"op_list": ["Conv", "Clip"]}, {"op_list": ["Add", "Relu"]}]


def config(defaults, ops=None, model_input=None):
    return {
        "defaults": {"params": {"is_quantized": "True", "is_symmetric": "True"}, **defaults},
        "params": BIAS,
        "op_type": ops or {},
        "supergroups": GROUPS,
        "model_input": {"is_input_quantized": "True"} if model_input is None else model_input,
        "model_output": {},
    }


TENSORS = {"image", "stem", "stem/relu", "conv", "join", "pool", "head", "head/sigmoid"}
EVERY = TENSORS - {"stem"}
ON = {"is_output_quantized": "True"}
READ = {"is_input_quantized": "True"}
# Name: config, tensors with encodings, of which symmetric; kernels per channel; asymmetric kernels.
CONFIGS = {
    "per_channel": (
        config({"ops": ON, "per_channel_quantization": "True"}, {"Sigmoid": {"is_symmetric": "True"}}),
        EVERY, {"head/sigmoid"}, True, False,
    ),
    "asymmetric_kernels": (
        config({"ops": ON, "params": {"is_quantized": "True"}}),
        EVERY, set(), False, True,
    ),
    "unsigned": (
        config({"ops": {**ON, "is_symmetric": "True"}, "unsigned_symmetric": "True", "strict_symmetric": "True"}),
        EVERY, EVERY, False, False,
    ),
    "only_what_is_read": (
        config({"ops": {}}, {"Conv": READ, "Gemm": READ}, {}), {"image", "stem/relu", "pool"}, set(), False, False,
    ),
}  # fmt: skip


def net():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = short = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Add(name="join")([short, x]))
    return keras.Model(inputs, layers.Dense(3, activation="sigmoid", name="head")(x))


@pytest.fixture(params=CONFIGS)
def exported(request, tmp_path):
    """A trained model, its finalized form, its files, and the row of the table."""
    document, *expected = CONFIGS[request.param]
    path = tmp_path / "device.json"
    path.write_text(json.dumps(document))
    keras.utils.set_random_seed(5)
    images = np.random.default_rng(0).uniform(-1, 2, size=(64, 8, 8, 3)).astype("float32")
    model = tfqat.prepare(net(), target=str(path), relu6=())
    path.unlink()
    tfqat.calibrate(model, images, method="minmax")
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(images, np.arange(64) % 3, verbose=0)
    model.save(tmp_path / "qat.keras")
    loaded = tfqat.load_model(tmp_path / "qat.keras")
    files = tfqat.export(loaded, tmp_path / "out", formats=["aimet", "qdq_onnx"])
    return tfqat.finalize(model), images, files, expected


def test_files_say_what_the_config_says(exported):
    final, images, files, (tensors, symmetric, per_channel, asymmetric_kernels) = exported
    told = json.loads(files["aimet"].read_text())
    # Beside these are tensors that only the ONNX has, such as transposed ones.
    activations = {entry["name"]: entry for entry in told["activation_encodings"] if entry["name"] in TENSORS}
    assert set(activations) == tensors
    assert {name for name, entry in activations.items() if entry["is_sym"]} == symmetric
    kernels = told["param_encodings"]
    assert len(kernels) == 3
    assert {entry["enc_type"] for entry in kernels} == {"PER_CHANNEL" if per_channel else "PER_TENSOR"}
    assert {entry["is_sym"] for entry in kernels} == {not asymmetric_kernels}
    assert all(entry["bw"] == 8 for entry in (*kernels, *activations.values()))

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(files["qdq_onnx"], options)
    found = session.run(None, {session.get_inputs()[0].name: images})[0]
    expected = keras.ops.convert_to_numpy(final(images))
    assert np.mean(np.abs(found - expected) < 1e-5) > 0.97
    assert np.abs(found - expected).max() < 0.03
