"""Export: a trained model as the files that an accelerator's tools read; all of them or none."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from tfqat.core.encoding import Encodings
from tfqat.core.files import folder_on_success
from tfqat.core.listing import some
from tfqat.data.python import batches_explained
from tfqat.errors import TfqatError
from tfqat.exporters import encodings, manifest
from tfqat.exporters.exportable import Exportable, Written
from tfqat.exporters.options import Options
from tfqat.exporters.registry import ALWAYS, FORMATS, clash, exporter
from tfqat.graph.target import Target
from tfqat.jobs.fill import filling
from tfqat.jobs.trained import quantized_model
from tfqat.rewrite.finalize import finalize
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.split import split
from tfqat.targets import load_target
from tfqat.tasks import task_of
from tfqat.view.view import view

# A folder, and the files in it by role, with what reads them -> further files, which it has written.
Finish = Callable[[Path, Mapping[str, tuple[str, str]]], Mapping[str, tuple[str, str]]]
EXPORT_FOLDER, CACHE_FILE = "export", "model.cache"


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    formats: Sequence[str] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    tensorrt_version: str = "8.6.1",
    opset: int = 17,
    int8_weights: bool | None = None,
    strict: bool = False,
    cache_name: str = CACHE_FILE,
    aimet_version: str = "1.0.0",
    c_array: bool = False,
    calibration: Iterable[Any] | None = None,
    finish: Finish | None = None,
) -> Mapping[str, Path]:
    """Writes a prepared model, finalized or not, as files of the given formats; prints what they cover.

    Args:
        model: what ``prepare`` or ``finalize`` returned, calibrated; it is not changed.
        path: the folder to write into; made if need be. Files of an earlier export are replaced, once all new ones
            are complete.
        formats: some of those that the model's target writes (`tfqat targets`); the first of them where None.
        input_names, output_names: names of the model's inputs and outputs in the files, in its order; Keras' names
            where None.
        tensorrt_version: the TensorRT that will read the cache.
        opset: of the ONNX files.
        int8_weights: kernels in the Q/DQ ONNX as int8 (TensorRT 10 and later); as the target has it where None.
        strict: whether a tensor that was always zero is an error.
        cache_name: file name of the cache.
        aimet_version: of the AIMET encodings: 0.6.1, 1.0.0 or 2.0.0.
        c_array: whether to write the TFLite flatbuffer as C source and header, too.
        calibration: batches for formats that run the trained model at export (tensorrt_dla), as ``calibrate`` takes
            them; or a Fill of ``jobs.fill.filling``.
        finish: writes further files of the folder and the files in it, such as ones with a detector's decoding.

    Returns:
        Role (``onnx``, ``cache``, ``qdq_onnx``, ``tflite``, ``encodings``, ``manifest``, ...) -> path.

    Raises:
        TfqatError: an option that cannot be, a model that is not prepared and calibrated, or what a file cannot hold.
        OSError: the folder cannot be written.
    """
    final = finalize(model)
    target = load_target(final.placement.target, final.placement.config)
    options = Options(
        _names(input_names),
        _names(output_names),
        tensorrt_version,
        opset,
        target.int8_weights if int8_weights is None else int8_weights,
        strict,
        cache_name,
        aimet_version,
        c_array,
    )
    modules = _modules(formats, target, options)
    fill: Any = calibration
    if calibration is not None and not callable(calibration):
        fill = filling(calibration, graph=view(final))
    float_model, learnt = split(final)
    del final
    gc.collect()  # Keras models hold themselves in cycles: a copy of all weights would stay while files are made
    return _write(modules, Exportable(float_model, learnt, options, fill), Path(path), options, finish)


def export_spec(
    spec: Any, cache: Path | None = None, with_cache: bool = False, c_array: bool = False, trust: bool = False
) -> Mapping[str, Path]:
    """Exports the trained model of a spec into ``<results_dir>/export``, or beside ``cache`` where that is given.

    Args:
        spec: the spec.
        cache: path of the cache; None for the usual one.
        with_cache: whether a cache is asked for, so that a target without one is an error.
        c_array: whether the TFLite flatbuffer is asked for as C source, too, whatever the spec says.
        trust: whether Python code in the trained model's file may run (Lambda layers).

    Raises:
        TfqatError: there is no trained model yet, the target writes no such file, or see :func:`export`.
    """
    section, model = spec.export, quantized_model(spec, trust)
    formats = section.formats or _usual(_target(model))
    if with_cache or cache is not None:
        _check_writes("--cache", "cache", formats)
    if c_array:
        _check_writes("--c-array", "c_source", formats)
    with batches_explained():
        return export(
            model,
            export_folder(spec, cache),
            formats=formats,
            input_names=section.input_names,
            output_names=section.output_names,
            tensorrt_version=section.tensorrt_version,
            opset=section.opset,
            int8_weights=section.int8_weights,
            strict=spec.quantization.strict,
            cache_name=CACHE_FILE if cache is None else cache.name,
            aimet_version=section.aimet_version,
            c_array=c_array or section.c_array,
            calibration=_fill_of(spec, model) if any(FORMATS[name].needs_data for name in formats) else None,
            finish=task_of(spec).finish,
        )


def export_folder(spec: Any, cache: Path | None = None) -> Path:
    """Where a spec's export is: ``<results_dir>/export``, or the folder of ``cache`` where that is given."""
    return Path(spec.results_dir) / EXPORT_FOLDER if cache is None else cache.parent


