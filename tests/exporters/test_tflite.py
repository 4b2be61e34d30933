"""The TFLite file: what is in it, read back with LiteRT, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers, ops

import tfqat
from tfqat.core.encoding import Encodings, encoding_of_range
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.exporters.tflite_graph import flatbuffer
from tfqat.exporters.tflite_graph.build import TfliteError, build, steps_of
from tfqat.exporters.tflite_graph.flatbuffer import ALIGNMENT, unpack
from tfqat.rewrite.split import split
from tfqat.view.view import view

IMAGES = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3)).astype("float32")


def small_model() -> keras.Model:
    """Preprocessing, a shared layer, a residual Add, a Concat, a head with softmax."""
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1, name="rescale")(image)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    shared = layers.DepthwiseConv2D(3, padding="same", bias_initializer="random_normal", name="shared")
    x = layers.Add(name="join")([x, shared(shared(x))])
    x = layers.Concatenate(name="cat")([x, layers.MaxPooling2D(1, name="pool")(x)])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(image, layers.Dense(5, activation="softmax", name="head")(x), name="small")


def prepared(model: keras.Model, images: np.ndarray = IMAGES, **options):
    qat = tfqat.prepare(model, target="tflite", **options)
    tfqat.calibrate(qat, tf.data.Dataset.from_tensor_slices(images).batch(32), method="minmax", batches=1)
    return qat


@pytest.fixture(scope="module")
def qat():
    keras.utils.set_random_seed(0)
    return prepared(small_model())


@pytest.fixture(scope="module")
def exported(qat, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tflite")
    tfqat.export(qat, folder, c_array=True, output_names=["classes"])
    return folder


@pytest.fixture(scope="module")
def parts(qat):
    """The float graph and the Encodings."""
    model, learnt = split(qat)
    return view(model), learnt


@pytest.fixture(scope="module")
def data(exported):
    return (exported / "model.tflite").read_bytes()


def tensors(data: bytes) -> dict[str, dict]:
    # Before tensors are allocated: XNNPACK then repeats a Dense kernel's scale for each channel.
    return {entry["name"]: entry for entry in Interpreter(model_content=data).get_tensor_details()}


def test_every_tensor_is_an_integer(data):
    found = {name: np.dtype(entry["dtype"]).name for name, entry in tensors(data).items()}
    assert set(found.values()) == {"int8", "int32"}
    plain = {name for name, dtype in found.items() if dtype == "int32"}
    assert all(re.search(r"/(bias|axes|shape)$", name) for name in plain)


def test_scales_are_those_that_were_learned(data, parts):
    learnt, found = parts[1], tensors(data)
    for name, encoding in learnt.activations.items():
        numbers = found[name]["quantization_parameters"]
        assert (numbers["scales"], numbers["zero_points"]) == ([encoding.scale], [encoding.zero_point]), name
    for name, encoding in learnt.weights.items():
        numbers = found[f"{name}/kernel"]["quantization_parameters"]
        np.testing.assert_array_equal(numbers["scales"], np.atleast_1d(encoding.scale))
        assert not numbers["zero_points"].any()
    assert len(learnt.weights) == 4
    assert learnt.weights["head"].scale.shape == ()


def test_kernels_are_narrow_and_biases_have_the_product_of_the_scales(data, parts):
    found, interpreter = tensors(data), Interpreter(model_content=data)
    interpreter.allocate_tensors()
    for name, encoding in parts[1].weights.items():
        kernel = interpreter.get_tensor(found[f"{name}/kernel"]["index"])
        assert np.abs(kernel.astype(int)).max() == 127
        source = parts[1].activations[parts[0].op(name).inputs[0]]
        scales = found[f"{name}/bias"]["quantization_parameters"]["scales"]
        np.testing.assert_allclose(scales, np.atleast_1d(source.scale * encoding.scale), rtol=1e-6)


def test_channels_stand_where_the_specification_wants_them(data):
    found = tensors(data)
    axes = {
        name: found[f"{name}/kernel"]["quantization_parameters"]["quantized_dimension"] for name in ("stem", "shared")
    }
    assert axes == {"stem": 0, "shared": 3}
    assert list(found["stem/kernel"]["shape"]) == [8, 3, 3, 3]
    assert list(found["shared/kernel"]["shape"]) == [1, 3, 3, 8]


def test_the_signature_has_the_users_names_and_any_batch(data):
    interpreter = Interpreter(model_content=data)
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["classes"]}}
    assert list(interpreter.get_input_details()[0]["shape_signature"]) == [-1, 8, 8, 3]
    assert interpreter.get_output_details()[0]["name"] == "head/softmax"
    run = interpreter.get_signature_runner()
    assert run(image=np.zeros((1, 8, 8, 3), np.int8))["classes"].shape == (1, 5)


def test_the_same_model_gives_the_same_bytes(data, qat, tmp_path):
    tfqat.export(qat, tmp_path, output_names=["classes"])
    assert (tmp_path / "model.tflite").read_bytes() == data
    assert not (tmp_path / "model_data.c").exists()


def test_constants_are_aligned_for_readers_that_use_them_in_place(data):
    kernels = [buffer.data.tobytes() for buffer in unpack(data).buffers if buffer.data is not None]
    kernels = [kernel for kernel in kernels if len(set(kernel)) > 16]  # so that it stands nowhere else by chance
    assert len(kernels) == 3
    assert {data.find(kernel) % ALIGNMENT for kernel in kernels} == {0}


def test_calls_of_one_layer_share_their_kernel(data):
    model = unpack(data)
    buffers = {tensor.name.decode(): tensor.buffer for tensor in model.subgraphs[0].tensors}
    assert buffers["shared/kernel"] == buffers["shared/1/kernel"]
    assert buffers["shared/bias"] != buffers["shared/1/bias"]


def test_the_metadata_name_the_oldest_runtime(data):
    model = unpack(data)
    entry = next(entry for entry in model.metadata if entry.name == b"min_runtime_version")
    assert model.buffers[entry.buffer].data.tobytes().rstrip(b"\0") == b"1.14.0"
    assert (model.description, model.version) == (b"tfqat", 3)


def test_the_report_lists_what_was_not_learned(exported, capsys, qat, tmp_path):
    report = json.loads((exported / "manifest.json").read_text())["report"]["tflite"]
    assert report["float_tensors"] == {}
    assert report["fixed_scales"]["head/softmax"]["scale"] == 1 / 256
    assert set(report["fixed_scales"]) == {"head/softmax"}
    assert set(report["derived_scales"]) == {"rescale/kernel"}
    tfqat.export(qat, tmp_path)
    assert "scale fixed by the TFLite specification: head/softmax" in capsys.readouterr().out


# The C array.


def test_the_c_array_holds_the_file(exported, data):
    text = (exported / "model_data.c").read_text()
    body = text[text.index("model_data[] = {") : text.index("};")]
    assert bytes(int(word, 16) for word in re.findall(r"0x([0-9a-f]{2}),", body)) == data
    assert f"model_data_len = {len(data)}u;" in text
    assert max(map(len, text.splitlines())) < 100


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_c_array_compiles_and_is_aligned(exported, data, tmp_path, language):
    main = tmp_path / "main.c"
    main.write_text(
        '#include "model_data.h"\n#include <stdio.h>\n#include <stdint.h>\nint main(void) {\n'
        f"  if ((uintptr_t)model_data % {ALIGNMENT} != 0) return 1;\n"
        "  return fwrite(model_data, 1, model_data_len, stdout) == model_data_len ? 0 : 2;\n}\n"
    )
    flags = ["-Wall", "-Wextra", "-Werror", "-x", language, "-I", exported]
    built = subprocess.run(
        ["cc", *flags, exported / "model_data.c", main, "-o", tmp_path / "main"], capture_output=True, check=False
    )
    assert built.returncode == 0, built.stderr.decode()
    assert subprocess.run([tmp_path / "main"], capture_output=True, check=True).stdout == data


# Fusing and requantizing, with Encodings written by hand.

INT8 = Scheme(symmetric=False)


def by_hand(model: keras.Model, **ranges: tuple[float, float]):
    """The graph of a model, and Encodings of the given ranges."""
    graph = view(model)
    return graph, Encodings("tflite", {name: encoding_of_range(INT8, *pair) for name, pair in ranges.items()}, {})


def add_and_relu() -> keras.Model:
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    return keras.Model([a, b], layers.ReLU(name="act")(layers.Add(name="sum")([a, b])))


def test_a_relu_fuses_where_nothing_is_rounded_before_it():
    graph, learnt = by_hand(add_and_relu(), a=(-1, 1), b=(-2, 2), act=(0, 3))
    assert [(s.op.name, s.follower and s.follower.name) for s in steps_of(graph, learnt.activations)] == [
        ("sum", "act")
    ]
    assert build(graph, learnt).operators == {"ADD": 1}


def test_a_relu_that_follows_a_rounding_stands_alone():
    graph, learnt = by_hand(add_and_relu(), a=(-1, 1), b=(-2, 2), sum=(-3, 3), act=(0, 3))
    assert build(graph, learnt).operators == {"ADD": 1, "RELU": 1}


def test_what_is_joined_on_another_grid_is_requantized():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = keras.Model([a, b], layers.Concatenate(name="cat")([a, b, b]))
    graph, learnt = by_hand(model, a=(-1, 1), b=(-4, 4), cat=(-1, 1))
    made = build(graph, learnt)
    assert made.operators == {"CONCATENATION": 1, "DEPTHWISE_CONV_2D": 1, "RESHAPE": 2}
    assert made.requantized == ("b",)
    interpreter = Interpreter(model_content=made.data)
    run = interpreter.get_signature_runner()
    found = run(a=np.int8([[0, 1, 2, 3]]), b=np.int8([[0, 1, 2, -128]]))["cat"]
    known = learnt.activations
    moved = known["cat"].quantize(known["b"].scale * (np.float32([0, 1, 2, -128]) - known["b"].zero_point))
    np.testing.assert_array_equal(found, [np.concatenate([np.arange(4), moved, moved])])
    assert moved[3] == -128


@pytest.mark.parametrize("shape", [(256,), (8, 32), (4, 8, 8), (2, 4, 8, 4)])
@pytest.mark.parametrize("low", [-1.0, -0.37])
def test_a_requantization_is_exact_in_any_rank(shape, low):
    a, b = keras.Input(shape, name="a"), keras.Input(shape, name="b")
    model = keras.Model([a, b], layers.Maximum(name="most")([a, b]))
    graph, learnt = by_hand(model, a=(low, 1.03), b=(0, 255 / 256), most=(low, 1.03))
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, *shape)
    run = Interpreter(model_content=build(graph, learnt).data).get_signature_runner()
    found = run(a=np.full_like(every, -128), b=every)["most"]
    known = learnt.activations
    real = (every.astype(np.float64) - int(known["b"].zero_point)) * float(known["b"].scale)
    exact = np.rint(real / float(known["most"].scale)) + int(known["most"].zero_point)
    np.testing.assert_array_equal(found, np.clip(exact, -128, 127))


# Dead tensors.


@pytest.fixture(scope="module")
def dead():
    """A branch that is zero everywhere, whose readers are a convolution with a bias, and an Add."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="alive")(image)
    y = layers.Conv2D(4, 3, padding="same", activation="relu", bias_initializer=constant(-1e6), name="gone")(image)
    z = layers.Conv2D(4, 1, bias_initializer=constant(0.3), name="after")(y)
    head = layers.Dense(2, name="head")(layers.Flatten(name="flat")(layers.Add(name="join")([x, y, z])))
    return prepared(keras.Model(image, head))


