"""Compare: runs a finalized model and its exported files on the same images and makes the Report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tfqat.errors import TfqatError
from tfqat.graph.feed import by_input
from tfqat.graph.graph import Graph
from tfqat.graph.run import run
from tfqat.verification.blocks import BlockScore
from tfqat.verification.files import Files, disagreements
from tfqat.verification.keras_values import KerasValues, centered_error, noise_error, values_of
from tfqat.verification.report import NOISE, NOISE_SEEDS, Report, Row
from tfqat.verification.stages import Opened, Stage, stages_of
from tfqat.verification.tally import Classes, Measured, Meter, Tally
from tfqat.view.view import view

# Images that are judged: as many as have this many values in all tensors, within bounds.
_JUDGED_ELEMENTS, _FEWEST, _MOST = 4e7, 4, 64
# Values of all tensors of the images that go through Keras at once, or whose blocks are judged; at least one image.
_HELD_ELEMENTS = 4e8

Inputs = dict[str, np.ndarray]  # Keras input -> array
Batch = tuple[Inputs, Any]  # and labels, or other targets, or None


@dataclass(frozen=True)
class _Trial:
    """A stage on its way through the data."""

    name: str
    opened: Opened
    tally: Tally


def compare(
    trained: keras.Model,
    final: keras.Model,
    files: Files,
    dataset: Any | None,
    class_output: int = 0,
    measure: tuple[str, Callable[[], Meter]] | None = None,
) -> Report:
    """The Report of the files against the trained model.

    Args:
        trained: the model that was trained (or ``final`` again): accuracy and classes are compared with it.
        final: its finalized form, whose tensors the blocks are judged against.
        files: the exported files.
        dataset: batches of inputs or of (inputs, targets); arrays; None for random inputs.
        class_output: which output has the classes, where the targets are integer labels.
        measure: a figure's name, and what makes its Meter, where the targets are something else.

    Raises:
        TfqatError: no file that can be run, files of another model, or data that do not fit it.
    """
    graph = view(final)
    stages = stages_of(files)
    if not stages:
        raise TfqatError(f"There is no file to run among {sorted(files.paths)}; export the model again.")
    tally: Callable[[], Tally] = (lambda: Measured(measure[1]())) if measure else (lambda: Classes(class_output))
    expected, trials = tally(), [_Trial(stage.name, _opened(stage, files, graph), tally()) for stage in stages]
    images = _gone_through(batches_of(dataset, graph), trained, graph, expected, trials)
    in_blocks, outputs = next(_parts(images, graph)), values_of(final, images, ()).outputs

    def row_of(trial: _Trial) -> Row:
        row = replace(trial.tally.row(trial.name, expected), judged=trial.opened.exact, note=trial.opened.note)
        values = values_of(final, in_blocks, trial.opened.tensors)
        error, blocks = _end_to_end(trial.opened, images, outputs), _blocks(trial, in_blocks, values)
        return replace(row, error=error, blocks=blocks)

    return Report(
        expected.row("QAT", expected),
        tuple(row_of(trial) for trial in trials),
        max(noise_error(final, images, NOISE, NOISE_SEEDS)),
        _count(images),
        _count(in_blocks),
        tuple(disagreements(files)),
        measure[0] if measure else "accuracy",
    )


def _gone_through(
    batches: Iterator[Batch], trained: keras.Model, graph: Graph, expected: Tally, trials: Sequence[_Trial]
) -> Inputs:
    """Tells the tallies what comes of each batch; returns the first images, which are judged.

    Once for all, since a data set may be shuffled anew each time, and no batch is held, since there may be many.
    """
    count, judged, call = _judged_count(graph), list[Inputs](), _caller(trained, graph)
    for inputs, targets in batches:
        expected.add(call(inputs), targets)
        for trial in trials:
            trial.tally.add(list(trial.opened.runner.run(_in_file(trial.opened, inputs)).values()), targets)
        if sum(map(_count, judged)) < count:
            judged.append(inputs)
    return {name: np.concatenate([inputs[name] for inputs in judged])[:count] for name in judged[0]}


def _opened(stage: Stage, files: Files, graph: Graph) -> Opened:
    """The stage's files, opened."""
    opened = stage.open(files)
    inputs, outputs = len(opened.runner.inputs), len(opened.runner.outputs)
    if (inputs, outputs) != (len(graph.inputs), len(graph.outputs)):
        raise TfqatError(
            f"{stage.name}: the files hold another model: {inputs} inputs and {outputs} outputs, where {graph.name!r} "
            f"has {len(graph.inputs)} and {len(graph.outputs)}; export it again."
        )
    return opened


