"""Product of two tensors in TFLite: BATCH_MATMUL, each input on its own grid.

Source: TensorFlow Lite 8-bit quantization specification; BATCH_MATMUL takes int8 inputs and writes any int8 grid.
"""

from __future__ import annotations

from tfqat.exporters.tflite_graph.emission import Emission, Step, Unsupported

MOST_AXES = 5


def matmul(emission: Emission, step: Step) -> None:
    """BATCH_MATMUL of two tensors of the same number of axes, up to five."""
    ranks = [len(emission.shape(tensor)) for tensor in step.op.inputs]
    if len(ranks) != 2 or ranks[0] != ranks[1] or not 2 < ranks[0] <= MOST_AXES:
        raise Unsupported(
            f"it multiplies tensors of {' and '.join(map(str, ranks))} axes: expected two of 3 to {MOST_AXES}"
        )
    inputs = [emission.read(tensor) for tensor in step.op.inputs]
    emission.add(step, "BATCH_MATMUL", inputs, adjX=False, adjY=False, asymmetricQuantizeInputs=False)
