"""TensorRT on NVIDIA's DLA (Jetson, Drive): trained as for the GPU, and at export every tensor has a scale.

The DLA takes no Q/DQ model, only a calibration cache, and a tensor without a scale cannot run on it in INT8 at all. It
works on images: ops over three axes stay float, for the GPU.
Source: TensorRT developer guide, "Working with DLA" and "DLA Supported Layers and Restrictions".
"""

from __future__ import annotations

from dataclasses import replace

from tfqat.targets import tensorrt

_GPU = tensorrt.TARGET
_CAUSE = "the DLA works over one axis or two"

VOLUMES = frozenset(kind for kind in _GPU.weighted | _GPU.own_range | _GPU.shared_range if "3d" in kind)

TARGET = replace(
    _GPU,
    name="tensorrt_dla",
    weighted=_GPU.weighted - VOLUMES,
    weights_only={},
    own_range=_GPU.own_range - VOLUMES,
    shared_range=_GPU.shared_range - VOLUMES,
    residual_heads=_GPU.residual_heads - VOLUMES,
    causes=dict.fromkeys(VOLUMES, _CAUSE),
    complete=True,
    exporters=("tensorrt_dla",),
    source="https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-with-dla.html",
)