def batches_of(dataset: Any | None, graph: Graph) -> Iterator[Batch]:
    """The batches of a dataset as (Keras input -> array, labels or None)."""
    if dataset is None:
        dataset = [random_inputs(graph)]
    elif isinstance(dataset, np.ndarray | Mapping) or _is_pair_of_arrays(dataset):
        dataset = [dataset]
    empty = True
    for batch in dataset:
        empty = False
        inputs, labels = _parted(batch, len(graph.inputs))
        targets = keras.tree.map_structure(np.asarray, labels)
        yield _typed(by_input(graph, inputs), graph), targets
    if empty:
        raise TfqatError("The data set to verify on has no batch; give one with at least one.")


def random_inputs(graph: Graph, images: int = 16) -> list[np.ndarray]:
    """Random inputs, in the model's order.

    Floats: 0 to 255 where the model rescales them itself, else -1 to 1. Integers: the numbers of a table that they are
    looked up in, else 0 and 1, as masks have them.
    """
    rng = np.random.default_rng(0)
    found = []
    for name in graph.inputs:
        shape = (images, *(size or 32 for size in graph.shapes[name][1:]))
        found.append(_random_values(graph, name, shape, rng).astype(graph.dtypes[name]))
    return found


def _random_values(graph: Graph, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    readers = graph.consumers(name)
    rescaled = any(op.kind in ("rescaling", "normalization") for op in readers)
    if rescaled or "float" in graph.dtypes[name]:
        return rng.uniform(*((0, 255) if rescaled else (-1, 1)), shape)
    sizes = [op.source.config.get("input_dim", 2) for op in readers if op.kind == "embedding"]
    return rng.integers(0, min(sizes, default=2), shape)


def _typed(inputs: Inputs, graph: Graph) -> Inputs:
    """The inputs in the types that the model reads, as Keras casts them; a file takes no other."""
    return {name: np.asarray(value).astype(graph.dtypes[name], copy=False) for name, value in inputs.items()}


def _is_pair_of_arrays(dataset: Any) -> bool:
    return isinstance(dataset, tuple) and len(dataset) == 2 and all(hasattr(part, "shape") for part in dataset)


def _parted(batch: Any, inputs: int) -> tuple[Any, Any]:
    """Inputs and labels of a batch; a pair is (inputs, labels) unless the model takes exactly these two arrays."""
    if not isinstance(batch, list | tuple):
        return batch, None
    if len(batch) == 1:
        return batch[0], None
    holds_inputs = inputs == 1 or isinstance(batch[0], list | tuple | Mapping)
    if isinstance(batch, tuple) and len(batch) in (2, 3) and holds_inputs:
        return batch[0], batch[1]
    return batch, None


def _caller(model: keras.Model, graph: Graph) -> Callable[[Inputs], list[np.ndarray]]:
    """A model made by tfqat as a function; op by op, since a call of the model itself holds all tensors to its end."""
    own = view(model)

    def call(inputs: Inputs) -> list[np.ndarray]:
        values = {
            name: keras.ops.convert_to_tensor(value) for name, value in zip(own.inputs, inputs.values(), strict=True)
        }
        found = run(own, values, keep=own.outputs)
        return [np.asarray(found[name]) for name in own.outputs]

    return lambda inputs: [np.concatenate(column) for column in zip(*map(call, _parts(inputs, graph)), strict=True)]


def _in_file(stage: Opened, inputs: Inputs) -> dict[str, np.ndarray]:
    """The inputs under the names that the file has for them; the order is the same."""
    return dict(zip(stage.runner.inputs, inputs.values(), strict=True))


def _parts(inputs: Inputs, graph: Graph) -> Iterator[Inputs]:
    """The inputs, so few images at once that all tensors have room; a model of a fixed batch takes them all."""
    fixed = any(graph.shapes[name][:1] != (None,) for name in graph.inputs)
    size = _count(inputs) if fixed else max(int(_HELD_ELEMENTS / _elements(graph)), 1)
    for start in range(0, _count(inputs), size):
        yield {name: value[start : start + size] for name, value in inputs.items()}


def _count(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def _judged_count(graph: Graph) -> int:
    return int(np.clip(_JUDGED_ELEMENTS / _elements(graph), _FEWEST, _MOST))


def _elements(graph: Graph) -> float:
    """Values in all tensors of one image."""
    return sum(float(np.prod([size or 1 for size in shape])) for shape in graph.shapes.values())


def _end_to_end(stage: Opened, inputs: Inputs, expected: Sequence[np.ndarray]) -> float:
    """The largest error of an output."""
    pairs = zip(stage.runner.run(_in_file(stage, inputs)).values(), expected, strict=True)
    return max(centered_error(a.astype(np.float64), b) for a, b in pairs)


def _blocks(trial: _Trial, inputs: Inputs, values: KerasValues) -> tuple[BlockScore, ...]:
    blocks = tuple(trial.opened.judge(values, _in_file(trial.opened, inputs)))
    if not blocks:
        raise TfqatError(
            f"{trial.name}: no quantized tensor of the file is one of the model's; the file was made of another model. "
            f"Export this one."
        )
    return blocks
