"""A small EfficientDet, exported, gets its tails: each file gives what numpy makes of the raw file's own outputs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import tfqat
from tfqat.detection.anchors import anchor_boxes
from tfqat.exporters import onnx_file
from tfqat.models.efficientdet.model import efficientdet
from tfqat.tails import onnx_nms, tensorrt_nms, tflite_nms
from tfqat.tails.onnx_tail import check_raw_part
from tfqat.tails.plugin_runner import PluginRunner
from tfqat.tails.tail import Tail
from tfqat.verification.runner import Runner
from tfqat.verification.tflite_runner import TfliteRunner

SIZE, FOUND, MOST = (128, 128), 100, 2000


def detector():
    """Its last layers tell anchors and images apart."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((*SIZE, 3), name="image")
    x = layers.Rescaling(1 / 255, name="scale")(x)
    for number, width in enumerate((4, 4, 8, 12, 16), 1):
        x = layers.Conv2D(width, 3, 2, padding="same", activation="relu6", name=f"conv{number}")(x)
    model = efficientdet(
        "efficientdet_d0", (*SIZE, 3), 3, "relu6", keras.Model(image, x), width=8, depth=1, head_depth=1
    )
    for name, factor in (("class_last", 30), ("box_last", 3)):
        kernel = model.get_layer(name).pointwise_kernel
        kernel.assign(factor * kernel)
    return model


def images():
    return np.random.default_rng(0).uniform(0, 255, (2, *SIZE, 3)).astype(np.float32)


def exported(target, folder):
    qat = tfqat.prepare(detector(), target, relu6=())
    tfqat.calibrate(qat, [images()])
    return tfqat.export(qat, folder)


def tail_for(logits):
    """A threshold that some FOUND scores of an image pass, half way between two scores."""
    scores = np.unique(1 / (1 + np.exp(-logits.astype(np.float64))))[::-1]
    place = next(
        n for n, score in enumerate(scores) if (1 / (1 + np.exp(-logits)) >= score).sum() >= FOUND * len(logits)
    )
    between = float(scores[place] + scores[place + 1]) / 2
    return Tail(anchor_boxes(SIZE), SIZE, score_threshold=between, max_detections=MOST)


def assert_telling(told, logits, tail):
    """Some scores are too low, some boxes go, some stay, and all that stay have a place."""
    enough = (1 / (1 + np.exp(-logits)) >= tail.score_threshold).sum(axis=(1, 2))
    counts = told["num_detections"][:, 0]
    assert ((counts > 20) & (counts < enough) & (counts < MOST) & (enough < logits[0].size)).all(), (counts, enough)


def by_value(found):
    """The detections of an image sorted by all that they are: integers have equal scores, in any order."""
    count = int(np.ravel(found["num_detections"])[0])
    columns = [found["detection_classes"][0, :count, None], found["detection_boxes"][0, :count]]
    rows = np.concatenate([found["detection_scores"][0, :count, None], *columns], axis=1).astype(np.float64)
    return rows[np.lexsort(np.round(rows.T[::-1], 2))]


@pytest.fixture(scope="module")
def tensorrt(tmp_path_factory):
    return exported("tensorrt", tmp_path_factory.mktemp("tensorrt"))


@pytest.mark.parametrize("role", ["onnx", "qdq_onnx"])
def test_onnx_files(files, tensorrt, role):
    raw = onnx_file.load(tensorrt[role])
    outputs = Runner(raw).run({"image": images()})
    tail = tail_for(outputs["class_logits"])
    told = files.expected(outputs["class_logits"], outputs["box_regression"], tail)
    assert_telling(told, outputs["class_logits"], tail)
    for format, runner in ((onnx_nms, Runner), (tensorrt_nms, PluginRunner)):
        made = format.with_nms(raw, tail)
        check_raw_part(made, raw)
        files.agree(runner(made).run({"image": images()}), told)


def test_tflite(files, tmp_path):
    data = exported("tflite", tmp_path)["tflite"].read_bytes()
    image = images()[:1]
    outputs = TfliteRunner(data).run({"image": image})
    tail = tail_for(outputs["class_logits"])
    told = files.expected(outputs["class_logits"], outputs["box_regression"], tail)
    made = tflite_nms.with_nms(data, tail)
    found = TfliteRunner(made).run({"image": image})
    assert Interpreter(model_content=made).get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": sorted(found)}
    }
    found["detection_boxes"] = found["detection_boxes"] * 128
    assert_telling(told, outputs["class_logits"], tail)
    np.testing.assert_allclose(by_value(found), by_value(told), rtol=1e-4, atol=1e-3)
