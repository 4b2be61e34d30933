"""Detection: class logits and box regression of anchors; focal and box loss, AP50."""

from __future__ import annotations

from typing import Any

from tfqat.tasks.detection.task import Detection


def task(spec: Any) -> Detection:
    """The Task of a spec."""
    return Detection(spec)
