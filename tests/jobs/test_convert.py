"""Conversions: what comes back, what is listed, what is refused; the files are judged by other readers."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tfqat.conversion.source import ConvertError
from tfqat.core.encoding import ORIGINS, Encoding, Encodings, encoding_of_range
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.exporters import aimet, cache, encodings, layer_precisions, onnx_file, onnx_qdq
from tfqat.jobs.convert import convert

INT8, UINT8 = Scheme(), Scheme(signed=False, symmetric=False)
PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "caches"
KERNELS = {"stem": (4, 3, 3, 3), "branch": (4, 4, 1, 1), "head": (4, 5)}


def float_model(kernels: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A residual network: a pooled stem, an Add that takes in the branch, a head whose output stays float."""
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "stem/kernel", "stem/bias"], ["stem"], "stem", pads=[1] * 4),
        node("Relu", ["stem"], ["stem_relu"], "stem_relu"),
        node("MaxPool", ["stem_relu"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["pool", "branch/kernel"], ["branch"], "branch"),
        node("Add", ["branch", "pool"], ["join"], "join"),
        node("Relu", ["join"], ["join_relu"], "join_relu"),
        node("GlobalAveragePool", ["join_relu"], ["mean"], "mean"),
        node("Flatten", ["mean"], ["flat"], "flat"),
        node("Gemm", ["flat", "head/kernel"], ["logits"], "head"),
        node("Softmax", ["logits"], ["probabilities"], "softmax"),
    ]
    tensors = [numpy_helper.from_array(kernel, f"{name}/kernel") for name, kernel in kernels.items()]
    tensors.append(numpy_helper.from_array(np.float32([0.1, -0.1, 0.2, 0]), "stem/bias"))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 5])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def kernel_and_encoding(name: str, rng, top: int = 127) -> tuple[np.ndarray, Encoding]:
    shape = KERNELS[name]
    axis = 1 if name == "head" else 0
    channels = shape[axis]
    moved = np.moveaxis(rng.integers(-top, top + 1, shape), axis, 0)
    scale = rng.uniform(0.001, 0.01, channels).astype(np.float32)
    spread = [-1 if i == axis else 1 for i in range(len(shape))]
    integers = np.moveaxis(_with_first(moved, top), 0, axis)
    kernel = (integers * scale.reshape(spread)).astype(np.float32)
    return kernel, Encoding(Scheme(narrow=True, axis=(-1,)), scale, np.zeros(channels, np.int32))


def _with_first(moved: np.ndarray, top: int) -> np.ndarray:
    flat = np.ascontiguousarray(moved).reshape(len(moved), -1)
    flat[:, 0] = top
    return flat.reshape(moved.shape)


def trained(seed: int = 0, **tops: int) -> tuple[onnx.ModelProto, Encodings]:
    """The float model of a QAT model with symmetric scales, and what was learnt."""
    rng = np.random.default_rng(seed)
    made = {name: kernel_and_encoding(name, rng, tops.get(name, 127)) for name in KERNELS}
    learnt = {name: rng.uniform(0.5, 4) for name in ("image", "stem_relu", "join_relu", "mean")}
    activations = {name: encoding_of_range(INT8, -amax, amax) for name, amax in learnt.items()}
    shared = Encoding(INT8, activations["stem_relu"].scale, np.int32(0), "shared")
    flat = Encoding(INT8, activations["mean"].scale, np.int32(0), "shared")
    activations = {
        "image": activations["image"],
        "stem_relu": activations["stem_relu"],
        "pool": shared,
        "join_relu": activations["join_relu"],
        "mean": activations["mean"],
        "flat": flat,
    }
    weights = {name: made[name][1] for name in ("stem", "branch")}
    told = Encodings("tensorrt", activations, weights, {"head": "output layer: outputs stay float"})
    return float_model({name: kernel for name, (kernel, _) in made.items()}), told


@pytest.fixture
def files(tmp_path):
    """An export, without Keras."""
    model, told = trained()
    onnx_file.save(model, tmp_path / "model.onnx")
    onnx_file.save(onnx_qdq.insert(model, told), tmp_path / "model.qdq.onnx")
    encodings.write(tmp_path / "encodings.json", told)
    cache.write(tmp_path / "model.cache", told.activations)
    layer_precisions.write(tmp_path / "layer_precisions.txt", told.float_ops)
    return tmp_path


