"""Random models of every op go through prepare, finalize and Q/DQ ONNX, and compute the same all the way.

A model that fails is built again by its number: ``random_model(number, EXAMPLES)``; `python scripts/ops.py --random 1
--start NUMBER` judges that one alone, and more of them in a longer run.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("ops_script", ROOT / "scripts/ops.py")
script = sys.modules.setdefault("ops_script", importlib.util.module_from_spec(_spec))
if not hasattr(script, "EXAMPLES"):
    _spec.loader.exec_module(script)
DRAWN = [example for example in script.EXAMPLES if example.random and example.onnx]
CHUNK = 10
# Each example comes first in one of them.
COUNT = max(200, len(DRAWN))


def summary(made):
    lines = []
    made.model.summary(print_fn=lambda text, line_break=True: lines.append(text), line_length=100)
    return "\n".join([*made.log, *lines])


@pytest.mark.parametrize("start", range(0, COUNT, CHUNK))
def test_a_random_model_computes_the_same_in_all_its_forms(start):
    failed = []
    for number in range(start, min(start + CHUNK, COUNT)):
        problems = script.load("random_check").check(number, script.EXAMPLES)
        if problems:
            made = script.load("random_models").random_model(number, script.EXAMPLES)
            failed.append("\n".join([f"random model {number}:", *problems, summary(made)]))
    assert not failed, "\n\n".join(failed)


def test_the_same_number_gives_the_same_model():
    first, second = (script.load("random_models").random_model(7, script.EXAMPLES) for _ in range(2))
    assert first.log == second.log
    assert all((first.inputs[name] == second.inputs[name]).all() for name in first.inputs)
    assert [w.shape for w in first.model.weights] == [w.shape for w in second.model.weights]
