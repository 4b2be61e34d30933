"""Random check: what must hold of every random model, from prepare to Q/DQ ONNX; sentences about what does not."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import tfqat
from tfqat.graph.build import build
from tfqat.rewrite.split import without_quantizers
from tfqat.view.view import view

# Every fifth model is for sima, every fifth for tflite.
TARGETS = ("tensorrt", "tensorrt", "sima", "tensorrt", "tflite")


def _sibling(name: str) -> ModuleType:
    key = f"tfqat_ops_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, Path(__file__).with_name(f"{name}.py"))
        sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[key])
    return sys.modules[key]


judges, random_models = _sibling("judges"), _sibling("random_models")


def check(number: int, examples: Sequence[Any]) -> list[str]:
    """What is wrong with the random model of that number; none where all holds."""
    made = random_models.random_model(number, examples)
    target = TARGETS[number % len(TARGETS)]
    qat = tfqat.prepare(made.model, target, relu6=())
    inputs = list(made.inputs.values())
    unquantized = build(without_quantizers(view(qat)))
    found, expected = unquantized(inputs, training=False), made.model(inputs, training=False)
    problems = [f"quantizers off: {line}" for line in judges.differences(found, expected)]
    if number % 2:
        qat = tfqat.prepare(made.model, target)
    tfqat.calibrate(qat, [inputs], method="mse" if number % 3 else "minmax")
    final = tfqat.finalize(qat)
    scores, differing = judges.finalized_blocks(qat, final, made.inputs)
    problems += [f"finalized: {line}" for line in (*judges.failed(scores), *differing)]
    problems += [f"Q/DQ ONNX: {line}" for line in judges.onnx_problems(final, made.inputs)]
    return [f"{target}: {line} (model of {', '.join(made.log)})" for line in problems]