def run(model: onnx.ModelProto | Path) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    data = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options)
    x = np.random.default_rng(1).normal(size=(8, 3, 8, 8)).astype("float32")
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def said(*arguments, **options) -> str:
    """What a conversion prints."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        convert(*arguments, **options)
    return text.getvalue()


# Encodings and caches.

normal = st.floats(2.0**-126, 2.0**100, width=32)
plain_names = st.text(st.sampled_from("abcXYZ019_./- []()"), min_size=1).filter(lambda name: name == name.strip())
int8_encodings = st.builds(
    lambda scale, origin: Encoding(INT8, np.float32(scale), np.int32(0), origin), normal, st.sampled_from(ORIGINS)
)


@given(st.dictionaries(plain_names, int8_encodings, min_size=1), st.sampled_from(["8.6.1", "7.2.0", "10.3.0"]))
@settings(max_examples=20, deadline=None)
def test_encodings_to_a_cache_and_back(activations, version):
    with tempfile.TemporaryDirectory() as folder:
        there, back, again = (Path(folder, name) for name in ("a.cache", "b.json", "c.cache"))
        encodings.write(Path(folder, "e.json"), Encodings("tensorrt", activations, {}))
        said([Path(folder, "e.json")], "cache", there, tensorrt_version=version)
        said([there], "encodings", back)
        found = encodings.read(back)
        assert list(found.activations) == list(activations)
        for name, encoding in activations.items():
            assert found.activations[name].scale.tobytes() == encoding.scale.tobytes()
        said([back], "cache", again)
        assert again.read_bytes() == there.read_bytes()


def values(text: str) -> dict[str, int]:
    """Name -> the float's bits, by trtexec's rule, and the header."""
    header, *rows = [line.rstrip("\r") for line in text.split("\n") if line]
    return {"": header} | {row[: row.rindex(":")]: int(row[row.rindex(":") + 2 :], 16) for row in rows}


PUBLIC_CACHES = {
    "trt5101_entropy2_resnet50_nvdla.txt": True,
    "trt5102_entropy2_mnist_colon_names.cache": True,
    "trt6001_minmax_gnmt_inf.cache": True,
    "trt7200_entropy2_resnet50_crlf.cache": False,  # CRLF: the bytes of the line ends change
    "trt7203_entropy2_resnet50.cache": True,
    "trt8001_entropy2_resnet50.cache": True,
    "trt8402_entropy2_retinanet.cache": True,
    "trt8600_entropy2_yolov5_qat.cache": True,
}


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public caches are not beside the repository")
@pytest.mark.parametrize(("name", "same_bytes"), PUBLIC_CACHES.items())
def test_a_public_cache_to_encodings_and_back(name, same_bytes, tmp_path):
    said([PUBLIC / name], "encodings", tmp_path / "e.json")
    said([tmp_path / "e.json"], "cache", tmp_path / "back.cache")
    given_bytes, found = (PUBLIC / name).read_bytes(), (tmp_path / "back.cache").read_bytes()
    assert values(found.decode()) == values(given_bytes.decode())
    assert list(values(found.decode())) == list(values(given_bytes.decode()))
    assert found == (given_bytes if same_bytes else given_bytes.replace(b"\r\n", b"\n"))


def test_lines_that_are_no_usable_scale_come_back_in_their_place(tmp_path):
    text = (
        "TRT-8401-MinMaxCalibration\na: 7f800000\nb: 3c010204\nc:0: 00000000\nd: 00000001\ne: 3c010205\nf: 7f800000\n"
    )
    (tmp_path / "a.cache").write_text(text)
    said([tmp_path / "a.cache"], "encodings", tmp_path / "e.json")
    assert list(encodings.read(tmp_path / "e.json").activations) == ["b", "e"]
    told = said([tmp_path / "e.json"], "cache", tmp_path / "b.cache")
    assert (tmp_path / "b.cache").read_text() == text
    assert "Nothing is left out" not in said([tmp_path / "e.json"], "aimet", tmp_path / "m.encodings")
    said([tmp_path / "e.json"], "cache", tmp_path / "c.cache", tensorrt_version="10.3.0")
    assert lines(tmp_path / "c.cache") == ["TRT-100300-MinMaxCalibration", *text.splitlines()[1:]]
    assert "hold a colon" not in told


def test_names_with_colons_come_back_with_a_warning(tmp_path):
    (tmp_path / "a.cache").write_text("TRT-8401-MinMaxCalibration\nin:0: 3c010204\n")
    said([tmp_path / "a.cache"], "encodings", tmp_path / "e.json")
    assert "1 names hold a colon" in said([tmp_path / "e.json"], "cache", tmp_path / "b.cache")
    assert (tmp_path / "b.cache").read_bytes() == (tmp_path / "a.cache").read_bytes()


def test_a_cache_says_what_it_leaves_out(files):
    text = said([files / "encodings.json"], "cache", files / "again.cache")
    assert (files / "again.cache").read_bytes() == (files / "model.cache").read_bytes()
    assert "2 kernels' scales" in text
    assert "where scales come from (learned, shared)" in text
    assert (files / "again.layer_precisions.txt").read_text() == "head:fp32\n"
    with pytest.raises(ConvertError, match="would leave out: 2 kernels' scales"):
        convert([files / "encodings.json"], "cache", files / "b.cache", lossless=True)
    assert not (files / "b.cache").exists()


# Q/DQ to cache and ONNX, and back.


def test_qdq_becomes_the_cache_and_the_float_onnx_of_the_export(files, tmp_path):
    said([files / "model.qdq.onnx"], "cache", tmp_path / "out" / "model.cache")
    out = tmp_path / "out"
    assert (out / "model.cache").read_bytes() == (files / "model.cache").read_bytes()
    assert (out / "model.layer_precisions.txt").read_bytes() == (files / "layer_precisions.txt").read_bytes()
    clean, given_model = onnx_file.load(out / "model.onnx"), onnx_file.load(files / "model.onnx")
    assert clean.graph.node == given_model.graph.node
    np.testing.assert_array_equal(run(clean), run(given_model))


def test_lines_of_tensors_that_share_a_range(files, tmp_path):
    """As PyTorch places them: one pair behind the MaxPool, one behind the Flatten; the cache has all four tensors."""
    model, told = trained()
    few = {name: e for name, e in told.activations.items() if name not in ("stem_relu", "mean")}
    onnx_file.save(onnx_qdq.insert(model, Encodings("t", few, told.weights)), tmp_path / "few.onnx")
    text = said([tmp_path / "few.onnx"], "cache", tmp_path / "few.cache")
    expected = {"image", "stem_relu", "pool", "join_relu", "mean", "flat"}
    assert lines(tmp_path / "few.cache") == lines(files / "model.cache")
    assert {line.split(":")[0] for line in lines(tmp_path / "few.cache")[1:]} == expected
    assert "2 tensors share the range of another and have lines, too: stem_relu, mean" in text
    # Rounding before a MaxPool is rounding behind it.
    said([tmp_path / "few.cache", files / "model.onnx"], "qdq_onnx", tmp_path / "again.onnx")
    np.testing.assert_allclose(run(tmp_path / "again.onnx"), run(tmp_path / "few.onnx"), atol=1e-6)


def integers_of(path: Path) -> dict[str, np.ndarray]:
    """Kernel -> int8 weights of a Q/DQ ONNX, channels first, with numpy alone."""
    graph = onnx.load(path).graph
    held = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in held:
            kernel, scale = held[node.input[0]], held[node.input[1]]
            axis = node.attribute[0].i
            found[node.input[0]] = np.rint(np.moveaxis(kernel, axis, -1) / scale).T
    return found


@given(st.integers(0, 2**32 - 1), st.sampled_from([127, 127, 90]), st.sampled_from([127, 1]))
@settings(max_examples=8, deadline=None)
def test_qdq_to_a_cache_and_back(seed, stem, branch):
    model, told = trained(seed, stem=stem, branch=branch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx_file.save(onnx_qdq.insert(model, told), folder / "a.qdq.onnx")
        text = said([folder / "a.qdq.onnx"], "cache", folder / "out")
        made = [folder / "out" / name for name in ("model.cache", "model.onnx", "layer_precisions.txt")]
        said(made, "qdq_onnx", folder / "b.qdq.onnx")
        before, after = integers_of(folder / "a.qdq.onnx"), integers_of(folder / "b.qdq.onnx")
        assert list(before) == list(after) == ["stem/kernel", "branch/kernel"]
        for kernel, top in zip(before, (stem, branch), strict=True):
            full = np.abs(before[kernel]).reshape(4, -1).max(axis=1) == 127
            np.testing.assert_array_equal(before[kernel][full], after[kernel][full])
            listed = f"{kernel.removesuffix('/kernel')}, channels 0-3 of 4" in text
            assert listed == (top != 127)
        if stem == branch == 127:
            np.testing.assert_allclose(run(folder / "b.qdq.onnx"), run(folder / "a.qdq.onnx"), atol=1e-6)


def test_the_channels_that_are_quantized_anew_are_listed(tmp_path):
    model, told = trained()
    kernel = numpy_helper.to_array(model.graph.initializer[0]).copy()
    kernel[[0, 1, 3]] = np.clip(kernel[[0, 1, 3]] / told.weights["stem"].scale[[0, 1, 3]].reshape(-1, 1, 1, 1), -9, 9)
    kernel[[0, 1, 3]] = np.rint(kernel[[0, 1, 3]]) * told.weights["stem"].scale[[0, 1, 3]].reshape(-1, 1, 1, 1)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "stem/kernel"))
    onnx_file.save(onnx_qdq.insert(model, told), tmp_path / "a.qdq.onnx")
    text = said([tmp_path / "a.qdq.onnx"], "cache", tmp_path / "b.cache")
    assert "integers of kernels that do not reach 127, which TensorRT makes anew: stem, channels 0-1, 3 of 4" in text


def test_qdq_through_encodings_is_the_same_file(files, tmp_path):
    said([files / "model.qdq.onnx"], "encodings", tmp_path / "o")
    said([tmp_path / "o/encodings.json", tmp_path / "o/model.onnx"], "qdq_onnx", tmp_path / "again.onnx")
    again, before = (onnx.load(path).graph for path in (tmp_path / "again.onnx", files / "model.qdq.onnx"))
    assert (again.node, again.input, again.output) == (before.node, before.input, before.output)
    assert {t.name: t.SerializeToString() for t in again.initializer} == {
        t.name: t.SerializeToString() for t in before.initializer
    }


def test_a_layer_whose_range_is_unknown_behind_it_is_listed(tmp_path):
    """As PyTorch leaves them: the last quantized layer gives floats, with no pair behind it."""
    model, told = trained()
    few = {name: e for name, e in told.activations.items() if name not in ("join_relu", "mean", "flat")}
    onnx_file.save(onnx_qdq.insert(model, Encodings("t", few, told.weights)), tmp_path / "a.qdq.onnx")
    text = said([tmp_path / "a.qdq.onnx"], "cache", tmp_path / "b.cache")
    assert "1 layers of INT8 are float beside a cache, for want of a line: branch" in text
    assert "Scales: 3 of 4 tensors covered; 1 of 3 weighted layers in INT8." in text


def test_who_reads_a_tensor_without_its_pair_is_listed(tmp_path):
    model, told = trained()
    raw = {onnx_qdq.UNQUANTIZED_READERS: {"pool": ["join"]}}
    onnx_file.save(
        onnx_qdq.insert(model, Encodings("t", told.activations, told.weights, {}, raw)), tmp_path / "a.qdq.onnx"
    )
    assert "pool (by join)" in said([tmp_path / "a.qdq.onnx"], "cache", tmp_path / "b.cache")
    said([tmp_path / "a.qdq.onnx"], "qdq_onnx", tmp_path / "b.qdq.onnx")
    assert onnx.load(tmp_path / "b.qdq.onnx").graph.node == onnx.load(tmp_path / "a.qdq.onnx").graph.node


# A cache and its ONNX.


def test_a_cache_and_its_onnx_become_the_qdq_onnx_of_the_export(files, tmp_path):
    inputs = [files / "layer_precisions.txt", files / "model.onnx", files / "model.cache"]
    said(inputs, "qdq_onnx", tmp_path / "a.onnx")
    made = onnx_file.load(tmp_path / "a.onnx")
    assert made.graph.node == onnx_file.load(files / "model.qdq.onnx").graph.node
    np.testing.assert_allclose(run(made), run(files / "model.qdq.onnx"), atol=1e-6)
    assert not [node for node in made.graph.node if node.input and node.input[0] == "head/kernel"]


def complete_cache(path: Path, model: onnx.ModelProto, **more: float) -> dict[str, float]:
    """A cache as TensorRT's own calibrator writes it: a line for every tensor, and for some of its own making."""
    names = ["image", *(name for node in model.graph.node for name in node.output)]
    scales = {name: 0.01 * (i + 1) for i, name in enumerate(names)} | more
    rows = [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items()]
    path.write_text("\n".join(["TRT-8401-EntropyCalibration2", *rows]) + "\n")
    return scales


