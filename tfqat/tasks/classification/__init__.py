"""Classification: one score a class for each image; cross entropy, accuracy."""

from __future__ import annotations

from typing import Any

from tfqat.tasks.classification.task import Classification


def task(spec: Any) -> Classification:
    """The Task of a spec."""
    return Classification(spec)
