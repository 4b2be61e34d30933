"""EfficientNMS_TRT: the node as NVIDIA's plugin reads it, and its detections without the plugin."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tfqat.exporters import onnx_file
from tfqat.tails import onnx_nms, tensorrt_nms
from tfqat.tails.plugin_runner import PluginRunner
from tfqat.tails.tail import Tail, TailError
from tfqat.verification.runner import Runner

few = settings(deadline=None, max_examples=40)


def zeros(count, classes):
    return {"logits": np.zeros((1, count, classes), np.float32), "codes": np.zeros((1, count, 4), np.float32)}


@few
@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(1, 4),
    st.sampled_from([1, 2, "batch"]),
    st.sampled_from([0.0, 0.05, 0.3, 0.999]),
    st.sampled_from([0.2, 0.5]),
    st.sampled_from([1, 5, 100]),
)
def test_detections_are_numpys(files, seed, count, classes, batch, score, iou, most):
    generator = np.random.default_rng(seed)
    tail = files.tail(generator, count, score_threshold=score, iou_threshold=iou, max_detections=most)
    raw = files.raw_outputs(generator, 2 if batch == "batch" else batch, count, classes)
    model = tensorrt_nms.with_nms(files.onnx(count, classes, batch), tail)
    received = PluginRunner(model).run(raw)
    files.agree(received, files.expected(raw["logits"], raw["codes"], tail, files.decided))
    other = Runner(onnx_nms.with_nms(files.onnx(count, classes, batch), tail)).run(raw)
    assert {name: (v.shape, v.dtype) for name, v in received.items()} == {
        k: (v.shape, v.dtype) for k, v in other.items()
    }


def test_the_node_is_what_the_plugin_reads(files):
    """Names and types: EfficientNMSPlugin_PluginConfig.yaml; float32 and int32 are FLOAT and INT in ONNX."""
    tail = files.tail(np.random.default_rng(0), 20, score_threshold=0.25, iou_threshold=0.5, max_detections=7)
    model = tensorrt_nms.with_nms(files.onnx(20, 3), tail)
    node = model.graph.node[-1]
    assert (node.op_type, node.domain, list(node.input)) == (
        "EfficientNMS_TRT",
        "",
        ["detections/boxes", "class_logits"],
    )
    kinds = onnx.AttributeProto
    assert {a.name: (a.type, helper.get_attribute_value(a)) for a in node.attribute} == {
        "plugin_version": (kinds.STRING, b"1"),
        "score_threshold": (kinds.FLOAT, 0.25),
        "iou_threshold": (kinds.FLOAT, 0.5),
        "max_output_boxes": (kinds.INT, 7),
        "background_class": (kinds.INT, -1),
        "score_activation": (kinds.INT, 1),
        "class_agnostic": (kinds.INT, 0),
        "box_coding": (kinds.INT, 0),
    }
    told = {info.name: info.type.tensor_type for info in model.graph.output}
    assert list(told) == list(node.output)
    assert [
        (name, kind.elem_type, [d.dim_param or d.dim_value for d in kind.shape.dim]) for name, kind in told.items()
    ] == [
        ("num_detections", onnx.TensorProto.INT32, ["batch", 1]),
        ("detection_boxes", onnx.TensorProto.FLOAT, ["batch", 7, 4]),
        ("detection_scores", onnx.TensorProto.FLOAT, ["batch", 7]),
        ("detection_classes", onnx.TensorProto.INT32, ["batch", 7]),
    ]


def test_a_score_on_its_threshold_stays_and_an_overlap_goes(files):
    tail = Tail([[0, 0, 8, 8], [0, 0, 4, 8]], files.size, score_threshold=0.5, iou_threshold=0.5)
    found = PluginRunner(tensorrt_nms.with_nms(files.onnx(2, 1), tail)).run(zeros(2, 1))
    assert found["num_detections"].tolist() == [[1]]
    np.testing.assert_array_equal(found["detection_boxes"][0, 0], [0, 0, 8, 8])


def test_the_plugin_looks_at_the_highest_scores_only(files):
    """One class covers all places that the plugin looks at with one box; a lower one is not seen."""
    boxes = np.tile(np.array([[0, 0, 8, 8]]), (4097, 1))
    boxes[-1] += 20
    raw = zeros(4097, 1)
    raw["logits"][:] = 2
    raw["logits"][0, -1] = 1
    for count in (4097, 4096):
        values = {name: value[:, -count:] for name, value in raw.items()}
        model = tensorrt_nms.with_nms(files.onnx(count, 1), Tail(boxes[-count:], files.size))
        assert PluginRunner(model).run(values)["num_detections"].item() == (1 if count == 4097 else 2)


def test_files_are_read_again(files, tmp_path):
    model = tensorrt_nms.with_nms(files.onnx(20, 3), files.tail(np.random.default_rng(0), 20))
    path = onnx_file.save(model, tmp_path / "model.onnx")
    assert tensorrt_nms.load(path) == model
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TailError, match=r"model.onnx is not a whole ONNX model"):
        tensorrt_nms.load(path)


def _drop(model):
    del model.graph.node[-1]


def _attribute(model):
    next(a for a in model.graph.node[-1].attribute if a.name == "box_coding").i = 1


def _decoding(model):
    node = next(node for node in model.graph.node if node.name == "detections/middle")
    node.input[0] = "nowhere"


BROKEN = [
    ("no plugin", _drop, "has 0 nodes EfficientNMS_TRT; expected one"),
    ("attribute", _attribute, "expected the attributes.*'box_coding': 1"),
    ("decoding", _decoding, "The decoding is not whole"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_tail_is_told(files, change, message):
    model = tensorrt_nms.with_nms(files.onnx(20, 3), files.tail(np.random.default_rng(0), 20))
    change(model)
    with pytest.raises(TailError, match=message):
        PluginRunner(model)


REFUSED = [
    ({"score_threshold": 0.001}, "score_threshold: below 0.007.*received 0.001"),
    ({"max_detections": 5000}, "looks at 4096 scores.*received 5000"),
    ({"class_logits": "logit"}, "has no output logit"),
]


@pytest.mark.parametrize(("setting", "message"), REFUSED, ids=[next(iter(row[0])) for row in REFUSED])
def test_refused(files, setting, message):
    with pytest.raises(TailError, match=message):
        tensorrt_nms.with_nms(files.onnx(20, 3), files.tail(np.random.default_rng(0), 20, **setting))
