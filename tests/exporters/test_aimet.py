"""AIMET encodings: what other readers compute from them, and what comes back."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tfqat.core.encoding import Encoding, Encodings, encoding_of_range
from tfqat.core.scheme import Scheme
from tfqat.exporters import aimet
from tfqat.exporters.aimet import VERSIONS, AimetError

INT8, UINT8 = Scheme(), Scheme(signed=False, symmetric=False)

# Node -> type, kernel shape in ONNX, attributes, axis of the output channels there, and in Keras.
LAYERS = {
    "conv": ("Conv", (4, 3, 1, 1), {}, 0, (-1,)),
    "depthwise": ("Conv", (4, 1, 1, 1), {"group": 4}, 0, (-2, -1)),
    "up": ("ConvTranspose", (4, 3, 1, 1), {}, 1, (-2,)),
    "one": ("Conv", (1, 3, 1, 1), {}, 0, (-1,)),
    "dense": ("Gemm", (5, 2), {}, 1, (-1,)),
    "turned": ("Gemm", (3, 2), {"transB": 1}, 0, (-1,)),
    "product": ("MatMul", (3, 4), {}, 1, (-1,)),
}
TENSORS = ["x", *LAYERS]


def model_of(kernels: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Layers behind each other, as far as names go; nothing here computes them."""
    nodes, before = [], "x"
    for name, (kind, _, attributes, *_) in LAYERS.items():
        nodes.append(helper.make_node(kind, [before, f"{name}/kernel"], [name], name, **attributes))
        before = name
    tensors = [numpy_helper.from_array(kernel, f"{name}/kernel") for name, kernel in kernels.items()]
    tensors.append(numpy_helper.from_array(np.zeros(4, np.float32), "conv/bias"))
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    last = helper.make_tensor_value_info(before, TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "g", [info], [last], tensors))


positive = st.floats(2.0**-100, 2.0**100, width=32)


@st.composite
def activations(draw):
    bits, signed, symmetric = draw(st.sampled_from([4, 8, 16])), draw(st.booleans()), draw(st.booleans())
    scheme = Scheme(bits, signed, symmetric)
    zero_point = 0 if symmetric else draw(st.integers(scheme.qmin, scheme.qmax))
    return Encoding(scheme, np.float32(draw(positive)), np.int32(zero_point), "imported")


@st.composite
def weights(draw, name):
    _, shape, _, onnx_axis, keras_axis = LAYERS[name]
    per_channel, symmetric, narrow = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    scheme = Scheme(draw(st.sampled_from([4, 8])), draw(st.booleans()), symmetric, narrow, keras_axis * per_channel)
    size = (shape[onnx_axis],) if per_channel else ()
    scale = np.asarray(draw(st.lists(positive, min_size=shape[onnx_axis], max_size=shape[onnx_axis])), np.float32)
    point = 0 if symmetric else draw(st.integers(scheme.qmin, scheme.qmax))
    return Encoding(scheme, scale if per_channel else scale[0], np.full(size, point, np.int32), "imported")


@st.composite
def everything(draw):
    told = Encodings(
        "imported",
        {name: draw(activations()) for name in TENSORS if draw(st.booleans())},
        {name: draw(weights(name)) for name in LAYERS if draw(st.booleans())},
    )
    return told, model_of({name: kernel_of(name, told.weights.get(name)) for name in LAYERS})


def kernel_of(name: str, encoding: Encoding | None) -> np.ndarray:
    """A kernel on its grid, whose integers reach the lowest that is in use."""
    _, shape, _, axis, _ = LAYERS[name]
    if encoding is None:
        return np.ones(shape, np.float32)
    integers = np.resize(np.array([encoding.scheme.qmax, encoding.scheme.qmin]), shape)
    integers.flat[-1] = encoding.scheme.qmin
    spread = [-1 if i == axis and encoding.scheme.per_channel else 1 for i in range(len(shape))]
    scale, zero_point = encoding.scale.reshape(spread), encoding.zero_point.reshape(spread)
    return ((integers - zero_point) * scale).astype(np.float32)


