"""Options: what the user may choose about exported files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """How to export; each format takes what concerns it.

    Attributes:
        input_names, output_names: names in the files, in the model's order; Keras' names where None.
        tensorrt_version: the TensorRT that will read the cache, such as "8.6.1".
        opset: of the ONNX files, from 13.
        int8_weights: kernels in the Q/DQ ONNX as int8 (TensorRT 10 and later) instead of float32.
        strict: whether a dead tensor is an error.
        cache_name: file name of the cache.
        aimet_version: of the AIMET encodings: "0.6.1", "1.0.0" or "2.0.0".
        c_array: whether to write the TFLite flatbuffer as C source and header, too.
    """

    input_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    tensorrt_version: str = "8.6.1"
    opset: int = 17
    int8_weights: bool = False
    strict: bool = False
    cache_name: str = "model.cache"
    aimet_version: str = "1.0.0"
    c_array: bool = False
