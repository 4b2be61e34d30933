"""Tfmot: a model trained by TensorFlow Model Optimization (TFMOT), as a float Keras 3 model and the ranges learned.

At inference TFMOT computes ``scale * (q - zero_point)`` with ``scale = (max - min) / (qmax - qmin)`` and
``zero_point = round(qmin - min / scale)``, for kernels (one range, or one an element of the kernel's last axis) and for
activations (one range) alike; a BatchNorm stands behind its convolution as an op of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from tfqat.models.keras2.hdf5 import model_config_in
from tfqat.models.tfmot.wrappers import MARKS


@dataclass(frozen=True)
class TensorRange:
    """The range of one tensor: real bounds as TFMOT keeps them, before the zero point is rounded.

    ``trained`` is False where they are those that TFMOT starts with.
    """

    low: float
    high: float
    bits: int = 8
    narrow: bool = False
    trained: bool = True


@dataclass(frozen=True, eq=False)
class KernelRange:
    """The range of one kernel, symmetric and narrow: from ``-extent`` to ``extent``, ``scale = extent / qmax``.

    ``extent`` is float32, of shape () or one an element of the kernel's last axis.
    """

    extent: np.ndarray
    bits: int = 8
    trained: bool = True


@dataclass(frozen=True, eq=False)
class Tfmot:
    """A TFMOT model.

    Attributes:
        source: the file, or what the live model is.
        model: the float Keras 3 model, under the layers' own names.
        activations: tensor -> range, in names of the view of ``model``.
        kernels: op -> range of its kernel.
    """

    source: str
    model: keras.Model
    activations: Mapping[str, TensorRange]
    kernels: Mapping[str, KernelRange]


def is_tfmot(path: str | Path) -> bool:
    """Whether the file is an `.h5` model of Keras 2 with layers that TFMOT has wrapped; reads just its config."""
    text = model_config_in(Path(path)) or ""
    return any(f'"{name}"' in text for name in MARKS)