@pytest.mark.parametrize("version", VERSIONS)
@given(everything())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(version, case):
    told, model = case
    read = aimet.parse(json.loads(aimet.render(told, model, version)), model)
    found = read.encodings
    assert read.notes == ()
    assert (list(found.activations), list(found.weights)) == (list(told.activations), list(told.weights))
    for given_rows, found_rows in ((told.activations, found.activations), (told.weights, found.weights)):
        for name, encoding in given_rows.items():
            assert held(name, found_rows[name], version) == held(name, encoding, version)


def held(name: str, encoding: Encoding, version: str) -> tuple:
    """What the format holds: whether a grid is called symmetric in 0.6.1 and 1.0.0 only; whether the scale of a
    kernel with one output channel is that of the channel or of the tensor in 1.0.0 and 2.0.0 only.
    """
    scheme = encoding.scheme
    symmetric = () if version == "2.0.0" else (scheme.symmetric,)
    axis = () if (name, version) == ("one", "0.6.1") else scheme.axis
    numbers = encoding.scale.tobytes(), encoding.zero_point.ravel().tolist()
    return (*numbers, scheme.bits, scheme.signed, axis, scheme.narrow, *symmetric)


# What another program computes from the file: the formulas of the specification, in numpy.


def dequantize_0_6_1(row: dict, real: np.ndarray) -> np.ndarray:
    q = np.clip(np.rint(real / row["scale"]) - row["offset"], 0, 2 ** row["bitwidth"] - 1)
    return row["scale"] * (q + row["offset"])


def dequantize_2_0_0(row: dict, real: np.ndarray) -> np.ndarray:
    unsigned, bits = row["output_dtype"].split("int")
    low, high = (0, 2 ** int(bits) - 1) if unsigned else (-(2 ** (int(bits) - 1)), 2 ** (int(bits) - 1) - 1)
    q = np.clip(np.rint(real / row["y_scale"]) + row.get("y_zero_point", 0), low, high)
    return row["y_scale"] * (q - row.get("y_zero_point", 0))


@pytest.mark.parametrize(
    "encoding",
    [
        encoding_of_range(INT8, -3, 2),
        encoding_of_range(UINT8, -0.7, 2),
        encoding_of_range(Scheme(symmetric=False), -0.3, 2),
        encoding_of_range(Scheme(signed=False), 0, 2),
        encoding_of_range(Scheme(bits=4), -3, 2),
    ],
    ids=["int8", "uint8", "asymmetric int8", "unsigned symmetric", "int4"],
)
def test_the_formulas_of_the_specification_give_the_same_numbers(encoding):
    told, real = Encodings("t", {"x": encoding}, {}), np.linspace(-4, 4, 999, dtype=np.float32)
    (old,) = json.loads(aimet.render(told, None, "0.6.1"))["activation_encodings"]["x"]
    (one,) = json.loads(aimet.render(told, None, "1.0.0"))["activation_encodings"]
    (two,) = json.loads(aimet.render(told, None, "2.0.0"))["encodings"]
    expected = encoding.fake_quantize(real)
    np.testing.assert_allclose(dequantize_0_6_1(old, real), expected, rtol=1e-6)
    np.testing.assert_allclose(dequantize_2_0_0(two, real), expected, rtol=1e-6)
    assert ([old["scale"]], [old["offset"]], old["bitwidth"]) == (one["scale"], one["offset"], one["bw"])
    assert old["offset"] <= 0
    assert old["min"] == old["scale"] * old["offset"]
    assert old["max"] == old["scale"] * (2 ** old["bitwidth"] - 1 + old["offset"])


def simple() -> tuple[Encodings, onnx.ModelProto]:
    kernel = Encoding(Scheme(narrow=True, axis=(-1,)), np.float32([0.5, 0.25, 2, 1]), np.zeros(4, np.int32))
    told = Encodings("t", {"x": Encoding(INT8, np.float32(0.5), np.int32(0))}, {"conv": kernel}, {"dense": "a rule"})
    return told, model_of({name: kernel_of(name, told.weights.get(name)) for name in LAYERS})


