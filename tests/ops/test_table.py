"""docs/ops.md is what the code does: complete, up to date, and true of the files that are written."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tfqat
from tfqat.errors import TfqatError
from tfqat.rewrite.plan import plan_for

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("ops_script", ROOT / "scripts/ops.py")
script = sys.modules["ops_script"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)
EXAMPLES, LEFT_OUT = script.EXAMPLES, script.load("examples").LEFT_OUT
FIRST_WORDS = {example.name.split()[0].rstrip(",") for example in EXAMPLES}
SECTIONS = tuple(dict.fromkeys(example.section for example in EXAMPLES))
# A part of the examples is exported; the random models export them all.
EXPORTED = [example for example in EXAMPLES if example.onnx][::6]
TFLITE = EXAMPLES[3::9]


def over(examples):
    return pytest.mark.parametrize("example", examples, ids=lambda example: example.name)


def test_each_layer_of_keras_has_an_example():
    """An alias counts with its class."""
    classes = inspect.getmembers(keras.layers, inspect.isclass)
    known = {cls for name, cls in classes if name in FIRST_WORDS or name in LEFT_OUT}
    assert sorted(name for name, cls in classes if cls not in known) == []


def test_each_activation_of_keras_has_an_example():
    names = {name for name, _ in inspect.getmembers(keras.activations, inspect.isfunction)}
    assert sorted(names - {word.removeprefix("activations.") for word in FIRST_WORDS} - LEFT_OUT.keys()) == []


def test_nothing_is_both_an_example_and_left_out():
    assert not FIRST_WORDS & LEFT_OUT.keys()
    assert len({example.name for example in EXAMPLES}) == len(EXAMPLES)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_is_what_the_script_writes(section):
    """Where it is not: run `python scripts/ops.py` and read the difference.

    What it says of TFLite files is taken as given here, and tried on some below: writing them all takes minutes.
    """
    text = script.PAGE.read_text()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines()}
    lines = [
        script.line_of(example, lambda plan, row=rows[example.name]: script.NO_FILE not in row)
        for example in EXAMPLES
        if example.section == section
    ]
    assert script.table(section, lines) in text


def test_the_page_has_no_other_section():
    headings = [line[3:] for line in script.PAGE.read_text().splitlines() if line.startswith("## ")]
    assert headings == [*SECTIONS, script.NO_OPS]


@over([example for example in EXAMPLES if example.section in ("Training only", "Preprocessing at the input")])
def test_what_does_nothing_at_inference_is_said_to(example):
    plan = plan_for(script.model_around(example), "tensorrt")
    said = all(script.text_of(row) == "nothing at inference" for row in script.rows_of(plan))
    x = images_for(example)
    y = keras.tree.map_structure(keras.ops.convert_to_numpy, keras.Model(*io(example))(x, training=False))
    assert said == all(np.array_equal(a, b) for a, b in zip(keras.tree.flatten(y), x, strict=True))


def io(example):
    inputs = [keras.Input(shape, dtype=example.dtype) for shape in example.shapes]
    return inputs, example.make()(*inputs)


def images_for(example):
    rng, shapes = np.random.default_rng(0), [(4, *shape) for shape in example.shapes]
    if example.dtype == "int32":
        return [rng.integers(0, 8, shape).astype("int32") for shape in shapes]
    return [rng.normal(0, 1, shape).astype("float32") for shape in shapes]


def prepared(example, target):
    keras.utils.set_random_seed(0)
    model = script.model_around(example)
    qat = tfqat.prepare(model, target, relu6=())
    tfqat.calibrate(qat, [images_for(example)], method="minmax")
    return qat


@over(EXPORTED)
def test_int8_in_the_table_is_int8_in_the_file(example, tmp_path):
    """What is said to run on integers reads integers, and gives them, in the Q/DQ ONNX: looked up node by node."""
    qat = prepared(example, "tensorrt")
    rows = [row for row in qat.placement.rows if not script.is_around(row.op)]
    tfqat.export(qat, tmp_path, formats=["qdq_onnx"])
    file = _File(tmp_path / "model.qdq.onnx", [row.op for row in qat.placement.rows])
    for row in rows:
        before = {scale for node in file.of(row.op) for scale in file.scales_before(node)}
        behind = {scale for node in file.of(row.op) for scale in file.scales_behind(node)}
        if row.state in ("int8", "shared"):
            assert None not in before | behind, row.op
        if row.state == "shared":
            assert len(before | behind) <= 1, row.op
        if script.text_of(row) == "nothing at inference":
            assert not file.of(row.op)


@over([example for example in EXAMPLES if not example.onnx])
def test_what_has_no_onnx_form_is_refused_by_name(example, tmp_path):
    with pytest.raises(TfqatError, match="has no ONNX form"):
        tfqat.export(prepared(example, "tensorrt"), tmp_path, formats=["qdq_onnx"])


@over(TFLITE)
def test_what_has_a_tflite_file_has_one(example, tmp_path):
    plan = plan_for(script.model_around(example), "tflite", relu6=())
    qat = prepared(example, "tflite")
    if script.fits_tflite(plan):
        tfqat.export(qat, tmp_path, formats=["tflite"])
    else:
        with pytest.raises(TfqatError, match="cannot be written as a TFLite file"):
            tfqat.export(qat, tmp_path, formats=["tflite"])


class _File:
    """A Q/DQ ONNX: who makes each tensor, who reads it, and the scales of its pairs."""

    def __init__(self, path: Path, ops: list[str]) -> None:
        self.ops = sorted(ops, key=len)
        graph = onnx.load(path).graph
        self.nodes = list(graph.node)
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def of(self, op: str) -> list[onnx.NodeProto]:
        """The nodes that compute the op: those with its name before a slash, unless a part has that name."""
        nodes = [n for n in self.nodes if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]
        return [node for node in nodes if self._owner(node) == op]

    def _owner(self, node: onnx.NodeProto) -> str | None:
        owners = [op for op in self.ops if node.name == op or node.name.startswith(f"{op}/")]
        return owners[-1] if owners else None

    def scales_before(self, node: onnx.NodeProto) -> Iterator[float | None]:
        """The scale of each activation that the node's block reads, None for one that is not quantized."""
        for name in node.input:
            maker = self.makers.get(name)
            if not name or name in self.arrays or (maker is not None and self._is_kernel(maker)):
                continue
            if maker is None or maker.op_type == "DequantizeLinear":
                yield None if maker is None else self._scale(maker)
            else:
                yield from self.scales_before(maker)

    def scales_behind(self, node: onnx.NodeProto) -> Iterator[float | None]:
        """The scale that each reader behind the node's block reads it with, None where it goes on unquantized."""
        readers = [reader for name in node.output for reader in self.readers.get(name, [])]
        if not readers:
            yield None
        for reader in readers:
            if reader.op_type == "QuantizeLinear":
                yield self._scale(reader)
            else:
                yield from self.scales_behind(reader)

    def _is_kernel(self, maker: onnx.NodeProto) -> bool:
        """Whether a DequantizeLinear stands behind constants."""
        source = self.makers.get(maker.input[0])
        return maker.op_type == "DequantizeLinear" and (source is None or source.input[0] in self.arrays)

    def _scale(self, node: onnx.NodeProto) -> float:
        return float(self.arrays[node.input[1]])
