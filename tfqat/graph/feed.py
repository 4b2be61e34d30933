"""Feed: a batch of inputs, in whatever nest it comes, by the names of the model's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import tree

from tfqat.errors import TfqatError
from tfqat.graph.graph import Graph


def by_input(graph: Graph, batch: Any) -> dict[str, Any]:
    """Input of the graph -> its value, in the graph's order.

    Args:
        graph: the model.
        batch: one array; a nest like the one that the model takes, which may have entries besides; or a mapping or
            sequence of one value for each input, by name or in order.

    Raises:
        TfqatError: the batch does not fit the inputs.
    """
    if isinstance(batch, Mapping) and set(batch) == set(graph.inputs):
        return {name: batch[name] for name in graph.inputs}
    refs, values = graph.input_structure, batch
    if isinstance(batch, Mapping) and isinstance(refs, Mapping):
        missing = [str(key) for key in refs if key not in batch]
        if missing:
            raise TfqatError(
                f"A batch lacks the input {', '.join(missing)}; the model takes {sorted(map(str, refs))}, received "
                f"{sorted(map(str, batch))}."
            )
        values = {key: batch[key] for key in refs}
    flat_refs, flat = tree.flatten(refs), tree.flatten(values)
    if len(flat) != len(flat_refs):
        raise TfqatError(
            f"The model has {len(flat_refs)} inputs {list(graph.inputs)}, a batch has {len(flat)}; give batches as "
            "model.fit takes them (of several inputs [[a, b]], not [a, b]), or one array."
        )
    found = {graph.inputs[ref.index]: value for ref, value in zip(flat_refs, flat, strict=True)}
    return {name: found[name] for name in graph.inputs}