def test_a_complete_cache_gives_no_pairs_inside_kernels(files, tmp_path):
    own = "(Unnamed Layer* 3) [Constant]_output"
    complete_cache(tmp_path / "all.cache", onnx_file.load(files / "model.onnx"), **{own: 0.5, "stem/bias": 0.1})
    text = said([tmp_path / "all.cache", files / "model.onnx"], "qdq_onnx", tmp_path / "a.onnx")
    quantized = [n.input[0] for n in onnx.load(tmp_path / "a.onnx").graph.node if n.op_type == "QuantizeLinear"]
    # Nothing between stem and its ReLU, between branch, Add and ReLU, nor behind the softmax.
    assert [name for name in quantized if "kernel" not in name] == [
        "image",
        "stem_relu",
        "pool",
        "join_relu",
        "mean",
        "flat",
        "logits",
    ]
    assert "4 scales inside a fused block, or behind what does not run in INT8, get no Q/DQ" in text
    assert "2 lines are of tensors that TensorRT made or that are constants" in text
    assert "the header TRT-8401-EntropyCalibration2" in text


def test_a_complete_cache_gives_no_pairs_behind_layers_kept_float(files, tmp_path):
    complete_cache(tmp_path / "all.cache", onnx_file.load(files / "model.onnx"))
    inputs = [tmp_path / "all.cache", files / "model.onnx", files / "layer_precisions.txt"]
    said(inputs, "qdq_onnx", tmp_path / "a.onnx")
    assert onnx.load(tmp_path / "a.onnx").graph.node == onnx.load(files / "model.qdq.onnx").graph.node