def test_version_0_6_1_to_the_letter():
    grid = {"bitwidth": 8, "dtype": "int", "is_symmetric": "True"}
    rows = [
        {**grid, "max": 127 * scale, "min": -128 * scale, "offset": -128, "scale": scale} for scale in (0.5, 0.25, 2, 1)
    ]
    assert json.loads(aimet.render(*simple(), "0.6.1")) == {
        "version": "0.6.1",
        "activation_encodings": {"x": rows[:1]},
        "param_encodings": {"conv/kernel": rows},
        "quantizer_args": {
            "activation_bitwidth": 8,
            "dtype": "int",
            "is_symmetric": "True",
            "param_bitwidth": 8,
            "per_channel_quantization": "True",
            "quant_scheme": "post_training_tf",
        },
    }


def test_version_1_0_0_to_the_letter():
    grid = {"dtype": "INT", "bw": 8, "is_sym": True}
    assert json.loads(aimet.render(*simple())) == {
        "version": "1.0.0",
        "activation_encodings": [{"name": "x", "enc_type": "PER_TENSOR", **grid, "scale": [0.5], "offset": [-128]}],
        "param_encodings": [
            {
                "name": "conv/kernel",
                "enc_type": "PER_CHANNEL",
                **grid,
                "scale": [0.5, 0.25, 2.0, 1.0],
                "offset": [-128] * 4,
            }
        ],
        "quantizer_args": {
            "activation_bitwidth": 8,
            "dtype": "int",
            "is_symmetric": True,
            "param_bitwidth": 8,
            "per_channel_quantization": True,
            "quant_scheme": "post_training_tf",
        },
        "excluded_layers": ["dense"],
    }


def test_version_2_0_0_to_the_letter():
    told, model = simple()
    told = Encodings("t", {**told.activations, "conv": Encoding(UINT8, np.float32(2), np.int32(128))}, told.weights)
    assert json.loads(aimet.render(told, model, "2.0.0")) == {
        "version": "2.0.0",
        "encodings": [
            {"name": "x", "output_dtype": "int8", "y_scale": 0.5},
            {"name": "conv", "output_dtype": "uint8", "y_scale": 2.0, "y_zero_point": 128},
            {"name": "conv/kernel", "output_dtype": "int8", "y_scale": [0.5, 0.25, 2.0, 1.0], "axis": 0},
        ],
    }


def test_the_axis_is_that_of_the_onnx_initializer():
    for name, (_, shape, _, axis, keras_axis) in LAYERS.items():
        scale = np.ones(shape[axis], np.float32)
        told = Encodings("t", {}, {name: Encoding(Scheme(narrow=True, axis=keras_axis), scale, scale * 0)})
        (row,) = json.loads(aimet.render(told, model_of({n: kernel_of(n, None) for n in LAYERS}), "2.0.0"))["encodings"]
        assert (row["name"], row["axis"]) == (f"{name}/kernel", axis)


def test_layers_left_out_come_back():
    told, model = simple()
    assert aimet.parse(json.loads(aimet.render(told, model)), model).encodings.float_ops == {"dense": aimet.EXCLUDED}


def test_aimets_own_files_are_understood():
    """Strictly symmetric grids (offset -127), whole numbers as floats, float entries, int32 biases."""
    document = {
        "version": "1.0.0",
        "producer": {"name": "AIMET"},
        "activation_encodings": [
            {
                "name": "x",
                "enc_type": "PER_TENSOR",
                "dtype": "INT",
                "bw": 8,
                "is_sym": True,
                "scale": [0.5],
                "offset": [-127.0],
            },
            {"name": "conv", "enc_type": "PER_TENSOR", "dtype": "FLOAT", "bw": 16},
        ],
        "param_encodings": [
            {
                "name": "conv/bias",
                "enc_type": "PER_TENSOR",
                "dtype": "INT",
                "bw": 32,
                "is_sym": True,
                "scale": [0.1],
                "offset": [0],
            }
        ],
    }
    read = aimet.parse(document, simple()[1])
    assert read.encodings.activations == {"x": Encoding(Scheme(narrow=True), np.float32(0.5), np.int32(0), "imported")}
    assert read.notes == ("2 entries are float or int32 biases, and stay float: conv, conv/bias",)


