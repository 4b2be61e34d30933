"""Judge: finished files held against the raw ones that they were made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfqat.data.pipeline import HeldOut
from tfqat.exporters import onnx_file
from tfqat.tails.onnx_tail import check_raw_part
from tfqat.tails.tail import Tail, TailError
from tfqat.tasks.detection.decoder import Decoder
from tfqat.tasks.detection.finish import FORMS, Finish
from tfqat.tasks.detection.finished import open_finished
from tfqat.tasks.detection.meter import FIGURE, DetectionMeter
from tfqat.tasks.task import Finished
from tfqat.verification.model_file import ModelFile, open_onnx, open_tflite

# Of the finished file and of the raw one.
_Meters = Callable[[], tuple[DetectionMeter, DetectionMeter]]
# Of AP50: what a box or a score on a threshold may change.
TOLERANCE = 0.002
NOTHING_FOUND = (
    "{}: no object is found with a score of at least {:g} (export_config.score_threshold), so that its decoding was "
    "compared on little or nothing. Train longer{}."
)
LOWER = ", or export with a lower threshold"


def judged(
    paths: Mapping[str, Path],
    data: HeldOut,
    decoder: Decoder,
    tail: Tail,
    meter: Callable[[Decoder], DetectionMeter],
) -> Sequence[Finished]:
    """A row for each finished file of an export.

    Each is run on the validation images, and so is the raw file, decoded and suppressed by numpy with the same
    settings: the figures have to agree. Since they may agree by chance, each has to be what an export makes of the raw
    file, byte for byte.

    Args:
        paths: role -> file of the export.
        data: whose validation images are used.
        decoder: with the settings of the finished files.
        tail: what stands behind their raw outputs.
        meter: makes an empty Meter that reads outputs with a Decoder.
    """
    # A finished file has left out by itself what is below its threshold.
    meters = lambda: (meter(replace(decoder, score_threshold=0.0)), meter(decoder))  # noqa: E731
    return [_judged(form, paths, data, meters, tail) for form in FORMS if form.role in paths]


def _judged(form: Finish, paths: Mapping[str, Path], data: HeldOut, meters: _Meters, tail: Tail) -> Finished:
    cached = (paths["cache"], paths["layer_precisions"]) if form.needs[0] == "onnx" else (None, None)
    finished = open_finished(paths[form.role], data.input_shape, *cached)
    score, expected = _figures(finished, _raw(form, paths, data, cached), data, meters())
    problem = _other_raw_part(form, paths) or _other_tail(form, paths, tail)
    if not problem and abs(score - expected) > TOLERANCE:
        problem = f"{form.name}: {FIGURE} {score:.2%}, where the raw file decoded by numpy has {expected:.2%}"
    lowest = tail.score_threshold
    note = NOTHING_FOUND.format(form.name, lowest, LOWER if lowest else "") if expected == 0 else ""
    return Finished(form.role, form.name, finished.run_by, score, problem, note)


def _raw(form: Finish, paths: Mapping[str, Path], data: HeldOut, cached: tuple[Path | None, Path | None]) -> ModelFile:
    path = paths[form.needs[0]]
    if path.suffix == ".tflite":
        return open_tflite(path, data.input_shape, outputs=2)
    return open_onnx(path, data.input_shape, *cached, outputs=2)


def _figures(
    finished: ModelFile, raw: ModelFile, data: HeldOut, meters: tuple[DetectionMeter, DetectionMeter]
) -> tuple[float, float]:
    """AP50 of the finished file, and of the raw one."""
    for images, targets in data.validation:
        for meter, file in zip(meters, (finished, raw), strict=True):
            meter.add(file.predict(np.asarray(images)), targets)
    return meters[0].figure(), meters[1].figure()


def _other_raw_part(form: Finish, paths: Mapping[str, Path]) -> str:
    if form.load is None:
        return ""
    try:
        check_raw_part(form.load(paths[form.role]), onnx_file.load(paths[form.needs[0]]))
    except TailError as error:
        return f"{form.name}: {error}"
    return ""


def _other_tail(form: Finish, paths: Mapping[str, Path], tail: Tail) -> str:
    try:
        same = form.make(paths[form.needs[0]], tail) == paths[form.role].read_bytes()
    except TailError as error:
        return f"{form.name}: {error}"
    if same:
        return ""
    return (
        f"{form.name}: its decoding or suppression is not the spec's (anchors, iou_threshold and max_detections of "
        "detection_config, score_threshold and output_names of export_config); export it again"
    )
