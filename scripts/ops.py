"""Writes docs/ops.md: what each target does with each op of Keras, read off the placement of a small model around it.

python scripts/ops.py                          # writes the page
python scripts/ops.py --random 2000 --start 0  # judges that many random models instead; prints what fails
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from keras import layers

from tfqat.errors import TfqatError
from tfqat.exporters.tflite_graph.build import TfliteError, build
from tfqat.graph.kinds import IDENTITY
from tfqat.graph.rows import Row
from tfqat.rewrite.model import range_layers
from tfqat.rewrite.plan import Plan, plan_for
from tfqat.rewrite.prepare import quantize
from tfqat.rewrite.split import split
from tfqat.view.view import view

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/ops.md"
TARGETS = ("tensorrt", "tensorrt_dla", "sima", "tflite")
# Names of the layers around the op.
BEFORE, AFTER, FLAT, HEAD = "before", "after", "flat", "head"
AROUND = (BEFORE, AFTER, FLAT, HEAD)
SAME_AS_FIRST = "as tensorrt"
NO_FILE = "no TFLite file"
NO_OPS = "Layers of Keras that are no op of a model here"
HEADER = """# What each target does with each op

Written by `python scripts/ops.py`; a test compares it with the code. Each op was placed in a small model: between two
convolutions where it reads an image, else between two Dense layers; behind the input where it prepares data.
Activations are as they are here: by default `prepare` also turns ReLU, LeakyReLU, PReLU and ELU into ReLU6.

| it says | which means |
|---|---|
| int8, own range | runs on integers; its output has a scale of its own |
| int8, fused with, fused into | one kernel of the device: nothing is rounded inside, the output of all has the scale |
| int8, range of its input | passes integers on; input and output have one scale |
| int8, rounded to the range of its input | computes new values on its input's scale |
| float | computes in floating point, and why (`tfqat inspect` says so of your model); its neighbours stay int8 |
| nothing at inference | is there in training, gone from the finalized model |
| no TFLite file | such files hold integers only: a model with this op is refused at export, and the error names it |
| no ONNX form | it trains, but a model with it cannot be exported: the error names it |
"""


def load(name: str) -> ModuleType:
    """A module of tests/ops, the same one whoever asks."""
    key = f"tfqat_ops_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, ROOT / f"tests/ops/{name}.py")
        sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[key])
    return sys.modules[key]


EXAMPLES = load("examples").EXAMPLES


@dataclass(frozen=True)
class Line:
    """One line of the table: an op's name, its heading, and what each target does with it."""

    name: str
    section: str
    cells: tuple[str, ...]


def model_around(example: Any) -> keras.Model:
    """The op between layers that every target quantizes; a Dense head ends the model."""
    inputs = [keras.Input(s, dtype=example.dtype, name=f"input{i}") for i, s in enumerate(example.shapes)]
    tensors = inputs if example.first else [_weighted(f"{BEFORE}{i}", x.shape[-1], x) for i, x in enumerate(inputs)]
    outputs = []
    for i, x in enumerate(keras.tree.flatten(example.make()(*tensors))):
        x = layers.Flatten(name=f"{FLAT}{i}")(_weighted(f"{AFTER}{i}", 4, x))
        outputs.append(layers.Dense(2, name=f"{HEAD}{i}")(x))
    return keras.Model(inputs, outputs)


def _weighted(name: str, channels: int, x: Any) -> Any:
    """A convolution of an image, else a Dense layer."""
    if len(x.shape) == 4:
        return layers.Conv2D(channels, 3, padding="same", name=name)(x)
    return layers.Dense(channels, name=name)(x)


def line_of(example: Any, fits: Callable[[Plan], bool] | None = None) -> Line:
    """The example's line of the table; ``fits`` says whether a TFLite file can be written (``fits_tflite``)."""
    keras.backend.clear_session()
    model = model_around(example)
    cells = [cell(example, plan_for(model, target, relu6=()), fits or fits_tflite) for target in TARGETS]
    return Line(example.name, example.section, (cells[0], *(SAME_AS_FIRST if c == cells[0] else c for c in cells[1:])))


