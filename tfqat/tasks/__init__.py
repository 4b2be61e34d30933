"""Tasks: what a spec's model is for. The engine knows none of it: jobs hand it what a task decides."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tfqat.tasks.task import Task

# A new task is one file here and one row; the file has a function `task` of a spec.
KINDS = {"classification": "tfqat.tasks.classification", "detection": "tfqat.tasks.detection"}


def task_of(spec: Any) -> Task:
    """The Task of a spec."""
    return import_module(KINDS[spec.task]).task(spec)
