"""Simulation: what TensorRT's implicit mode computes from a float ONNX, a calibration cache and layer precisions.

Built from the files alone: a Q/DQ pair at every tensor that the cache names, but for those inside fused kernels and
between float layers, and at the kernel of each weighted layer that runs in INT8, with the scale ``max|w| / 127`` of
each output channel. A layer runs in INT8 if what it reads and what its block gives have lines in the cache, and
layer_precisions.txt does not name it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx

from tfqat.core.encoding import Encoding, Encodings
from tfqat.core.listing import some
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.exporters.cache import Cache
from tfqat.exporters.coverage import Coverage, cover
from tfqat.exporters.onnx_blocks import between_floats, inside
from tfqat.exporters.onnx_file import with_constants
from tfqat.exporters.onnx_qdq import insert
from tfqat.exporters.requantization import implicit_kernels

_ACTIVATION = Scheme(bits=8, signed=True, symmetric=True)


class SimulationError(TfqatError):
    """A cache that does not belong to the ONNX model."""


@dataclass(frozen=True)
class Simulation:
    """The simulated engine.

    Attributes:
        model: a Q/DQ ONNX that computes what the engine would.
        coverage: what the cache covers, and which layers run in INT8.
    """

    model: onnx.ModelProto
    coverage: Coverage


def simulate(
    model: onnx.ModelProto,
    cache: Cache,
    kept_float: Collection[str] = (),
    *,
    unrounded: Collection[str] = (),
    unmoved: Collection[str] = (),
) -> Simulation:
    """The engine that TensorRT would build from ``model`` and ``cache`` with the nodes ``kept_float`` in float.

    Args:
        model: the float ONNX.
        cache: its calibration cache.
        kept_float: nodes that layer_precisions.txt names.
        unrounded: tensors that are left as they are, other than in the engine.
        unmoved: nodes whose kernels are left as they are in the file, other than in the engine.

    Raises:
        SimulationError: a name of the cache or of ``kept_float`` is not in the model.
    """
    check_names(model, cache, kept_float)
    coverage = cover(model, cache.scales, kept_float)
    weights, kernels = implicit_kernels(model, set(coverage.int8).difference(unmoved))
    unused = {*inside(model, cache.scales, spelled=False), *between_floats(model, kept_float), *unrounded}
    activations = {
        name: _encoding(scale)
        for name, scale in cache.scales.items()
        if np.isfinite(scale) and scale > 0 and name not in unused
    }
    return Simulation(insert(with_constants(model, kernels), Encodings("tensorrt", activations, weights)), coverage)


def check_names(model: onnx.ModelProto, cache: Cache, kept_float: Collection[str] = ()) -> None:
    """Refuses a cache of another model.

    Raises:
        SimulationError: lists what each side lacks.
    """
    tensors = [info.name for info in model.graph.input] + [name for node in model.graph.node for name in node.output]
    foreign = [name for name in cache.scales if name not in set(tensors)]
    if foreign:
        without = [name for name in tensors if name not in cache.scales]
        raise SimulationError(
            f"The cache belongs to another model: {len(foreign)} of its {len(cache.scales)} names are not in the ONNX "
            f"model ({some(foreign)}); {len(without)} tensors of the model have no line ({some(without)}). Take both "
            f"from one export."
        )
    unknown = sorted(set(kept_float) - {node.name for node in model.graph.node})
    if unknown:
        raise SimulationError(f"The layer precisions name nodes that are not in the ONNX model: {some(unknown)}.")


def _encoding(scale: np.float32) -> Encoding:
    return Encoding(_ACTIVATION, np.float32(scale), np.int32(0), "imported")
