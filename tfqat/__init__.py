"""tfqat: INT8 quantization-aware training for Keras 3, with exported files that are proven right.

The public names are loaded on first use, so that ``import tfqat`` (and ``tfqat --help``) does not wait for Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfqat import keras_hook

if TYPE_CHECKING:
    from tfqat.analysis.analyze import analyze
    from tfqat.calibration.calibrate import calibrate
    from tfqat.jobs.build import build_model
    from tfqat.jobs.convert import convert
    from tfqat.jobs.export import export
    from tfqat.jobs.from_tfmot import from_tfmot
    from tfqat.jobs.recommend import recommend
    from tfqat.jobs.verify import verify
    from tfqat.models.load import load_model
    from tfqat.rewrite.finalize import finalize
    from tfqat.rewrite.freeze import freeze
    from tfqat.rewrite.plan import placement
    from tfqat.rewrite.prepare import prepare
    from tfqat.spec.load import load_spec
    from tfqat.training.distillation import distill
    from tfqat.tuning.equalize import equalize
    from tfqat.tuning.tune import tune
    from tfqat.view.custom import quantizable

__version__ = "0.1.0"

_HOMES = {
    "analyze": "tfqat.analysis.analyze",
    "build_model": "tfqat.jobs.build",
    "calibrate": "tfqat.calibration.calibrate",
    "convert": "tfqat.jobs.convert",
    "distill": "tfqat.training.distillation",
    "equalize": "tfqat.tuning.equalize",
    "export": "tfqat.jobs.export",
    "finalize": "tfqat.rewrite.finalize",
    "freeze": "tfqat.rewrite.freeze",
    "from_tfmot": "tfqat.jobs.from_tfmot",
    "load_model": "tfqat.models.load",
    "load_spec": "tfqat.spec.load",
    "placement": "tfqat.rewrite.plan",
    "prepare": "tfqat.rewrite.prepare",
    "quantizable": "tfqat.view.custom",
    "tune": "tfqat.tuning.tune",
    "recommend": "tfqat.jobs.recommend",
    "verify": "tfqat.jobs.verify",
}
__all__ = [
    "analyze",
    "build_model",
    "calibrate",
    "convert",
    "distill",
    "equalize",
    "export",
    "finalize",
    "freeze",
    "from_tfmot",
    "load_model",
    "load_spec",
    "placement",
    "prepare",
    "quantizable",
    "recommend",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tfqat' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


keras_hook.install()
