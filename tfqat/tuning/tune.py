"""Tune: a calibrated prepared model repaired from a few images, by one method after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import keras

from tfqat.errors import TfqatError
from tfqat.rewrite.model import check_calibrated
from tfqat.tuning import adaround, batch_norm, bias_correction, equalize
from tfqat.tuning.report import TuneReport
from tfqat.tuning.subject import Subject
from tfqat.tuning.walk import gather
from tfqat.view.view import view

# Of the prepared model; ``equalize`` works on the float model, before.
METHODS: Mapping[str, Callable[[Subject], TuneReport]] = {
    bias_correction.NAME: bias_correction.correct_biases,
    batch_norm.NAME: batch_norm.estimate_batch_norms,
    adaround.NAME: adaround.round_adaptively,
}


def tune(model: keras.Model, methods: Iterable[str], dataset: Iterable[Any], images: int = 256) -> list[TuneReport]:
    """Changes the weights of a calibrated prepared model in place, so that it loses less; training may follow.

    Args:
        model: one that ``prepare`` returned and ``calibrate`` has seen.
        methods: in this order, some of ``adaround`` (weights up or down, as each layer's output errs
            least), ``bias_correction`` (moves biases to keep the mean of each channel) and ``batch_norm`` (BatchNorm
            statistics anew; after training, too).
        dataset: as ``calibrate`` takes it; training images.
        images: how many are looked at, in whole batches; all are in memory at once.

    Returns:
        One report a method.

    Raises:
        TfqatError: an unknown method or one named twice, a model that is not prepared, not calibrated or finalized, no
            images.
    """
    chosen = [methods] if isinstance(methods, str) else list(methods)
    _check_methods(chosen)
    check_calibrated(model)
    if images < 1:
        raise TfqatError(f"images: expected at least 1, received {images!r}.")
    graph = view(model)
    batches = gather(graph, dataset, images)
    if not batches:
        raise TfqatError("dataset: expected at least one batch of images, received none.")
    subject = Subject(graph, batches)
    return [METHODS[name](subject) for name in chosen]


def _check_methods(methods: list[str]) -> None:
    for name in methods:
        if name == equalize.NAME:
            raise TfqatError(
                f"methods: {name!r} works on the float model: prepare what tfqat.equalize(model) returns, then tune."
            )
        if name not in METHODS:
            near = get_close_matches(str(name), METHODS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TfqatError(f"methods: expected some of {', '.join(METHODS)}, received {name!r}.{hint}")
    twice = [name for name, count in Counter(methods).items() if count > 1]
    if twice:
        raise TfqatError(f"methods: expected each once, received {', '.join(twice)} more than once.")
