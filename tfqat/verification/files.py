"""Files: one exported set, opened again as the programs that will read it would."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tfqat.core.encoding import Encodings, usable
from tfqat.errors import TfqatError
from tfqat.exporters import cache, encodings, layer_precisions, manifest, onnx_file, onnx_qdq
from tfqat.exporters.registry import ALWAYS
from tfqat.exporters.tflite_graph import c_array
from tfqat.exporters.tflite_graph.flatbuffer import unpack


@dataclass(frozen=True)
class Files:
    """What is in an export folder; each file is opened when it is first asked for.

    Attributes:
        paths: role -> path.
        manifest: the manifest.
    """

    paths: Mapping[str, Path]
    manifest: manifest.Manifest

    def has(self, *roles: str) -> bool:
        """Whether all these files were exported."""
        return all(role in self.paths for role in roles)

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The float ONNX."""
        return onnx_file.load(self.paths["onnx"])

    @cached_property
    def qdq(self) -> onnx.ModelProto:
        """The Q/DQ ONNX."""
        return onnx_file.load(self.paths["qdq_onnx"])

    @cached_property
    def cache(self) -> cache.Cache:
        """The calibration cache."""
        return cache.read(self.paths["cache"])

    @cached_property
    def kept_float(self) -> Mapping[str, str]:
        """Node -> precision, of layer_precisions.txt."""
        return layer_precisions.read(self.paths["layer_precisions"])

    @cached_property
    def encodings(self) -> Encodings:
        """The encodings file."""
        return encodings.read(self.paths["encodings"])

    @property
    def renamed(self) -> dict[str, str]:
        """ONNX tensor -> Keras tensor, where the names differ."""
        return {name: keras_name for keras_name, name in self.manifest.report.get("tensors", {}).items()}


def open_files(folder: str | os.PathLike[str]) -> Files:
    """Opens the files of an export, after comparing each with the manifest's sha256.

    Raises:
        TfqatError: one is missing, cut off or changed.
        OSError: one cannot be opened.
    """
    listed = Path(folder) / ALWAYS["manifest"]
    if not listed.is_file():
        raise TfqatError(f"There is no {listed}; export the model into {str(folder)!r} first.")
    return Files({**manifest.check_files(listed), "manifest": listed}, manifest.read(listed))


def disagreements(files: Files) -> list[str]:
    """What the files of one set say differently about the same tensor, kernel or node, as sentences."""
    return [sentence for roles, find in _COMPARED if files.has(*roles) for sentence in find(files)]


def _cache_and_encodings(files: Files) -> Iterator[str]:
    told = files.encodings.activations
    if list(files.cache.scales) != list(told):
        differing = sorted(set(files.cache.scales) ^ set(told)) or ["their order"]
        yield f"the cache and the encodings name different tensors: {', '.join(differing[:8])}"
    shared = [name for name in files.cache.scales if name in told]
    other = [name for name in shared if _bits(files.cache.scales[name]) != _bits(cache.scale_of(name, told[name]))]
    if other:
        yield f"the cache has other scales than the encodings for {', '.join(other[:8])}"


def _qdq_and_encodings(files: Files) -> Iterator[str]:
    pairs, trained = onnx_qdq.scales_of(files.qdq), onnx_qdq.trained(files.encodings)
    wrong = [name for name in trained if name not in pairs or _bits(pairs[name]) != _bits(trained[name].scale)]
    if wrong:
        yield f"the Q/DQ ONNX has other scales than the encodings for {', '.join(wrong[:8])}"


def _qdq_and_model(files: Files) -> Iterator[str]:
    weights = _other_weights(files)
    if weights:
        yield f"the Q/DQ ONNX has other weights than the float ONNX for {', '.join(weights[:8])}"


def _precisions_and_encodings(files: Files) -> Iterator[str]:
    unlike = sorted(set(files.kept_float) ^ set(files.encodings.float_ops))
    if unlike:
        yield f"the layer precisions and the encodings keep different nodes float: {', '.join(unlike[:8])}"


def _tflite_and_encodings(files: Files) -> Iterator[str]:
    wrong = [
        name
        for name, (scale, zero_point) in _grids(files.paths["tflite"].read_bytes()).items()
        if name in (told := files.encodings.activations)
        and (_bits(usable(told[name]).scale), int(usable(told[name]).zero_point)) != (_bits(scale), zero_point)
    ]
    if wrong:
        yield f"the TFLite model has other scales than the encodings for {', '.join(wrong[:8])}"


def _grids(data: bytes) -> dict[str, tuple[float, int]]:
    """Activation of a TFLite model -> scale and zero point."""
    model = unpack(data)
    return {
        tensor.name.decode(): (tensor.quantization.scale[0], int(tensor.quantization.zeroPoint[0]))
        for tensor in model.subgraphs[0].tensors
        if model.buffers[tensor.buffer].data is None and tensor.quantization and tensor.quantization.scale is not None
    }


def _c_source_and_tflite(files: Files) -> Iterator[str]:
    if c_array.read(files.paths["c_source"]) != files.paths["tflite"].read_bytes():
        yield "the C source holds other bytes than the TFLite model"


# Roles that must be there -> what is compared.
_COMPARED = (
    (("cache",), _cache_and_encodings),
    (("qdq_onnx",), _qdq_and_encodings),
    (("qdq_onnx", "onnx"), _qdq_and_model),
    (("layer_precisions",), _precisions_and_encodings),
    (("tflite",), _tflite_and_encodings),
    (("tflite", "c_source"), _c_source_and_tflite),
)


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