def test_a_complete_cache_keeps_all_lines_on_its_way_through_encodings(files, tmp_path):
    complete_cache(tmp_path / "all.cache", onnx_file.load(files / "model.onnx"), **{"(Unnamed Layer* 3) [Scale]": 1})
    said([tmp_path / "all.cache", files / "model.onnx"], "encodings", tmp_path / "o")
    said([tmp_path / "o/encodings.json"], "cache", tmp_path / "back.cache")
    assert (tmp_path / "back.cache").read_bytes() == (tmp_path / "all.cache").read_bytes()


def test_kernels_of_a_float_model_are_rounded_per_channel(tmp_path):
    rng = np.random.default_rng(3)
    model = float_model({name: rng.normal(size=shape).astype("float32") for name, shape in KERNELS.items()})
    onnx_file.save(model, tmp_path / "f.onnx")
    complete_cache(tmp_path / "f.cache", model)
    said([tmp_path / "f.cache", tmp_path / "f.onnx"], "qdq_onnx", tmp_path / "a.onnx", int8_weights=True)
    held = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "a.onnx").graph.initializer}
    kernel = numpy_helper.to_array(model.graph.initializer[0])
    top = np.abs(kernel).max(axis=(1, 2, 3))
    np.testing.assert_allclose(held["stem/kernel/scale"], top / 127, rtol=1e-6)
    assert held["stem/kernel/quantize"].dtype == np.int8
    np.testing.assert_array_equal(
        held["stem/kernel/quantize"], np.rint(kernel / (top / np.float32(127)).reshape(-1, 1, 1, 1))
    )


