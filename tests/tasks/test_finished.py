"""Finished files as evaluation and inference open them: any number of images, whatever batch the file takes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tfqat.tails import onnx_nms, tensorrt_nms
from tfqat.tails.tail import Tail
from tfqat.tasks.detection.finished import open_finished

SHAPE = (128, 128, 3)
OPSET = 17


def raw_file(scenes, batch):
    """Logits and codes that grow with the image's mean."""
    outputs = scenes.saying([[((10, 12, 50, 47), 0, 0.6), ((60, 3, 121, 64), 2, 0.4)]], 3)
    names = ("box_regression", "class_logits")
    nodes = [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0)]
    nodes.append(helper.make_node("Reshape", ["mean", "shape"], ["grown"]))
    nodes += [helper.make_node("Add", ["grown", f"{name}_of"], [name]) for name in names]
    constants = [numpy_helper.from_array(array, f"{name}_of") for name, array in zip(names, outputs, strict=True)]
    constants.append(numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "shape"))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, *SHAPE])
    raw = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *array.shape[1:]])
        for name, array in zip(names, outputs, strict=True)
    ]
    graph = helper.make_graph(nodes, "raw", [image], raw, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


@pytest.mark.parametrize("form", [onnx_nms, tensorrt_nms], ids=["onnx", "tensorrt"])
def test_a_batch_of_its_own_is_filled_up(scenes, tmp_path, form):
    images = np.zeros((5, *SHAPE), np.float32) + np.linspace(0, 0.2, 5, dtype=np.float32)[:, None, None, None]
    found = []
    for batch in ("batch", 2):
        path = tmp_path / f"{batch}.onnx"
        onnx.save_model(form.with_nms(raw_file(scenes, batch), Tail(scenes.ANCHORS, scenes.SIZE)), path)
        found.append(open_finished(path, SHAPE).predict(images))
    any_batch, of_two = found
    assert any_batch[3].ravel().tolist() == [2] * 5
    for one, other in zip(any_batch, of_two, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-4)
