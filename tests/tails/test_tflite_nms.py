"""TFLite_Detection_PostProcess: in LiteRT's interpreter, against decoding and suppression in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from hypothesis import given, settings
from hypothesis import strategies as st

from tfqat.exporters.tflite_graph.flatbuffer import unpack
from tfqat.tails import tflite_nms
from tfqat.tails.tail import Tail, TailError
from tfqat.verification.runner import RunError
from tfqat.verification.tflite_runner import TfliteRunner

few = settings(deadline=None, max_examples=40)
SCALES = ((0.06, -10), (0.012, 5))


def pixels(found, size):
    """The op's outputs as the other formats give them."""
    assert {(value.dtype, value.shape[0]) for value in found.values()} == {(np.dtype(np.float32), 1)}
    return found | {
        "num_detections": found["num_detections"][:, None],
        "detection_boxes": found["detection_boxes"] * np.tile(np.asarray(size, np.float32), 2),
    }


@few
@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.05, 0.3, 0.999]),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from([1, 5, 100]),
)
def test_detections_are_numpys(files, seed, count, classes, score, iou, most):
    generator = np.random.default_rng(seed)
    tail = files.tail(generator, count, score_threshold=score, iou_threshold=iou, max_detections=most)
    raw = files.raw_outputs(generator, 1, count, classes)
    found = TfliteRunner(tflite_nms.with_nms(files.tflite(count, classes), tail)).run(raw)
    files.agree(pixels(found, files.size), files.expected(raw["logits"], raw["codes"], tail, files.decided))


@few
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_integers_are_dequantized_before(files, seed, count):
    generator = np.random.default_rng(seed)
    tail = files.tail(generator, count, score_threshold=0.1)
    # Of 256 steps each once, so that no two scores are equal.
    logits = generator.permutation(np.arange(-128, 128))[: 3 * count].reshape(1, count, 3)
    codes = generator.integers(-128, 128, (1, count, 4))
    given = {"logits": logits.astype(np.int8), "codes": codes.astype(np.int8)}
    real = [(v.astype(int) - z) * s for v, (s, z) in zip(given.values(), SCALES, strict=True)]
    found = TfliteRunner(tflite_nms.with_nms(files.tflite(count, 3, scales=SCALES), tail)).run_integers(given)
    files.agree(pixels(found, files.size), files.expected(*(v.astype(np.float32) for v in real), tail, files.decided))


def test_a_score_and_an_overlap_on_their_thresholds_stay(files):
    # A size of which normalized corners are exact.
    tail = Tail([[0, 0, 8, 8], [0, 0, 4, 8]], (64, 64), score_threshold=0.5, iou_threshold=0.5)
    runner = TfliteRunner(tflite_nms.with_nms(files.tflite(2, 1), tail))
    found = runner.run({"logits": np.zeros((1, 2, 1), np.float32), "codes": np.zeros((1, 2, 4), np.float32)})
    assert found["num_detections"].item() == 2


def test_the_raw_part_stands_before_the_tail(files):
    data = files.tflite(20, 3, scales=SCALES)
    made, raw = unpack(tflite_nms.with_nms(data, files.tail(np.random.default_rng(0), 20))), unpack(data)
    ours, theirs = made.subgraphs[0], raw.subgraphs[0]
    for one, other in zip(ours.operators, theirs.operators, strict=False):
        assert (list(one.inputs), list(one.outputs)) == (list(other.inputs), list(other.outputs))
    names = [tensor.name.decode() for tensor in ours.tensors]
    assert names[: len(theirs.tensors)] == [tensor.name.decode() for tensor in theirs.tensors]
    codes = [made.operatorCodes[op.opcodeIndex].builtinCode for op in ours.operators[len(theirs.operators) :]]
    builtin = schema.BuiltinOperator
    assert codes == [builtin.DEQUANTIZE, builtin.LOGISTIC, builtin.DEQUANTIZE, builtin.MINIMUM, builtin.CUSTOM]
    op = ours.operators[-1]
    assert made.operatorCodes[op.opcodeIndex].customCode == b"TFLite_Detection_PostProcess"
    assert flexbuffers.Loads(bytes(op.customOptions))["num_classes"] == 3
    assert [names[index] for index in ours.outputs] == [
        "detection_boxes",
        "detection_classes",
        "detection_scores",
        "num_detections",
    ]


REFUSED = [
    ("batch", {"batch": 2}, {}, "takes one image a run, received a batch of 2"),
    ("count", {"count": 21}, {}, r"expected the shape \(batch, 20, classes\).*received \(1, 21, 3\)"),
    ("name", {}, {"box_regression": "boxes"}, "has no output boxes; it has class_logits, box_regression"),
]


@pytest.mark.parametrize(("file", "names", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(files, file, names, message):
    tail = files.tail(np.random.default_rng(0), 20, **names)
    with pytest.raises(TailError, match=message):
        tflite_nms.with_nms(files.tflite(**{"count": 20, "classes": 3} | file), tail)


def test_no_tflite_file_is_told(files):
    with pytest.raises(TailError, match="8 bytes are no TFLite file"):
        tflite_nms.with_nms(b"12345678", files.tail(np.random.default_rng(0), 20))


def test_a_second_tail_is_refused(files):
    tail = files.tail(np.random.default_rng(0), 20)
    with pytest.raises(TailError, match="already"):
        tflite_nms.with_nms(tflite_nms.with_nms(files.tflite(20, 3), tail), tail)


def test_one_image_a_run(files):
    tail = files.tail(np.random.default_rng(0), 20)
    runner = TfliteRunner(tflite_nms.with_nms(files.tflite(20, 3), tail))
    with pytest.raises(RunError, match="resize dimension 0"):
        runner.run(files.raw_outputs(np.random.default_rng(0), 2, 20, 3))