def test_a_cache_of_another_model_tells_both_sides(files, tmp_path):
    (tmp_path / "x.cache").write_text("TRT-8601-EntropyCalibration2\nimage: 3c010204\nother: 3c010204\n")
    with pytest.raises(ConvertError, match=r"not in the ONNX model \(other\).* have no line \(stem, stem_relu"):
        convert([tmp_path / "x.cache", files / "model.onnx"], "qdq_onnx", tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


# AIMET.


@pytest.mark.parametrize("version", aimet.VERSIONS)
def test_aimet_and_back_to_qdq(files, tmp_path, version):
    inputs = [files / "encodings.json", files / "model.onnx"]
    said(inputs, "aimet", tmp_path / "m.encodings", aimet_version=version)
    assert json.loads((tmp_path / "m.encodings").read_text())["version"] == version
    said([tmp_path / "m.encodings", files / "model.onnx"], "qdq_onnx", tmp_path / "a.onnx")
    np.testing.assert_array_equal(run(tmp_path / "a.onnx"), run(files / "model.qdq.onnx"))
    said([tmp_path / "m.encodings", files / "model.onnx"], "cache", tmp_path / "a.cache")
    assert (tmp_path / "a.cache").read_bytes() == (files / "model.cache").read_bytes()


def test_aimet_beside_a_float_onnx_rounds_its_kernels(tmp_path):
    """AIMET exports the float weights; the encodings say how they are rounded."""
    _, told = trained()
    rng = np.random.default_rng(5)
    shaken = float_model({name: rng.normal(size=shape).astype("float32") for name, shape in KERNELS.items()})
    onnx_file.save(shaken, tmp_path / "f.onnx")
    (tmp_path / "m.encodings").write_text(aimet.render(told, trained()[0]))
    text = said([tmp_path / "m.encodings", tmp_path / "f.onnx"], "qdq_onnx", tmp_path / "a.onnx")
    assert "2 kernels of the ONNX were not on their grids" in text
    scale = told.weights["stem"].scale.reshape(-1, 1, 1, 1)
    held = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "a.onnx").graph.initializer}
    given_kernel = numpy_helper.to_array(shaken.graph.initializer[0])
    np.testing.assert_array_equal(held["stem/kernel"], np.clip(np.rint(given_kernel / scale), -128, 127) * scale)


def test_the_letter_of_qdq_to_aimet_comes_with_its_onnx(files, tmp_path):
    said([files / "model.qdq.onnx"], "aimet", tmp_path / "o", aimet_version="2.0.0")
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["model.encodings", "model.onnx"]
    assert aimet.read(tmp_path / "o/model.encodings", onnx_file.load(tmp_path / "o/model.onnx")).weights.keys() == {
        "stem",
        "branch",
    }


@pytest.mark.parametrize("version", aimet.VERSIONS)
def test_aimet_leaves_out_what_was_never_rounded(files, tmp_path, version):
    """Encodings -> AIMET -> Q/DQ is encodings -> Q/DQ: an inner tensor gets a pair in neither."""
    _, told = trained()
    inner = encoding_of_range(INT8, -0.5, 0.5, "calibrated")
    encodings.write(tmp_path / "e.json", Encodings("t", {**told.activations, "join": inner}, told.weights))
    text = said([tmp_path / "e.json", files / "model.onnx"], "aimet", tmp_path / "m.encodings", aimet_version=version)
    assert "1 scales inside a fused block, or of what does not run in INT8, have no entry: join" in text
    said([tmp_path / "m.encodings", files / "model.onnx"], "qdq_onnx", tmp_path / "a.onnx")
    said([tmp_path / "e.json", files / "model.onnx"], "qdq_onnx", tmp_path / "b.onnx")
    assert onnx.load(tmp_path / "a.onnx").graph.node == onnx.load(tmp_path / "b.onnx").graph.node
    np.testing.assert_array_equal(run(tmp_path / "a.onnx"), run(tmp_path / "b.onnx"))


def narrow_encodings(path: Path) -> Path:
    """Those of the export, whose input leaves out -128."""
    _, told = trained()
    narrow = encoding_of_range(Scheme(narrow=True), -1, 1)
    return encodings.write(path, Encodings("npu", {**told.activations, "image": narrow}, told.weights))