def edited(version: str, change) -> dict:
    document = json.loads(aimet.render(*simple(), version))
    change(document)
    return document


REFUSED = {
    "version": (edited("1.0.0", lambda d: d.update(version="3.0.0")), "version '3.0.0'"),
    "no encodings": ({"version": "1.0.0"}, "activation_encodings"),
    "object for a list": (edited("1.0.0", lambda d: d.update(activation_encodings={})), "must be a list"),
    "list for an object": (edited("0.6.1", lambda d: d.update(param_encodings=[])), "must be an object"),
    "foreign name": (edited("1.0.0", lambda d: d["activation_encodings"][0].update(name="y")), "another model.*y.*x"),
    "positive offset": (edited("1.0.0", lambda d: d["activation_encodings"][0].update(offset=[3])), "at most 0"),
    "half an offset": (edited("1.0.0", lambda d: d["activation_encodings"][0].update(offset=[-3.5])), "whole number"),
    "negative scale": (edited("1.0.0", lambda d: d["activation_encodings"][0].update(scale=[-1.0])), "positive"),
    "text": (edited("0.6.1", lambda d: d["activation_encodings"]["x"][0].update(scale="1")), "must be a number"),
    "no scale": (edited("0.6.1", lambda d: d["activation_encodings"]["x"][0].pop("scale")), "scale must be a number"),
    "no flag": (edited("0.6.1", lambda d: d["activation_encodings"]["x"][0].pop("is_symmetric")), "true or false"),
    "too few scales": (edited("1.0.0", lambda d: d["param_encodings"][0].update(scale=[1.0, 2.0])), "do not fit"),
    "other channels": (
        edited("1.0.0", lambda d: d["param_encodings"][0].update(scale=[1.0, 2.0], offset=[-128] * 2)),
        "expected 4 scales on axis 0",
    ),
    "another axis": (edited("2.0.0", lambda d: d["encodings"][1].update(axis=1)), "expected 4 scales on axis 0"),
    "blocks": (edited("2.0.0", lambda d: d["encodings"][1].update(block_size=2)), "blocks"),
    "float8": (edited("2.0.0", lambda d: d["encodings"][1].update(output_dtype="float8e4m3fn")), "output_dtype"),
    "twice": (edited("1.0.0", lambda d: d["activation_encodings"].append(d["activation_encodings"][0])), "several"),
    "channels of an activation": (
        edited("0.6.1", lambda d: d["activation_encodings"]["x"].append(d["activation_encodings"]["x"][0])),
        "one scale each",
    ),
    "by module": (edited("0.6.1", lambda d: d["activation_encodings"].update(x={"input": {}})), "list of encodings"),
}


@pytest.mark.parametrize(("document", "says"), REFUSED.values(), ids=REFUSED)
def test_refused(document, says):
    with pytest.raises(AimetError, match=says):
        aimet.parse(document, simple()[1])


def test_kernels_need_the_onnx():
    told, model = simple()
    with pytest.raises(AimetError, match="give the float ONNX"):
        aimet.render(told, None)
    with pytest.raises(AimetError, match=r"conv/kernel.*float ONNX"):
        aimet.parse(json.loads(aimet.render(told, model)), None)


def test_an_unknown_version_is_refused():
    with pytest.raises(AimetError, match=r"0\.6\.1, 1\.0\.0, 2\.0\.0"):
        aimet.render(*simple(), "1.1.0")


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "model.encodings"
    path.write_text(aimet.render(*simple())[:-20])
    with pytest.raises(AimetError, match=r"model\.encodings is not whole JSON"):
        aimet.read(path, None)
