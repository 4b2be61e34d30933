"""What each target must be and do; a new file in targets/ is tested by existing."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import urllib.parse

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

import tfqat
from tfqat.exporters.registry import ALWAYS, FORMATS
from tfqat.graph.kinds import ACTIVATIONS, IDENTITY, KERNEL_AXES, OTHER_WEIGHTED, PREPROCESSING, kind_of
from tfqat.rewrite.plan import plan_for
from tfqat.rewrite.split import split
from tfqat.targets import load_target, summary, target_names

TARGETS = target_names()
ZOO = ("conv_net", "residual", "two_branches", "concat", "squeeze_excite", "nested", "separable", "bare_ops",
       "many_inputs", "subclassed", "unfoldable")  # fmt: skip
MADE = (
    "relu6 clipped_relu masked_softmax causal_mask up_sampling2d_smooth resizing resizing_smooth resize resize_smooth "
    "pad_filled"
)
CONSTANTS = "add subtract multiply divide maximum minimum power"


def known_kinds() -> set[str]:
    """The kinds of all layers and operations that Keras has, and those that tfqat tells apart itself."""
    operation = importlib.import_module("keras.src.ops.operation").Operation
    modules = [
        keras.layers,
        *(importlib.import_module(f"keras.src.ops.{name}") for name in ("numpy", "nn", "core", "image")),
    ]
    classes = [c for module in modules for _, c in inspect.getmembers(module, inspect.isclass)]
    kinds = {kind_of(c.__name__, {}, 2) for c in classes if issubclass(c, operation) and c.__name__ != "Activation"}
    tables = ACTIVATIONS | IDENTITY | PREPROCESSING | OTHER_WEIGHTED | set(KERNEL_AXES)
    return kinds | tables | set(MADE.split()) | {f"{name}_constant" for name in CONSTANTS.split()}


@pytest.fixture(params=TARGETS)
def target(request):
    return load_target(request.param)


def test_record(target):
    assert importlib.import_module(f"tfqat.targets.{target.name}").TARGET is target
    assert len(summary(target.name)) > 20
    for source in (target.source, *(block.source for block in target.blocks)):
        assert urllib.parse.urlsplit(source).scheme == "https"
    assert target.exporters
    assert set(target.exporters) <= FORMATS.keys()
    assert target.config is None


def test_kinds(target):
    groups = {"weighted": target.weighted, "own": target.own_range, "shared": target.shared_range,
              "tied": target.tied_range}  # fmt: skip
    for name, kinds in groups.items():
        assert not kinds - known_kinds(), name
        for other, more in groups.items():
            assert name == other or not kinds & more, (name, other)
    assert target.weighted <= set(KERNEL_AXES)
    assert target.per_tensor | target.weight_of.keys() <= target.weighted
    for block in target.blocks:
        assert not block.steps[0].optional
        assert not set().union(*(step.kinds for step in block.steps)) - known_kinds()
    for low, high in target.fixed_range.values():
        assert low < high
    if target.activation_choices:
        assert target.activation in target.activation_choices.values()


@pytest.mark.parametrize("model", ZOO)
def test_the_law_of_placement(target, model, zoo):
    """Each op in one row; Quantizers on tensors that exist; INT8 ops read integers; the rest says why."""
    planned = plan_for(zoo.MODELS[model](), target)
    graph, plan = planned.graph, planned.placement
    assert [row.op for row in plan.rows] == [op.name for op in graph.ops]
    assert all(row.reason for row in plan.rows if row.state != "int8")
    tensors = {*graph.inputs, *(tensor for op in graph.ops for tensor in op.outputs)}
    assert set(plan.activations) | set(plan.observed) | set(plan.groups) <= tensors
    assert set(plan.groups) | set(plan.fixed) <= set(plan.activations)
    grid = set(plan.activations)
    for op in graph.ops:
        if op.name in plan.shared_ops:
            assert not set(op.outputs) & set(plan.activations), op.name
            if grid.issuperset(op.inputs):
                grid.update(op.outputs)
    for op in graph.ops:
        if op.name in plan.weights:
            assert grid.issuperset(op.inputs), op.name
            assert plan.weights[op.name] == target.weight_scheme(op.kind)
    outputs = [graph.producer(tensor) for tensor in graph.outputs]
    float_ends = [op.name not in plan.weights for op in outputs if op is not None and op.kind in target.weighted]
    assert all(float_ends) if target.float_outputs else set(graph.outputs) <= grid


def net():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = short = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    x = keras.layers.BatchNormalization(name="bn")(keras.layers.Conv2D(4, 3, padding="same", name="conv")(x))
    x = keras.layers.ReLU(name="relu")(keras.layers.Add(name="join")([short, x]))
    x = keras.layers.GlobalAveragePooling2D(name="mean")(keras.layers.MaxPooling2D(name="pool")(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x))


def _open_onnx(path, images):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def _open_tflite(path, images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(taken["index"], images.shape)
    interpreter.allocate_tensors()
    scale, zero = taken["quantization"]
    limits = np.iinfo(taken["dtype"])
    integers = np.clip(np.rint(images / scale) + zero, limits.min, limits.max).astype(taken["dtype"])
    interpreter.set_tensor(taken["index"], integers)
    interpreter.invoke()
    scale, zero = given["quantization"]
    return (interpreter.get_tensor(given["index"]).astype(np.float32) - zero) * scale


def _open_cache(path, images):
    header, *lines = path.read_text().splitlines()
    assert re.fullmatch(r"TRT-\d+-EntropyCalibration2", header)
    assert all(re.fullmatch(r"[^:]+: [0-9a-f]{8}", line) for line in lines)
    assert lines


def _open_json(path, images):
    assert json.loads(path.read_text())


def _open_text(path, images):
    assert re.fullmatch(r"([^:,\s]+:fp(32|16)(,[^:,\s]+:fp(32|16))*)?\s*", path.read_text())


# Role -> how another program opens the file; those that run give scores.
OPENERS = {
    "onnx": _open_onnx,
    "qdq_onnx": _open_onnx,
    "tflite": _open_tflite,
    "cache": _open_cache,
    "layer_precisions": _open_text,
    "aimet": _open_json,
    "encodings": _open_json,
    "manifest": _open_json,
}


@pytest.mark.parametrize("name", TARGETS)
def test_every_format_is_written_and_opened(name, tmp_path):
    keras.utils.set_random_seed(3)
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    model = tfqat.prepare(net(), target=name)
    tfqat.calibrate(model, images, method="minmax")
    final = tfqat.finalize(model)
    plain, learnt = split(final)
    assert set(learnt.weights) == set(final.placement.weights)
    assert learnt.target == name
    expected = keras.ops.convert_to_numpy(final(images))
    # Of a float output layer only the order of additions may differ; an INT8 one may move by a step.
    near = 0.02 * np.ptp(expected)
    for form in load_target(name).exporters:
        files = tfqat.export(final, tmp_path / form, formats=[form], calibration=images)
        asked = FORMATS[form].on_request or {}
        assert set(files) == (FORMATS[form].files.keys() | ALWAYS.keys()) - asked.keys()
        for role, path in files.items():
            scores = OPENERS[role](path, images)
            if role in ("qdq_onnx", "tflite"):
                assert np.abs(scores - expected).max() <= near, (form, role)
    assert plain.output_shape == final.output_shape