def constant(value: float) -> keras.initializers.Initializer:
    return keras.initializers.Constant(value)


def test_a_model_with_a_dead_tensor_runs_and_the_tensor_is_listed(dead, tmp_path):
    tfqat.export(dead, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["report"]["dead"] == ["gone/relu"]
    assert "gone/relu" in manifest["report"]["tflite"]["derived_scales"]
    report = tfqat.verify(dead, tmp_path, (IMAGES, np.zeros(len(IMAGES), int)))
    assert {block.tensor for block in report.blocks} >= {"gone/relu", "after", "join"}
    assert all(block.passed for block in report.blocks), report
    entries = tensors((tmp_path / "model.tflite").read_bytes())
    assert entries["gone/relu"]["quantization"] == (2**-7, 0)
    _, learnt = split(dead)
    assert learnt.activations["gone/relu"].dead


def test_a_dead_tensor_is_refused_where_strict(dead, tmp_path):
    with pytest.raises(TfqatError, match="gone/relu"):
        tfqat.export(dead, tmp_path, strict=True)


# Refusals.


def one_op(make, shape=(8, 8, 4), dtype="float32") -> keras.Model:
    x = keras.Input(shape, name="image", dtype=dtype)
    return keras.Model(x, make(x))


REFUSED = {
    "no int8 operator": (lambda x: layers.Activation("softplus", name="f")(x), r"f \(softplus\): no int8 operator"),
    "layer norm": (lambda x: layers.LayerNormalization(name="f")(x), r"f \(layer_normalization\): no int8"),
    "along the batch": (lambda x: ops.mean(x, axis=0, keepdims=True), r"mean \(mean\): it works along the batch"),
    "a batch transposed": (lambda x: ops.transpose(x, (1, 0, 2, 3)), "moves the batch"),
    "softmax of another axis": (lambda x: layers.Softmax(axis=1, name="f")(x), "its axis is 1"),
    "elu's alpha": (lambda x: layers.ELU(2.0, name="f")(x), "alpha is not 1"),
    "one over": (lambda x: 1.0 / x, "divides a constant"),
    "a constant an element": (lambda x: x + np.ones((8, 8, 4), "float32"), "one for each of the 4 channels"),
    "a slice of the batch": (lambda x: x[1:, :], "out of the batch"),
    "cubic": (lambda x: layers.UpSampling2D(2, interpolation="bicubic", name="f")(x), "'bicubic'"),
    "average of three": (lambda x: layers.Average(name="f")([x, x, x]), "reads 3 tensors"),
    "padding mode": (lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="edge"), "'edge'"),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_an_op_that_cannot_be_written_is_named(fresh_names, make, says):
    model = one_op(make)
    graph = view(model)
    fixed = {"softmax": (0, 255 / 256)}
    ranges = {op.name: fixed.get(op.kind, (-1, 1)) for op in graph.ops}
    with pytest.raises(TfliteError, match=says):
        build(*by_hand(model, image=(-1, 1), **ranges))


INPUTS = {
    "integers": (lambda x: ops.cast(x, "float32"), {"dtype": "uint8"}, r"image \(model input\): its values are uint8"),
    "any size": (lambda x: layers.ReLU(name="f")(x), {"shape": (None, None, 3)}, "fixed size"),
}


@pytest.mark.parametrize(("make", "given", "says"), INPUTS.values(), ids=INPUTS)
def test_an_input_that_cannot_be_written_is_named(make, given, says):
    with pytest.raises(TfliteError, match=says):
        build(*by_hand(one_op(make, **given), image=(-1, 1), f=(0, 1)))


def scheme_of(scheme: Scheme):
    return {"image": encoding_of_range(scheme, -1, 1), "f": encoding_of_range(INT8, 0, 1)}


ENCODED = {
    "no scale": ({"image": encoding_of_range(INT8, -1, 1)}, r"f \(relu\): stays float: its output has no scale"),
    "uint8": (scheme_of(Scheme(signed=False, symmetric=False)), "int8 with one scale"),
    "16 bits": (scheme_of(Scheme(bits=16)), "int8 with one scale"),
}


@pytest.mark.parametrize(("activations", "says"), ENCODED.values(), ids=ENCODED)
def test_scales_that_do_not_do_are_named(activations, says):
    model = one_op(lambda x: layers.ReLU(name="f")(x))
    with pytest.raises(TfliteError, match=says):
        build(view(model), Encodings("tflite", activations, {}))


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_written(tmp_path):
    x = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(4, 3, name="conv")(x)
    y = layers.Activation("mish", name="first")(y)
    y = layers.Activation("softplus", name="second")(layers.Conv2D(4, 1, name="left")(y))
    model = keras.Model(x, layers.Dense(3, name="head")(layers.Flatten(name="flat")(y)))
    qat = prepared(model, rules=[{"match": "left", "quantize": False}])
    (tmp_path / "model.tflite").write_bytes(b"of an earlier export")
    with pytest.raises(TfqatError) as raised:
        tfqat.export(qat, tmp_path)
    lines = str(raised.value).splitlines()
    assert {line.split()[0] for line in lines[1:]} >= {"first", "left", "second"}
    assert "rule 'left'" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]
    assert (tmp_path / "model.tflite").read_bytes() == b"of an earlier export"


