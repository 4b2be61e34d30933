"""Compare: runs a finalized model and its exported files on the same images and makes the Report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfqat.errors import TfqatError
from tfqat.graph.graph import Graph
from tfqat.graph.view import view
from tfqat.verification.blocks import judge_blocks
from tfqat.verification.files import Files, disagreements
from tfqat.verification.keras_values import centered_error, noise_error, values_of
from tfqat.verification.report import CACHE, NOISE, NOISE_SEEDS, QDQ, Report, Row, top1
from tfqat.verification.runner import Runner, named_inputs
from tfqat.verification.simulation import simulate

# Values of all tensors of the judged images are held in memory at once.
_JUDGED_ELEMENTS, _FEWEST, _MOST = 4e7, 4, 64

Call = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]
Batch = tuple[dict[str, np.ndarray], np.ndarray | None]  # ONNX input -> array, labels


def compare(
    trained: keras.Model, final: keras.Model, files: Files, dataset: Any | None, class_output: int = 0
) -> Report:
    """The Report of the files against the trained model.

    Args:
        trained: the model that was trained (or ``final`` again): accuracy and classes are compared with it.
        final: its finalized form, whose tensors the blocks are judged against.
        files: the exported files.
        dataset: batches of inputs or of (inputs, integer labels); arrays; None for random inputs.
        class_output: which output has the classes.

    Raises:
        TfqatError: the files belong to another model, or the data do not fit it.
    """
    graph = view(final)
    names = tuple(info.name for info in files.model.graph.input)
    _check_fits(graph, names, files)
    batches = list(batches_of(dataset, names, graph))
    simulation = simulate(files.model, files.cache, files.kept_float)
    runners = {QDQ: Runner(files.qdq), CACHE: Runner(simulation.model)}
    expected = _predict(lambda inputs: _call(trained, graph, inputs), batches)
    labels = _labels(batches)
    rows = {
        name: _row(name, _predict(_by_order(runner), batches), expected, labels, class_output)
        for name, runner in runners.items()
    }
    judged = _first(batches, _judged_count(graph))
    keras_inputs = dict(zip(graph.inputs, judged.values(), strict=True))
    values = values_of(final, keras_inputs)
    renamed = {onnx: name for name, onnx in files.manifest.report["tensors"].items()}
    noise = max(noise_error(final, keras_inputs, NOISE, NOISE_SEEDS))
    rows = {name: _with_error(row, runners[name], judged, values.outputs) for name, row in rows.items()}
    return Report(
        _row("QAT", expected, expected, labels, class_output),
        tuple(rows.values()),
        tuple(judge_blocks(files.qdq, values, judged, renamed)),
        noise,
        len(next(iter(judged.values()))),
        tuple(disagreements(files)),
        str(simulation.coverage),
    )


def batches_of(dataset: Any | None, names: Sequence[str], graph: Graph) -> Iterable[Batch]:
    """The batches of a dataset as (ONNX input -> array, labels or None)."""
    if dataset is None:
        dataset = [random_inputs(graph)]
    elif isinstance(dataset, np.ndarray | Mapping) or _is_pair_of_arrays(dataset):
        dataset = [dataset]
    empty = True
    for batch in dataset:
        empty = False
        inputs, labels = _parted(batch, len(names))
        yield named_inputs(inputs, names), None if labels is None else np.asarray(labels)
    if empty:
        raise TfqatError("The data set to verify on has no batch; give one with at least one.")


def random_inputs(graph: Graph, images: int = 16) -> list[np.ndarray]:
    """Random inputs, in the model's order: 0 to 255 where the model rescales them itself, else -1 to 1."""
    rng = np.random.default_rng(0)
    found = []
    for name in graph.inputs:
        shape = (images, *(size or 32 for size in graph.shapes[name][1:]))
        own = any(op.kind in ("rescaling", "normalization") for op in graph.consumers(name))
        low, high = (0, 255) if own else (-1, 1)
        found.append(rng.uniform(low, high, shape).astype(graph.dtypes[name]))
    return found


def _is_pair_of_arrays(dataset: Any) -> bool:
    return isinstance(dataset, tuple) and len(dataset) == 2 and all(hasattr(part, "shape") for part in dataset)


def _parted(batch: Any, inputs: int) -> tuple[Any, Any]:
    """Inputs and labels of a batch; a pair is (inputs, labels) unless the model takes exactly these two arrays."""
    if not isinstance(batch, list | tuple):
        return batch, None
    holds_inputs = inputs == 1 or isinstance(batch[0], list | tuple | Mapping)
    if isinstance(batch, tuple) and len(batch) in (2, 3) and holds_inputs:
        return batch[0], batch[1]
    return batch, None


def _check_fits(graph: Graph, names: Sequence[str], files: Files) -> None:
    if len(names) != len(graph.inputs) or len(files.model.graph.output) != len(graph.outputs):
        raise TfqatError(
            f"The files hold another model: {len(names)} inputs and {len(files.model.graph.output)} outputs, where "
            f"{graph.name!r} has {len(graph.inputs)} and {len(graph.outputs)}; export it again."
        )


def _call(model: keras.Model, graph: Graph, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    values = [keras.ops.convert_to_tensor(value) for value in inputs.values()]
    structured = keras.tree.map_structure(lambda ref: values[ref.index], graph.input_structure)
    outputs = model(structured, training=False)
    return [np.asarray(value) for value in keras.tree.flatten(outputs)]


def _by_order(runner: Runner) -> Call:
    return lambda inputs: list(runner.run(inputs).values())


def _predict(call: Call, batches: Iterable[Batch]) -> list[np.ndarray]:
    columns = zip(*(call(inputs) for inputs, _ in batches), strict=True)
    return [np.concatenate(column) for column in columns]


def _labels(batches: Sequence[Batch]) -> np.ndarray | None:
    labels = [label for _, label in batches if label is not None]
    if len(labels) != len(batches) or any(not np.issubdtype(label.dtype, np.integer) for label in labels):
        return None
    return np.concatenate([label.reshape(len(label), -1)[:, 0] if label.ndim == 2 else label for label in labels])


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


def _first(batches: Sequence[Batch], count: int) -> dict[str, np.ndarray]:
    joined = {name: [inputs[name] for inputs, _ in batches] for name in batches[0][0]}
    return {name: np.concatenate(parts)[:count] for name, parts in joined.items()}


def _judged_count(graph: Graph) -> int:
    per_image = sum(float(np.prod([size or 1 for size in shape])) for shape in graph.shapes.values())
    return int(np.clip(_JUDGED_ELEMENTS / per_image, _FEWEST, _MOST))


def _with_error(row: Row, runner: Runner, inputs: Mapping[str, np.ndarray], expected: Sequence[np.ndarray]) -> Row:
    outputs = runner.run(inputs).values()
    error = max(centered_error(a.astype(np.float64), b) for a, b in zip(outputs, expected, strict=True))
    return Row(row.name, row.images, row.correct, row.agreeing, error)
