"""The spec: one YAML file says everything about a run; it is checked whole before TensorFlow is imported."""

from __future__ import annotations

from tfqat.spec.load import dump_spec, load_spec
from tfqat.spec.report import Problem, SpecError
from tfqat.spec.schema import Spec

__all__ = ["Problem", "Spec", "SpecError", "dump_spec", "load_spec"]
