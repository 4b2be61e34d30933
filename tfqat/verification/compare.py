"""Compare: runs a finalized model and its exported files on the same images and makes the Report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import keras
import numpy as np

from tfqat.errors import TfqatError
from tfqat.graph.feed import by_input
from tfqat.graph.graph import Graph
from tfqat.verification.files import Files, disagreements
from tfqat.verification.keras_values import KerasValues, centered_error, noise_error, values_of
from tfqat.verification.report import NOISE, NOISE_SEEDS, Report, Row, top1
from tfqat.verification.stages import Opened, Stage, stages_of
from tfqat.view.view import view

# Values of all tensors of the judged images are held in memory at once.
_JUDGED_ELEMENTS, _FEWEST, _MOST = 4e7, 4, 64

Inputs = dict[str, np.ndarray]  # Keras input -> array
Batch = tuple[Inputs, Any]  # and labels, or other targets, or None

# Name, the outputs of a stage and those of the trained model -> the row.
_Rows = Callable[[str, list[np.ndarray], list[np.ndarray]], Row]


class Meter(Protocol):
    """Gathers what a model says of a data set, batch by batch, and measures it."""

    def add(self, outputs: Sequence[np.ndarray], targets: Any) -> None:
        """Adds one batch: what the model gave, and what the data set wants."""
        ...

    def figure(self) -> float:
        """The figure over all that was added, 0 to 1."""
        ...


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
    batches = list(batches_of(dataset, graph))
    expected = _predict(lambda inputs: _call(trained, graph, inputs), batches)
    rowed = _measured(measure[1], batches) if measure else _classified(_labels(batches), class_output)
    judged = _first(batches, _judged_count(graph))
    values, noise = values_of(final, judged), max(noise_error(final, judged, NOISE, NOISE_SEEDS))

    def row_of(stage: Stage) -> Row:
        # Opened here, so that one large model at a time is in memory.
        opened = _opened(stage, files, graph)
        row = rowed(stage.name, _predict(_by_order(opened), batches), expected)
        return _judged(row, opened, judged, values)

    return Report(
        rowed("QAT", expected, expected),
        tuple(row_of(stage) for stage in stages),
        noise,
        len(next(iter(judged.values()))),
        tuple(disagreements(files)),
        measure[0] if measure else "accuracy",
    )


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


def _call(model: keras.Model, graph: Graph, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    values = [keras.ops.convert_to_tensor(value) for value in inputs.values()]
    structured = keras.tree.map_structure(lambda ref: values[ref.index], graph.input_structure)
    outputs = model(structured, training=False)
    return [np.asarray(value) for value in keras.tree.flatten(outputs)]


def _by_order(stage: Opened) -> Callable[[Inputs], list[np.ndarray]]:
    return lambda inputs: list(stage.runner.run(_in_file(stage, inputs)).values())


def _in_file(stage: Opened, inputs: Inputs) -> dict[str, np.ndarray]:
    """The inputs under the names that the file has for them; the order is the same."""
    return dict(zip(stage.runner.inputs, inputs.values(), strict=True))


def _predict(call: Callable[[Inputs], list[np.ndarray]], batches: Iterable[Batch]) -> list[np.ndarray]:
    columns = zip(*(call(inputs) for inputs, _ in batches), strict=True)
    return [np.concatenate(column) for column in columns]


def _labels(batches: Sequence[Batch]) -> np.ndarray | None:
    labels = [label for _, label in batches if isinstance(label, np.ndarray)]
    if len(labels) != len(batches) or any(not np.issubdtype(label.dtype, np.integer) for label in labels):
        return None
    return np.concatenate([label.reshape(len(label), -1)[:, 0] if label.ndim == 2 else label for label in labels])


def _measured(meter: Callable[[], Meter], batches: Sequence[Batch]) -> _Rows:
    """Rows of outputs that a Meter measures."""

    def row(name: str, outputs: list[np.ndarray], _: list[np.ndarray]) -> Row:
        gathered, start = meter(), 0
        for inputs, targets in batches:
            end = start + len(next(iter(inputs.values())))
            gathered.add([output[start:end] for output in outputs], targets)
            start = end
        return Row(name, len(outputs[0]), measured=gathered.figure())

    return row


def _classified(labels: np.ndarray | None, class_output: int) -> _Rows:
    """Rows of outputs that are classes, if they are."""
    return lambda name, outputs, expected: _row(name, outputs, expected, labels, class_output)


def _row(
    name: str, outputs: list[np.ndarray], expected: list[np.ndarray], labels: np.ndarray | None, class_output: int
) -> Row:
    found, wanted = top1(outputs[class_output]), top1(expected[class_output])
    images = len(outputs[0])
    if found is None or wanted is None:
        return Row(name, images)
    flat = found.reshape(images, -1)
    agreeing = int((flat == wanted.reshape(images, -1)).mean(axis=1).sum().round())
    fits = labels is not None and labels.shape == found.shape
    return Row(name, images, int((found == labels).sum()) if fits and found.ndim == 1 else None, agreeing)


def _first(batches: Sequence[Batch], count: int) -> Inputs:
    joined = {name: [inputs[name] for inputs, _ in batches] for name in batches[0][0]}
    return {name: np.concatenate(parts)[:count] for name, parts in joined.items()}


def _judged_count(graph: Graph) -> int:
    per_image = sum(float(np.prod([size or 1 for size in shape])) for shape in graph.shapes.values())
    return int(np.clip(_JUDGED_ELEMENTS / per_image, _FEWEST, _MOST))


def _judged(row: Row, stage: Opened, inputs: Inputs, values: KerasValues) -> Row:
    """The row with the two parity judges' findings."""
    given = _in_file(stage, inputs)
    pairs = zip(stage.runner.run(given).values(), values.outputs, strict=True)
    error = max(centered_error(a.astype(np.float64), b) for a, b in pairs)
    blocks = tuple(stage.judge(values, given))
    if not blocks:
        raise TfqatError(
            f"{row.name}: no quantized tensor of the file is one of the model's; the file was made of another model. "
            f"Export this one."
        )
    return replace(row, error=error, judged=stage.exact, blocks=blocks, note=stage.note)