def test_a_narrow_activation_comes_through_aimet_but_for_2_0_0(files, tmp_path):
    given_files = [narrow_encodings(tmp_path / "e.json"), files / "model.onnx"]
    said(given_files, "qdq_onnx", tmp_path / "direct.onnx")
    for version in ("0.6.1", "1.0.0"):
        assert "lowest integer" not in said(
            given_files, "aimet", tmp_path / f"{version}.encodings", aimet_version=version
        )
        said([tmp_path / f"{version}.encodings", files / "model.onnx"], "qdq_onnx", tmp_path / "a.onnx")
        assert onnx.load(tmp_path / "a.onnx").graph.node == onnx.load(tmp_path / "direct.onnx").graph.node
        np.testing.assert_array_equal(run(tmp_path / "a.onnx"), run(tmp_path / "direct.onnx"))
    text = said(given_files, "aimet", tmp_path / "2.encodings", aimet_version="2.0.0")
    assert "1 activations use the lowest integer then: image" in text


def test_kernels_of_another_model_are_not_written_as_aimet(files, tmp_path):
    onnx_file.save(trained(seed=7)[0], tmp_path / "other.onnx")
    with pytest.raises(TfqatError, match=r"stem/kernel.*off its own grid"):
        convert([files / "encodings.json", tmp_path / "other.onnx"], "aimet", tmp_path / "m.encodings")
    assert not (tmp_path / "m.encodings").exists()


def test_what_a_qdq_onnx_does_not_tell_of_encodings_is_listed(files, tmp_path):
    inputs = [files / "encodings.json", files / "model.onnx"]
    text = said(inputs, "qdq_onnx", tmp_path / "a.onnx")
    assert "where scales come from (learned, shared)" in text
    assert "the target that they are for (tensorrt)" in text
    assert "1 layers stay float, but not why: head" in text
    with pytest.raises(ConvertError, match="would leave out: where scales come from"):
        convert(inputs, "qdq_onnx", tmp_path / "b.onnx", lossless=True)
    # What comes from a Q/DQ ONNX loses none of that on its way back.
    said([files / "model.qdq.onnx"], "qdq_onnx", tmp_path / "c.onnx", lossless=True)


def test_what_aimet_2_0_0_does_not_tell_of_encodings_is_listed(files, tmp_path):
    half = Encoding(Scheme(signed=False), np.float32(0.5), np.int32(0), "imported")
    encodings.write(tmp_path / "e.json", Encodings("imported", {"image": half}, {}))
    inputs = [tmp_path / "e.json", files / "model.onnx"]
    with pytest.raises(ConvertError, match="1 are called symmetric by their zero points alone: image"):
        convert(inputs, "aimet", tmp_path / "m.encodings", aimet_version="2.0.0", lossless=True)
    said(inputs, "aimet", tmp_path / "m.encodings", lossless=True)


def test_a_clip_of_the_model_is_none_of_the_integers(tmp_path):
    """HardSiLU's own Clip is called so, too."""
    model, told = trained()
    relu = next(node for node in model.graph.node if node.name == "join_relu")
    relu.op_type, relu.name = "Clip", "hard_silu/clip"
    onnx_file.save(model, tmp_path / "m.onnx")
    encodings.write(tmp_path / "e.json", told)
    assert "by a Clip" not in said([tmp_path / "e.json", tmp_path / "m.onnx"], "qdq_onnx", tmp_path / "a.onnx")
    text = said([narrow_encodings(tmp_path / "n.json"), tmp_path / "m.onnx"], "qdq_onnx", tmp_path / "b.onnx")
    assert "1 tensors use part of their integers, by a Clip, which TensorRT refuses: image/clip" in text


# What is refused: nothing is written.


@pytest.mark.parametrize("name", ["empty.onnx", "model2.cache", "empty.encodings", "empty"])
@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_an_empty_file_is_refused_by_name(files, name, data):
    (files / name).write_bytes(data)
    with pytest.raises(ConvertError, match=rf"{name} is empty"):
        convert([files / "model.cache", files / "model.onnx", files / name], "qdq_onnx", files / "new.onnx")