def cell(example: Any, plan: Plan, fits: Callable[[Plan], bool]) -> str:
    """What the target does with the op."""
    kinds: dict[str, list[str]] = {}
    for row in rows_of(plan):
        kinds.setdefault(text_of(row), []).append(row.kind)
    parts = [text if len(kinds) == 1 else f"{_counted(names)}: {text}" for text, names in kinds.items()]
    if not example.onnx:
        parts.append("**no ONNX form**")
    elif plan.placement.target == "tflite" and not fits(plan):
        parts.append(f"**{NO_FILE}**")
    return "<br>".join(parts)


def rows_of(plan: Plan) -> list[Row]:
    """The rows of the op itself."""
    return [row for row in plan.placement.rows if not is_around(row.op)]


def is_around(name: str) -> bool:
    """Whether the op of that name is one of the layers around."""
    return name.split("/")[0].rstrip("0123456789") in AROUND


def text_of(row: Row) -> str:
    """One row in a few words."""
    if row.kind in IDENTITY:
        return "nothing at inference"
    if row.state == "shared":
        return "int8, range of its input"
    if row.reason.startswith("fused into"):
        head = row.reason.removeprefix("fused into ")
        into = "the layer before" if is_around(head) else "the part before"
        return f"{row.state}, fused into {into}"
    if row.state == "int8":
        return f"int8, {row.reason}"
    known = " has no INT8 form of "
    return "float: no INT8 form" if known in row.reason else f"float: {row.reason}"


def _counted(kinds: Sequence[str]) -> str:
    distinct = {kind: kinds.count(kind) for kind in kinds}
    return ", ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in distinct.items())


def fits_tflite(plan: Plan) -> bool:
    """Whether a TFLite file can be written; tried where nothing is left float, with ranges that do not matter here."""
    if any(row.state == "float" and row.kind not in IDENTITY for row in plan.placement.rows):
        return False
    qat = quantize(plan.graph, plan.placement)
    for layer in range_layers(qat):
        if layer.fixed_range is None:
            layer.set_range([1.0] * layer.extent.shape[0])
    plain, learnt = split(qat)
    try:
        build(view(plain), learnt)
    except TfliteError:
        return False
    return True


def page(lines: Sequence[Line]) -> str:
    """The whole page."""
    sections = dict.fromkeys(line.section for line in lines)
    tables = [table(section, [line for line in lines if line.section == section]) for section in sections]
    return "\n".join([HEADER, *tables, _left_out()])


def table(section: str, lines: Sequence[Line]) -> str:
    """One section of the page."""
    head = [f"## {section}", "", f"| op | {' | '.join(TARGETS)} |", "|---" * (1 + len(TARGETS)) + "|"]
    return "\n".join([*head, *(f"| {line.name} | {' | '.join(line.cells)} |" for line in lines), ""])


def _left_out() -> str:
    left = load("examples").LEFT_OUT
    rows = [f"| {name} | {reason} |" for name, reason in sorted(left.items()) if hasattr(layers, name)]
    return "\n".join([f"## {NO_OPS}", "", "| layer | why |", "|---|---|", *rows, ""])


def failures(numbers: Sequence[int]) -> Iterator[tuple[int, str]]:
    """The random models of these numbers that fail, and how."""
    check = load("random_check").check
    for number in numbers:
        try:
            problems = check(number, EXAMPLES)
        except (TfqatError, ValueError, TypeError, AttributeError) as error:
            problems = [f"{type(error).__name__}: {error}"]
        if problems:
            yield number, "\n".join(problems)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=0, help="how many random models to judge")
    parser.add_argument("--start", type=int, default=0, help="number of the first one")
    given = parser.parse_args()
    if not given.random:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page([line_of(example) for example in EXAMPLES]))
        print(f"{PAGE}: {len(EXAMPLES)} ops")
        return
    count = 0
    for number, text in failures(range(given.start, given.start + given.random)):
        count += 1
        print(f"random model {number}: {text}", flush=True)
    print(f"{given.random} random models from {given.start} on, {count} failed")


if __name__ == "__main__":
    main()
