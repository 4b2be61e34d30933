"""ONNX NonMaxSuppression: in onnxruntime, against decoding and suppression in numpy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfqat.tails import onnx_nms
from tfqat.tails.onnx_tail import OLDEST_OPSET, check_raw_part
from tfqat.tails.tail import Tail, TailError
from tfqat.verification.runner import Runner

few = settings(deadline=None, max_examples=40)


@few
@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(1, 4),
    st.sampled_from([1, 2, 3, "batch"]),
    st.sampled_from([0.0, 0.05, 0.3, 0.9, 0.999]),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from([1, 5, 100]),
)
def test_detections_are_numpys(files, seed, count, classes, batch, score, iou, most):
    generator = np.random.default_rng(seed)
    tail = files.tail(generator, count, score_threshold=score, iou_threshold=iou, max_detections=most)
    raw = files.raw_outputs(generator, 2 if batch == "batch" else batch, count, classes)
    model = onnx_nms.with_nms(files.onnx(count, classes, batch), tail)
    told = files.expected(raw["logits"], raw["codes"], tail, files.decided)
    files.agree(Runner(model, optimize=bool(seed % 2)).run(raw), told)


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 16, 18, 21])
def test_opsets(files, opset):
    generator = np.random.default_rng(0)
    tail, raw = files.tail(generator, 20), files.raw_outputs(generator, 2, 20, 3)
    model = onnx_nms.with_nms(files.onnx(20, 3, opset=opset), tail)
    files.agree(Runner(model).run(raw), files.expected(raw["logits"], raw["codes"], tail))


def test_outputs_are_those_of_efficient_nms(files):
    runner = Runner(onnx_nms.with_nms(files.onnx(20, 3), files.tail(np.random.default_rng(0), 20)))
    found = runner.run(files.raw_outputs(np.random.default_rng(0), 2, 20, 3))
    assert {name: (value.shape, str(value.dtype)) for name, value in found.items()} == {
        "num_detections": ((2, 1), "int32"),
        "detection_boxes": ((2, 100, 4), "float32"),
        "detection_scores": ((2, 100), "float32"),
        "detection_classes": ((2, 100), "int32"),
    }


def test_of_equal_scores_the_earlier_anchor_is_first(files):
    tail = Tail([[0, 0, 8, 8], [20, 20, 28, 28]], files.size, max_detections=3)
    model = onnx_nms.with_nms(files.onnx(2, 2), tail)
    found = Runner(model).run({"logits": np.zeros((1, 2, 2), np.float32), "codes": np.zeros((1, 2, 4), np.float32)})
    np.testing.assert_array_equal(found["detection_boxes"][0], [[0, 0, 8, 8], [0, 0, 8, 8], [20, 20, 28, 28]])
    np.testing.assert_array_equal(found["detection_classes"][0], [0, 1, 0])


def test_a_score_and_an_overlap_on_their_thresholds_stay(files):
    # Two boxes, of which one is the half of the other: an overlap of 0.5; logits of 0: scores of 0.5.
    tail = Tail([[0, 0, 8, 8], [0, 0, 4, 8]], files.size, score_threshold=0.5, iou_threshold=0.5)
    model = onnx_nms.with_nms(files.onnx(2, 1), tail)
    found = Runner(model).run({"logits": np.zeros((1, 2, 1), np.float32), "codes": np.zeros((1, 2, 4), np.float32)})
    assert found["num_detections"].tolist() == [[2]]


def test_the_raw_part_is_the_raw_file(files):
    raw = files.onnx(20, 3)
    before = raw.SerializeToString()
    model = onnx_nms.with_nms(raw, files.tail(np.random.default_rng(0), 20))
    assert raw.SerializeToString() == before
    check_raw_part(model, raw)
    added = [node.name for node in model.graph.node[len(raw.graph.node) :]]
    added += [tensor.name for tensor in model.graph.initializer]
    assert added
    assert all(name.startswith("detections/") for name in added)


REFUSED = [
    ("name", {}, {"class_logits": "logit"}, "has no output logit; it has box_regression, class_logits"),
    ("both names", {}, {"class_logits": "a", "box_regression": "b"}, "no output a and no output b"),
    ("count", {"count": 21}, {}, r"expected the shape \(batch, 20, classes\).*20 anchors, received \(\?, 21, 3\)"),
    ("swapped", {}, {"class_logits": "box_regression", "box_regression": "class_logits"}, r"\(batch, 20, 4\)"),
    ("open", {"count": "anchors"}, {}, r"received \(\?, \?, 3\)"),
    ("opset", {"opset": 12}, {}, "opset 12.*13 or later.*NonMaxSuppression begins at 10"),
    ("half", {"kind": onnx.TensorProto.FLOAT16}, {}, "expected a float32 output, received FLOAT16"),
]


@pytest.mark.parametrize(("file", "names", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(files, file, names, message):
    tail = files.tail(np.random.default_rng(0), 20, **names)
    with pytest.raises(TailError, match=message):
        onnx_nms.with_nms(files.onnx(**{"count": 20, "classes": 3} | file), tail)


def test_a_second_tail_is_refused(files):
    tail = files.tail(np.random.default_rng(0), 20)
    model = onnx_nms.with_nms(files.onnx(20, 3), tail)
    with pytest.raises(TailError, match="has no output class_logits"):
        onnx_nms.with_nms(model, tail)


@pytest.mark.parametrize("name", ["num_detections", "detections/boxes"])
def test_names_that_are_taken(files, name):
    model = files.onnx(20, 3)
    model.graph.node.add(op_type="Identity", input=["codes"], output=[name], name="other")
    with pytest.raises(TailError, match=f"has {name} already"):
        onnx_nms.with_nms(model, files.tail(np.random.default_rng(0), 20))