def test_empty_layer_precisions_mean_that_no_layer_stays_float(files, tmp_path):
    layer_precisions.write(tmp_path / "layer_precisions.txt", {})
    assert (tmp_path / "layer_precisions.txt").read_bytes() == b""
    inputs = [files / "model.cache", files / "model.onnx"]
    said([*inputs, tmp_path / "layer_precisions.txt"], "qdq_onnx", tmp_path / "a.onnx")
    said(inputs, "qdq_onnx", tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


DAMAGED_CACHES = {
    "a byte": (lambda data: data + b"\xff: 3c010204\n", r"model\.cache, line 8: not text"),
    "NUL": (lambda data: data.replace(b"pool: 3", b"pool: \x00", 1), r"model\.cache, line 4"),
    "a mark": (lambda data: b"\xef\xbb\xbf" + data, r"model\.cache, line 1.*ufeffTRT-8601"),
}


@pytest.mark.parametrize(("change", "says"), DAMAGED_CACHES.values(), ids=DAMAGED_CACHES)
def test_a_damaged_cache_is_told_by_its_line(files, change, says):
    (files / "model.cache").write_bytes(change((files / "model.cache").read_bytes()))
    with pytest.raises(TfqatError, match=says):
        convert([files / "model.cache", files / "model.onnx"], "qdq_onnx", files / "new.onnx")


def test_a_byte_order_mark_before_json_is_passed_over(files, tmp_path):
    plain = tmp_path / "plain.encodings"
    said([files / "encodings.json", files / "model.onnx"], "aimet", plain)
    for path in (files / "encodings.json", plain):
        said([path, files / "model.onnx"], "cache", tmp_path / "a.cache")
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        said([path, files / "model.onnx"], "cache", tmp_path / "b.cache")
        assert (tmp_path / "b.cache").read_bytes() == (tmp_path / "a.cache").read_bytes()


def test_json_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(ConvertError, match=r"a\.json: nested too deeply"):
        convert([tmp_path / "a.json"], "encodings", tmp_path / "b.json")


def test_why_an_onnx_is_refused_is_told(files):
    model = onnx.load(files / "model.onnx")
    model.graph.node[1].input[0] = "nowhere"
    (files / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConvertError, match=r"none of these(.|\n)*Read as ONNX: (.|\n)*nowhere"):
        convert([files / "model.cache", files / "model.onnx"], "qdq_onnx", files / "new.onnx")


def test_half_precision_is_refused_before_anything_is_made(files):
    model = onnx.load(files / "model.onnx")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    (files / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConvertError, match=r"model\.onnx computes in float16 .*export in float32"):
        convert([files / "model.cache", files / "model.onnx"], "qdq_onnx", files / "new.onnx")


def test_kernels_that_hold_no_numbers_are_refused_beside_a_cache(files):
    model = onnx.load(files / "model.onnx")
    kernel = numpy_helper.to_array(model.graph.initializer[0]).copy()
    kernel[1, 0, 0, 0] = np.inf
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "stem/kernel"))
    onnx_file.save(model, files / "model.onnx")
    for holder, to in (("model.cache", "qdq_onnx"), ("encodings.json", "qdq_onnx"), ("encodings.json", "aimet")):
        with pytest.raises(TfqatError, match="NaN"):
            convert([files / holder, files / "model.onnx"], to, files / "new")
    assert not (files / "new").exists()


def test_no_cache_is_written_for_tensorrt_11(files, tmp_path):
    with pytest.raises(ConvertError, match=r"tensorrt_version is 11\.0, but TensorRT 11 and later read no"):
        convert([files / "encodings.json"], "cache", tmp_path / "a.cache", tensorrt_version="11.0")
    said([files / "encodings.json"], "cache", tmp_path / "a.cache", tensorrt_version="10.9")


def test_zero_points_are_refused_for_a_cache(tmp_path):
    model, told = trained()
    shifted = {**told.activations, "image": encoding_of_range(UINT8, -1, 2), "mean": encoding_of_range(UINT8, 0, 2)}
    onnx_file.save(onnx_qdq.insert(model, Encodings("t", shifted, told.weights)), tmp_path / "a.onnx")
    with pytest.raises(ConvertError, match=r"no zero points.* 2 tensors have: image, mean"):
        convert([tmp_path / "a.onnx"], "cache", tmp_path / "out" / "a.cache")
    assert not (tmp_path / "out").exists()


def test_uint8_centered_on_128_is_int8(tmp_path):
    model, told = trained()
    centered = Encoding(UINT8, told.activations["image"].scale, np.int32(128))
    shifted = Encodings("t", {**told.activations, "image": centered}, told.weights)
    onnx_file.save(onnx_qdq.insert(model, shifted), tmp_path / "a.onnx")
    said([tmp_path / "a.onnx"], "cache", tmp_path / "a.cache")
    scale = struct.pack(">f", centered.scale).hex()
    assert lines(tmp_path / "a.cache")[1] == f"image: {scale}"


def test_zero_points_of_kernels_are_refused_for_a_cache(tmp_path):
    model, told = trained()
    kernel = numpy_helper.to_array(model.graph.initializer[0])
    encoding = Encoding(UINT8, np.float32(np.abs(kernel).max() / 100), np.int32(120))
    rounded = onnx_qdq.rounded(onnx_qdq.weights_of(model)["stem"], kernel, encoding)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(rounded, "stem/kernel"))
    told = Encodings("t", told.activations, {**told.weights, "stem": encoding})
    onnx_file.save(onnx_qdq.insert(model, told), tmp_path / "a.onnx")
    with pytest.raises(ConvertError, match="kernel of stem"):
        convert([tmp_path / "a.onnx"], "cache", tmp_path / "a.cache")


BAD_INPUTS = {
    "no scales": (["model.onnx"], "qdq_onnx", "exactly one file that holds scales"),
    "two holders": (["model.cache", "encodings.json"], "qdq_onnx", "exactly one file that holds scales"),
    "two models": (["model.cache", "model.onnx", "copy.onnx"], "qdq_onnx", "both a float ONNX"),
    "an ONNX too many": (["model.qdq.onnx", "model.onnx"], "cache", "leave it out"),
    "precisions of encodings": (["encodings.json", "layer_precisions.txt"], "cache", "does not go with"),
    "no ONNX": (["encodings.json"], "qdq_onnx", "needs the float ONNX"),
    "no ONNX of a cache": (["model.cache"], "qdq_onnx", "needs the float ONNX"),
    "no ONNX for AIMET": (["encodings.json"], "aimet", "give the float ONNX"),
    "something else": (["README"], "cache", "none of these"),
    "other JSON": (["other.json"], "cache", "neither encodings.json"),
    "cut JSON": (["cut.json"], "cache", "not whole JSON"),
    "cut ONNX": (["cut.onnx"], "cache", "none of these, or is not whole"),
    "old cache": (["old.cache"], "encodings", "TensorRT 5.0"),
    "a format": (["model.cache"], "tflite", "encodings, cache, qdq_onnx, aimet"),
}


