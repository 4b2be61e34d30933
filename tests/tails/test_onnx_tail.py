"""ONNX tail: cutting it off gives the raw file, and nothing else passes for it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from tfqat.tails import onnx_nms, tensorrt_nms
from tfqat.tails.onnx_tail import check_raw_part, raw_part
from tfqat.tails.tail import TailError

FORMATS = pytest.mark.parametrize("format", [onnx_nms, tensorrt_nms], ids=["onnx", "tensorrt"])


def made(files, format):
    raw = files.onnx(20, 3)
    raw.graph.output.insert(1, raw.graph.output[0])
    raw.graph.output[1].name = "logits_too"
    raw.graph.node.add(op_type="Identity", input=["codes"], output=["logits_too"], name="too")
    raw.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "unread"))
    raw.metadata_props.add(key="author", value="a user")
    return raw, format.with_nms(raw, files.tail(np.random.default_rng(0), 20))


@FORMATS
def test_cut_off_it_is_the_raw_file(files, format):
    raw, model = made(files, format)
    assert [info.name for info in model.graph.output][:2] == ["logits_too", "num_detections"]
    assert raw_part(model).SerializeToString(deterministic=True) == raw.SerializeToString(deterministic=True)
    check_raw_part(model, raw)


CHANGES = [
    ("node", lambda model: setattr(model.graph.node[0], "doc_string", "x"), "node 0, 'class_logits'"),
    ("constant", lambda model: setattr(model.graph.initializer[0], "raw_data", b"1234" * 3), "initializer 0, 'unread'"),
    (
        "more",
        lambda model: model.graph.node.add(op_type="Identity", input=["codes"], output=["x"], name="x"),
        "4 of node",
    ),
    ("metadata", lambda model: model.metadata_props.add(key="b", value="c"), "beside the graph"),
]


@FORMATS
@pytest.mark.parametrize(("change", "message"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_another_raw_part_is_told(files, format, change, message):
    raw, model = made(files, format)
    change(model)
    with pytest.raises(TailError, match=message):
        check_raw_part(model, raw)


@FORMATS
def test_a_raw_part_that_reads_the_tail_is_not_whole(files, format):
    _, model = made(files, format)
    model.graph.node[0].input[0] = "detections/codes0"
    with pytest.raises(TailError, match="Without its tail the model is not whole"):
        raw_part(model)


def test_a_lost_raw_output_is_told(files):
    _, model = made(files, onnx_nms)
    del model.graph.value_info[:]
    with pytest.raises(TailError, match="has no output box_regression and no output class_logits"):
        raw_part(model)


def test_a_file_without_a_tail_is_told(files):
    with pytest.raises(TailError, match="has no tail"):
        raw_part(files.onnx(20, 3))
