"""Trained: the model that a spec's training left in its results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from tfqat.data.user_function import user_function
from tfqat.errors import TfqatError
from tfqat.models.load import load_model
from tfqat.rewrite.model import QuantizedModel
from tfqat.targets import load_target
from tfqat.training.results import Results, check_trained_by


def trained_path(spec: Any) -> Path:
    """The file of the trained model: ``qat.keras``, or ``float.keras`` where the spec trains in float.

    Raises:
        TfqatError: it is not there yet, or was trained by a spec that asked for something else.
    """
    results = Results(Path(spec.results_dir))
    path = results.qat_model if spec.training.enable_qat else results.float_model
    if not path.exists():
        raise TfqatError(f"No trained model at {str(path)!r}. Run `tfqat train` with this spec first.")
    check_trained_by(results, spec)
    return path


def trained_model(spec: Any, trust: bool = False) -> keras.Model:
    """The trained model of a spec; see :func:`trained_path` for errors."""
    path = trained_path(spec)
    register_layers(spec.model)
    return load_model(path, trust=trust)


def register_layers(section: Any) -> None:
    """Imports the modules of the user's own that made the model of a spec's section, which registers their layers."""
    if section.python:
        user_function(section.python, "model_config.python")
    if section.options.backbone and ":" in section.options.backbone:
        user_function(section.options.backbone, "model_config.options.backbone")


def quantized_model(spec: Any, trust: bool = False) -> QuantizedModel:
    """The quantization-aware trained model of a spec; ``trust`` lets Python code in its file run (Lambda layers).

    Raises:
        TfqatError: the spec trains in float, or its target's config file says something else by now; see
            :func:`trained_path` for others.
    """
    if not spec.training.enable_qat:
        raise TfqatError("training_config.enable_qat is false, so nothing was quantized; set it to true and train.")
    model = trained_model(spec, trust)
    if model.placement.config != load_target(spec.quantization.target).config:
        raise TfqatError(
            f"The target's config {spec.quantization.target!r} was changed after training. Put the old one back, or "
            f"train again (`tfqat train --restart`)."
        )
    return model
