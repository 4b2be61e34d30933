"""AIMET encodings: what other readers compute from them, and what comes back."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

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
    bits, (signed, symmetric, narrow) = draw(st.sampled_from([4, 8, 16])), draw(st.tuples(*[st.booleans()] * 3))
    scheme = Scheme(bits, signed, symmetric, narrow)
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
            kernel = given_rows is told.weights
            assert held(name, found_rows[name], version, kernel) == held(name, encoding, version, kernel)
    listed = {name for names in aimet.not_held(told, version).values() for name in names}
    changed = {name for name, e in told.activations.items() if found.activations[name].scheme != e.scheme}
    assert changed <= listed


def held(name: str, encoding: Encoding, version: str, kernel: bool) -> tuple:
    """What the format holds: whether a grid is called symmetric in 0.6.1 and 1.0.0 only; whether the scale of a
    kernel with one output channel is that of the channel or of the tensor in 1.0.0 and 2.0.0 only; that an activation
    leaves out its lowest integer in 0.6.1 and 1.0.0, where it is signed and symmetric.
    """
    scheme = encoding.scheme
    symmetric = () if version == "2.0.0" else (scheme.symmetric,)
    axis = () if (name, version) == ("one", "0.6.1") else scheme.axis
    numbers = encoding.scale.tobytes(), encoding.zero_point.ravel().tolist()
    narrow = (scheme.narrow,) if kernel or (version != "2.0.0" and scheme.signed and scheme.symmetric) else ()
    return (*numbers, scheme.bits, scheme.signed, axis, *narrow, *symmetric)


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


def test_a_narrow_activation_is_aimets_strictly_symmetric_grid():
    """Of offset -127 and 254 steps, so that another reader clips where training did."""
    narrow = encoding_of_range(Scheme(narrow=True), -3, 3)
    told, real = Encodings("t", {"x": narrow}, {}), np.linspace(-4, 4, 999, dtype=np.float32)
    (old,) = json.loads(aimet.render(told, None, "0.6.1"))["activation_encodings"]["x"]
    (one,) = json.loads(aimet.render(told, None, "1.0.0"))["activation_encodings"]
    assert (old["offset"], one["offset"]) == (-127, [-127])
    assert (old["min"], old["max"]) == pytest.approx((-3, 3))
    q = np.clip(np.rint(real / old["scale"]), -127, 127)
    np.testing.assert_allclose(q * old["scale"], narrow.fake_quantize(real), rtol=1e-6)
    assert aimet.not_held(told, "1.0.0") == aimet.not_held(told, "0.6.1") == {}
    assert aimet.not_held(told, "2.0.0") == {"activations use the lowest integer then": ["x"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_tensors_that_were_never_rounded_in_training_get_no_entry(version):
    told, model = simple()
    inner = encoding_of_range(INT8, -1, 1, "calibrated")
    more = replace(told, activations={**told.activations, "conv": inner})
    assert aimet.render(more, model, version) == aimet.render(told, model, version)
    assert list(aimet.not_held(more, version).values()) == [["conv"]]


def test_an_export_tells_what_its_file_does_not_hold(tmp_path):
    told, model = simple()
    more = {
        "conv": encoding_of_range(INT8, -1, 1, "calibrated"),
        "up": encoding_of_range(Scheme(narrow=True), -1, 1),
    }
    exportable = SimpleNamespace(
        told=replace(told, activations={**told.activations, **more}), onnx=model, renamed={"a": "b"}
    )
    written = aimet.write(exportable, tmp_path, SimpleNamespace(aimet_version="2.0.0"))
    assert written.report["tensors"] == {"a": "b"}
    assert list(written.report["aimet_not_held"].values()) == [["conv"], ["up"]]
    assert "of 2 tensors and 1 kernels" in written.message
    assert "not held: 1 activations use the lowest integer then: up" in written.message
    assert list(aimet.read(tmp_path / "model.encodings", model).activations) == ["x", "up"]


def test_what_2_0_0_calls_symmetric_is_told():
    told = {
        "x": Encoding(Scheme(signed=False), np.float32(1), np.int32(0)),
        "conv": Encoding(Scheme(symmetric=False), np.float32(1), np.int32(0)),
        "depthwise": Encoding(UINT8, np.float32(1), np.int32(0)),
        "up": Encoding(INT8, np.float32(1), np.int32(0)),
    }
    found = aimet.not_held(Encodings("t", told, {}), "2.0.0")
    assert found == {"are called symmetric by their zero points alone": ["x", "conv"]}


def simple() -> tuple[Encodings, onnx.ModelProto]:
    kernel = Encoding(Scheme(narrow=True, axis=(-1,)), np.float32([0.5, 0.25, 2, 1]), np.zeros(4, np.int32))
    told = Encodings("t", {"x": Encoding(INT8, np.float32(0.5), np.int32(0))}, {"conv": kernel}, {"dense": "a rule"})
    return told, model_of({name: kernel_of(name, told.weights.get(name)) for name in LAYERS})


def replaced(**kernel) -> Encodings:
    """Those of ``simple`` with another Encoding of the Conv."""
    told, _ = simple()
    size = len(kernel["scale"])
    scheme = Scheme(narrow=True, axis=kernel.get("axis", (-1,)))
    return replace(told, weights={"conv": Encoding(scheme, np.float32(kernel["scale"]), np.zeros(size, np.int32))})


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (replaced(scale=[1, 2]), "conv/kernel.*expected 4 scales"),
        (replaced(scale=[0.3, 0.3, 0.3, 0.3]), "conv/kernel.*off its own grid"),
        (replaced(scale=[0.5, 0.25, 2, 1], axis=(-2,)), r"conv/kernel.*axis \(-1,\) .*received \(-2,\)"),
    ],
    ids=["other channels", "another model", "another axis"],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_kernels_that_do_not_fit_the_onnx_are_not_written(told, says, version):
    with pytest.raises(AimetError, match=says):
        aimet.render(told, simple()[1], version)


def test_kernels_that_hold_no_numbers_are_not_written():
    told, model = simple()
    kernel = numpy_helper.to_array(model.graph.initializer[0]).copy()
    kernel.flat[3] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "conv/kernel"))
    with pytest.raises(AimetError, match=r"conv/kernel.*NaN"):
        aimet.render(told, model)


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


def test_excluded_layers_that_the_onnx_lacks_are_told():
    told, model = simple()
    document = json.loads(aimet.render(told, model)) | {"excluded_layers": ["dense", "module.layer1"]}
    read = aimet.parse(document, model)
    assert read.encodings.float_ops == {"dense": aimet.EXCLUDED}
    assert read.notes == ("1 excluded layers are no nodes of the ONNX: module.layer1",)


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
    "a list for a version": (edited("1.0.0", lambda d: d.update(version=[1])), r"version \[1\]"),
    "offset out of range": (
        edited("1.0.0", lambda d: d["activation_encodings"][0].update(offset=[-300])),
        r"activation_encodings\.x: .*zero point",
    ),
    "zero point out of range": (
        edited("2.0.0", lambda d: d["encodings"][0].update(y_zero_point=200)),
        r"encodings\.x: .*zero point",
    ),
    "zero point of a kernel out of range": (
        edited("2.0.0", lambda d: d["encodings"][1].update(y_zero_point=[0, 0, 200, 0])),
        r"encodings\.conv/kernel: .*zero point",
    ),
    "no bits": (edited("1.0.0", lambda d: d["activation_encodings"][0].update(bw=-3)), "from 2 to 16 bits"),
    "endless digits": (
        edited("1.0.0", lambda d: d["activation_encodings"][0].update(scale=[10**400])),
        "a number of 401 digits",
    ),
    "another min": (
        edited("0.6.1", lambda d: d["activation_encodings"]["x"][0].update(min=-63.0)),
        r"activation_encodings\.x: min is -63\.0.*-64\.0",
    ),
    "another max": (
        edited("0.6.1", lambda d: d["param_encodings"]["conv/kernel"][2].update(max=256.0)),
        r"param_encodings\.conv/kernel: max is 256\.0.*254\.0",
    ),
    "excluded text": (edited("1.0.0", lambda d: d.update(excluded_layers="conv")), "excluded_layers must be a list"),
    "excluded numbers": (edited("1.0.0", lambda d: d.update(excluded_layers=[3])), "excluded_layers must be a list"),
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
    with pytest.raises(AimetError, match=r"model\.encodings: not whole JSON"):
        aimet.read(path, None)
    path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(AimetError, match=r"model\.encodings: nested too deeply"):
        aimet.read(path, None)