def _target(model: QuantizedModel) -> Target:
    return load_target(model.placement.target, model.placement.config)


def _usual(target: Target) -> tuple[str, ...]:
    return target.exporters[:1]


def _modules(formats: Sequence[str] | None, target: Target, options: Options) -> list[Any]:
    chosen = [formats] if isinstance(formats, str) else list(_usual(target) if formats is None else formats)
    if not chosen:
        raise TfqatError(f"formats: expected some of {', '.join(target.exporters)}, received none.")
    modules = [exporter(name, target.exporters) for name in dict.fromkeys(chosen)]
    if sentence := clash(chosen):
        raise TfqatError(f"formats: {sentence}.")
    if options.c_array and not any("c_source" in FORMATS[name].files for name in chosen):
        raise TfqatError(f"c_array: only the format tflite is written as a C array, received {', '.join(chosen)}.")
    for module in modules:
        module.check(options)
    return modules


def _check_writes(option: str, role: str, formats: Sequence[str]) -> None:
    if not any(role in FORMATS[name].files for name in formats):
        able = ", ".join(name for name, form in FORMATS.items() if role in form.files)
        raise TfqatError(
            f"{option}: the formats of this export ({', '.join(formats)}) have no such file; it is part of {able}. "
            f"Leave the option out, or train for a target that writes one (`tfqat targets`)."
        )


def _fill_of(spec: Any, model: keras.Model) -> Any:
    how = spec.quantization.calibration
    data = task_of(spec).data(model)
    return filling(data.calibration, how.method, how.batches, how.percentile)


def _write(
    modules: Sequence[Any], exportable: Exportable, folder: Path, options: Options, finish: Finish | None
) -> Mapping[str, Path]:
    if folder.exists() and not folder.is_dir():
        raise TfqatError(f"{folder} is a file; name a folder to export into.")
    with folder_on_success(folder) as temporary:
        parts = [module.write(exportable, temporary, options) for module in modules]
        # ONNX has tensors that Keras has not, so the longest list is the one that holds the others.
        told = max((part.encodings for part in parts), key=lambda found: len(found.activations))
        dead = _checked_dead(told, options)
        encodings.write(temporary / ALWAYS["encodings"], told)
        files = {role: entry for part in parts for role, entry in part.files.items()}
        if finish is not None:
            files |= finish(temporary, files)
        files["encodings"] = (ALWAYS["encodings"], "tfqat, and any program that reads JSON")
        _write_manifest(temporary, files, parts, told, dead, options)
    _tell(folder, files, parts, dead)
    names = {role: name for role, (name, _) in files.items()} | {"manifest": ALWAYS["manifest"]}
    return {role: folder / name for role, name in names.items()}


def _tell(folder: Path, files: Mapping[str, tuple[str, str]], parts: Sequence[Written], dead: list[str]) -> None:
    lines = [part.message for part in parts]
    if dead:
        lines.append(f"  dead (zero wherever looked at, smallest scale given): {some(dead)}")
    lines += [f"{name}: {text}" for name, text in files.values()]
    print("\n".join(lines))
    print(f"Written to {folder}: {', '.join([*(name for name, _ in files.values()), ALWAYS['manifest']])}.")


def _write_manifest(
    folder: Path,
    files: Mapping[str, tuple[str, str]],
    parts: Sequence[Written],
    told: Encodings,
    dead: list[str],
    options: Options,
) -> None:
    report: dict[str, Any] = {"float": dict(told.float_ops), "dead": dead, "origins": manifest.origins(told)}
    for part in parts:
        report.update(part.report)
    entries = {role: manifest.entry(folder / name, text) for role, (name, text) in files.items()}
    chosen = {key: value for key, value in asdict(options).items() if key != "cache_name"}
    manifest.write(folder / ALWAYS["manifest"], manifest.Manifest(told.target, entries, chosen, report))


def _checked_dead(told: Encodings, options: Options) -> list[str]:
    dead = manifest.dead(told)
    if dead and options.strict:
        raise TfqatError(
            f"{len(dead)} tensors were zero wherever they were looked at: {dead[:10]}. Calibrate with data that reach "
            f"them, or export without strict, which gives them the smallest scale."
        )
    return dead


def _names(given: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if given is None else ((given,) if isinstance(given, str) else tuple(given))