FLOAT_FIRST = {
    "a rule": (lambda x: layers.Conv2D(4, 3, name="f")(x), "rule 'f'"),
    "no form": (
        lambda x: layers.Conv3D(4, 3, name="f")(layers.Reshape((4, 4, 4, 3), name="flat")(x)),
        "no int8 operator",
    ),
}


@pytest.mark.parametrize(("make", "says"), FLOAT_FIRST.values(), ids=FLOAT_FIRST)
def test_a_first_op_that_stays_float_is_named_with_its_reason(tmp_path, make, says):
    x = keras.Input((8, 8, 3), name="image")
    model = keras.Model(x, layers.Dense(2, name="head")(layers.Flatten(name="flatten")(make(x))))
    qat = prepared(model, rules=[{"match": "f", "quantize": False}] if "rule" in says else [])
    with pytest.raises(TfqatError, match=says) as raised:
        tfqat.export(qat, tmp_path)
    assert "model input" not in str(raised.value)


def test_a_model_beyond_the_formats_end_is_refused(parts, monkeypatch):
    monkeypatch.setattr(flatbuffer, "LARGEST", flatbuffer.RESERVED + 300)
    with pytest.raises(TfliteError, match="too large"):
        build(*parts)


@pytest.mark.parametrize("names", [["a", "b"], []])
def test_names_must_be_as_many_as_outputs(parts, names):
    with pytest.raises(TfliteError, match="output_names"):
        build(*parts, output_names=names)


def test_a_bias_beyond_int32_is_refused(parts):
    graph, learnt = parts
    tiny = {
        name: replace(e, scale=e.scale * np.float32(1e-12)) for name, e in learnt.weights.items() if name == "shared"
    }
    with pytest.raises(TfliteError, match=r"shared \(depthwise_conv2d\): a bias is"):
        build(graph, replace(learnt, weights={**learnt.weights, **tiny}))
