"""TensorRT on NVIDIA's DLA (Jetson, Drive): trained as for the GPU, and at export every tensor has a scale.

The DLA takes no Q/DQ model, only a calibration cache, and a tensor without a scale cannot run on it in INT8 at all.
Source: TensorRT developer guide, "Working with DLA".
"""

from __future__ import annotations

from dataclasses import replace

from tfqat.targets import tensorrt

TARGET = replace(
    tensorrt.TARGET,
    name="tensorrt_dla",
    complete=True,
    exporters=("tensorrt_dla",),
    source="https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-with-dla.html",
)
