"""Files: one exported set, opened again as the programs that will read it would."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tfqat.core.encoding import Encodings
from tfqat.errors import TfqatError
from tfqat.exporters import cache, encodings, layer_precisions, manifest, onnx_float, onnx_qdq, tensorrt


@dataclass(frozen=True)
class Files:
    """What is in an export folder.

    Attributes:
        paths: role -> path.
        model: the float ONNX.
        qdq: the Q/DQ ONNX.
        cache: the calibration cache.
        kept_float: node -> precision, of layer_precisions.txt.
        encodings: the encodings file.
        manifest: the manifest.
    """

    paths: Mapping[str, Path]
    model: onnx.ModelProto
    qdq: onnx.ModelProto
    cache: cache.Cache
    kept_float: Mapping[str, str]
    encodings: Encodings
    manifest: manifest.Manifest


def open_files(folder: str | os.PathLike[str]) -> Files:
    """Opens the files of an export, after comparing each with the manifest's sha256.

    Raises:
        TfqatError: one is missing, cut off, changed or of another kind.
        OSError: one cannot be opened.
    """
    listed = Path(folder) / tensorrt.NAMES[tensorrt.MANIFEST]
    if not listed.is_file():
        raise TfqatError(f"There is no {listed}; export the model into {str(folder)!r} first.")
    paths = {**manifest.check_files(listed), tensorrt.MANIFEST: listed}
    missing = [role for role in tensorrt.NAMES if role not in paths]
    if missing:
        raise TfqatError(f"{listed} lists no {', '.join(missing)}; export again.")
    return Files(
        paths,
        onnx_float.load(paths[tensorrt.ONNX]),
        onnx_float.load(paths[tensorrt.QDQ]),
        cache.read(paths[tensorrt.CACHE]),
        layer_precisions.read(paths[tensorrt.PRECISIONS]),
        encodings.read(paths[tensorrt.ENCODINGS]),
        manifest.read(listed),
    )


def disagreements(files: Files) -> list[str]:
    """Tensors whose scale is not the same in the cache, the encodings and the Q/DQ ONNX, as sentences."""
    told = files.encodings.activations
    found = []
    if list(files.cache.scales) != list(told):
        differing = sorted(set(files.cache.scales) ^ set(told)) or ["their order"]
        found.append(f"the cache and the encodings name different tensors: {', '.join(differing[:8])}")
    shared = [name for name in files.cache.scales if name in told]
    other = [name for name in shared if _bits(files.cache.scales[name]) != _bits(cache.scale_of(name, told[name]))]
    if other:
        found.append(f"the cache has other scales than the encodings for {', '.join(other[:8])}")
    pairs = onnx_qdq.scales_of(files.qdq)
    trained = onnx_qdq.trained(files.encodings)
    wrong = [name for name in trained if name not in pairs or _bits(pairs[name]) != _bits(trained[name].scale)]
    if wrong:
        found.append(f"the Q/DQ ONNX has other scales than the encodings for {', '.join(wrong[:8])}")
    weights = _other_weights(files)
    if weights:
        found.append(f"the Q/DQ ONNX has other weights than the float ONNX for {', '.join(weights[:8])}")
    unlike = sorted(set(files.kept_float) ^ set(files.encodings.float_ops))
    if unlike:
        found.append(f"the layer precisions and the encodings keep different nodes float: {', '.join(unlike[:8])}")
    return found


def _other_weights(files: Files) -> list[str]:
    """Initializers of the float ONNX that the Q/DQ ONNX holds with other numbers."""
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in files.qdq.graph.initializer}
    axes = {weight.initializer: weight.axis for weight in onnx_qdq.weights_of(files.model).values()}
    for name in axes:
        if f"{name}/quantize" in held:  # an int8 kernel
            integers, scale = held[f"{name}/quantize"], held[f"{name}/scale"]
            shape = [-1 if axis == axes[name] else 1 for axis in range(integers.ndim)]
            held[name] = integers.astype(np.float32) * scale.reshape(shape)
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in files.model.graph.initializer}
    return [name for name in given if name in held and not np.array_equal(given[name], held[name])]


def _bits(scale: object) -> int:
    return int(np.asarray(scale, np.float32).view(np.uint32))
