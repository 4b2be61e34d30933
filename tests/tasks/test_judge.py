"""Finished files held against what an export makes of their raw files, whatever their figures."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tfqat.tails.tail import Tail
from tfqat.tasks.detection.decoder import Decoder
from tfqat.tasks.detection.finish import FORMS, finish
from tfqat.tasks.detection.judge import judged

SHAPE = (128, 128, 3)


class Meter:
    """One that sees no difference."""

    def add(self, outputs, targets):
        pass

    def figure(self):
        return 0.5


def write_raw(path, outputs):
    """Outputs that do not depend on the image."""
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["largest"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["largest", "nothing"], ["none"]),
        helper.make_node("Reshape", ["none", "shape"], ["zero"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "shape"),
        numpy_helper.from_array(np.float32(0), "nothing"),
    ]
    raw = []
    for name, array in outputs.items():
        nodes.append(helper.make_node("Add", ["zero", f"{name}_of"], [name]))
        constants.append(numpy_helper.from_array(array, f"{name}_of"))
        raw.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *array.shape[1:]]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *SHAPE])
    graph = helper.make_graph(nodes, "raw", [image], raw, constants)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def exported(scenes, tmp_path):
    """The roles of Q/DQ files with tails, and the tail."""
    outputs = scenes.saying([[((10, 12, 50, 47), 0, 0.6)]], 3)
    write_raw(tmp_path / "model.qdq.onnx", dict(zip(("box_regression", "class_logits"), outputs, strict=True)))
    tail = Tail(scenes.ANCHORS, scenes.SIZE)
    files = {"qdq_onnx": ("model.qdq.onnx", ""), "cache": ("model.cache", "")}
    files |= finish(tmp_path, files, tail)
    paths = {role: tmp_path / name for role, (name, _) in files.items()}
    assert {form.role for form in FORMS if form.role in paths} == {"efficientnms_qdq_onnx", "nms_qdq_onnx"}
    return paths, tail


def problems(paths, tail):
    data = SimpleNamespace(input_shape=SHAPE, validation=[(np.zeros((2, *SHAPE), np.float32), None)])
    decoder = Decoder(tail.anchors, tail.iou_threshold, tail.score_threshold, tail.max_detections)
    found = judged(paths, data, decoder, tail, lambda _: Meter())
    return {row.role: row.problem for row in found}


def test_what_an_export_wrote_holds(exported):
    assert set(problems(*exported).values()) == {""}


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("efficientnms_qdq_onnx", "iou_threshold"),
        ("efficientnms_qdq_onnx", "score_threshold"),
        ("nms_qdq_onnx", "iou_threshold"),
        ("nms_qdq_onnx", "score_threshold"),
        ("nms_qdq_onnx", "sizes"),
    ],
)
def test_a_changed_tail_is_found_where_the_figures_agree(exported, role, name):
    paths, tail = exported
    model = onnx.load_model_from_string(paths[role].read_bytes())
    places = [entry for node in model.graph.node for entry in node.attribute if entry.name == name]
    for entry in places:
        entry.f = 0.75
    for constant in model.graph.initializer:
        if constant.name.startswith("detections/") and constant.name.endswith(name):
            places.append(constant)
            constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant) * np.float32(1.5), constant.name))
    assert len(places) == 1
    paths[role].write_bytes(model.SerializeToString())
    found = problems(paths, tail)
    assert "decoding or suppression is not the spec's" in found.pop(role)
    assert set(found.values()) == {""}


def test_the_files_of_other_settings_are_found(exported):
    paths, tail = exported
    found = problems(paths, replace(tail, max_detections=7))
    assert all("max_detections" in problem for problem in found.values())
