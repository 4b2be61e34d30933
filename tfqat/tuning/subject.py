"""Subject: a calibrated prepared model that is being tuned, its float reference, and the images."""

from __future__ import annotations

from tfqat.graph.build import build
from tfqat.graph.graph import Graph
from tfqat.rewrite.split import without_quantizers
from tfqat.tuning.walk import Batch, Walk
from tfqat.view.view import view


class Subject:
    """What every method gets.

    The reference is the model as it came, without its quantization, in layers of its own: later methods aim at the same
    float model as the first.
    """

    def __init__(self, graph: Graph, batches: list[Batch]) -> None:
        self.graph, self.batches = graph, batches
        self.reference = view(build(without_quantizers(graph)))
        self.twins = {op.name: op for op in self.reference.ops}

    def walk(self) -> Walk:
        """The prepared model from its inputs on."""
        return Walk(self.graph, self.batches)

    def reference_walk(self) -> Walk:
        """The float model from its inputs on; ``twins`` holds its ops by name."""
        return Walk(self.reference, self.batches)