@pytest.mark.parametrize(("names", "to", "says"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_inputs_that_do_not_go_together(files, names, to, says):
    (files / "copy.onnx").write_bytes((files / "model.onnx").read_bytes())
    (files / "README").write_text("Hello: world\n")
    (files / "other.json").write_text('{"a": 1}')
    (files / "cut.json").write_text((files / "encodings.json").read_text()[:-30])
    (files / "cut.onnx").write_bytes((files / "model.onnx").read_bytes()[:-100])
    (files / "old.cache").write_text("1\na: 3c010204\n")
    with pytest.raises(TfqatError, match=says):
        convert([files / name for name in names], to, files / "new" / "out")
    assert not (files / "new").exists()


def test_encodings_of_another_model_tell_both_sides(files, tmp_path):
    told = Encodings("t", {"nowhere": encoding_of_range(INT8, -1, 1)}, {})
    encodings.write(tmp_path / "e.json", told)
    with pytest.raises(ConvertError, match=r"\(nowhere\); .* have no encoding \(image, stem"):
        convert([tmp_path / "e.json", files / "model.onnx"], "qdq_onnx", tmp_path / "a.onnx")


@pytest.mark.parametrize("to", ["qdq_onnx", "aimet", "cache"])
def test_encodings_whose_channels_are_on_another_axis_are_refused(files, to):
    _, told = trained()
    stem = Encoding(Scheme(narrow=True, axis=(-2,)), told.weights["stem"].scale, np.zeros(4, np.int32))
    encodings.write(files / "e.json", Encodings("t", told.activations, {**told.weights, "stem": stem}))
    with pytest.raises(TfqatError, match=r"'stem/kernel' of 'stem' \(Conv\).*received \(-2,\)"):
        convert([files / "e.json", files / "model.onnx"], to, files / "new")
    assert not (files / "new").exists()


@pytest.mark.parametrize("options", [{"opset": 12}, {"opset": 99}, {"tensorrt_version": "x"}, {"aimet_version": "1"}])
def test_options_are_checked_first(options, tmp_path):
    with pytest.raises(TfqatError, match=r"opset|tensorrt_version|aimet_version"):
        convert([tmp_path / "nowhere"], "cache", tmp_path / "a.cache", **options)


def test_an_input_is_not_written_over(files):
    with pytest.raises(ConvertError, match="one of the inputs"):
        convert([files / "model.cache"], "cache", files / "model.cache")


def test_a_companion_that_is_there_is_not_written_over(files):
    other = onnx_file.load(files / "model.onnx")
    other.producer_name = "another"
    onnx_file.save(other, files / "model.onnx")
    with pytest.raises(
        ConvertError, match=r"model\.onnx exists and is another file than the float ONNX that comes with model\.cache"
    ):
        convert([files / "model.qdq.onnx"], "cache", files / "model.cache")
    said([files / "model.qdq.onnx"], "cache", files / "new.cache")
    said([files / "model.qdq.onnx"], "cache", files / "new.cache")  # the same files once more


def test_opset_of_the_qdq_onnx(files, tmp_path):
    said([files / "encodings.json", files / "model.onnx"], "qdq_onnx", tmp_path / "a.onnx", opset=19)
    assert onnx_file.opset_of(onnx.load(tmp_path / "a.onnx")) == 19
    np.testing.assert_allclose(run(tmp_path / "a.onnx"), run(files / "model.qdq.onnx"), atol=1e-6)


def test_names_of_tensorflow_and_pytorch_become_plain_beside_a_cache(tmp_path):
    model, told = trained()
    names = {"image": "image:0", "stem_relu": "onnx::MaxPool_12", "probabilities": "probabilities:0"}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    model.graph.input[0].name, model.graph.output[0].name = "image:0", "probabilities:0"
    activations = {names.get(name, name): e for name, e in told.activations.items()}
    onnx_file.save(onnx_qdq.insert(model, Encodings("t", activations, told.weights)), tmp_path / "a.onnx")
    text = said([tmp_path / "a.onnx"], "cache", tmp_path / "b.cache")
    assert "image:0 -> image_0, onnx::MaxPool_12 -> onnx__MaxPool_12" in text
    assert [line.split(": ")[0] for line in lines(tmp_path / "b.cache")[1:3]] == ["image_0", "onnx__MaxPool_12"]
    clean = onnx_file.load(tmp_path / "b.onnx")
    assert [clean.graph.input[0].name, clean.graph.output[0].name] == ["image_0", "probabilities_0"]
    np.testing.assert_array_equal(run(clean), run(model))
