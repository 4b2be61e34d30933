"""Export: a trained model as the files that an accelerator's tools read; all of them or none."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tfqat.core.files import folder_on_success
from tfqat.errors import TfqatError
from tfqat.exporters.options import Options
from tfqat.exporters.registry import exporter
from tfqat.jobs.trained import quantized_model
from tfqat.rewrite.finalize import finalize
from tfqat.rewrite.split import split
from tfqat.targets import load_target

EXPORT_FOLDER, CACHE_FILE = "export", "model.cache"


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    formats: Sequence[str] = ("tensorrt",),
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    tensorrt_version: str = "8.6.1",
    opset: int = 17,
    int8_weights: bool = False,
    strict: bool = False,
    cache_name: str = CACHE_FILE,
) -> Mapping[str, Path]:
    """Writes a prepared model, finalized or not, as files of the given formats; prints what they cover.

    Args:
        model: what ``prepare`` or ``finalize`` returned, calibrated; it is not changed.
        path: the folder to write into; made if need be. Files of an earlier export are replaced, once all new ones
            are complete.
        formats: ``tensorrt`` writes model.onnx, model.cache, model.qdq.onnx, layer_precisions.txt, encodings.json
            and manifest.json.
        input_names, output_names: names of the model's inputs and outputs in the files, in its order; Keras' names
            where None.
        tensorrt_version: the TensorRT that will read the cache.
        opset: of the ONNX files.
        int8_weights: kernels in the Q/DQ ONNX as int8 (TensorRT 10 and later).
        strict: whether a tensor that was always zero is an error.
        cache_name: file name of the cache.

    Returns:
        Role (``onnx``, ``cache``, ``qdq_onnx``, ``layer_precisions``, ``encodings``, ``manifest``) -> path.

    Raises:
        TfqatError: an option that cannot be, a model that is not prepared and calibrated, or what a file cannot hold.
        OSError: the folder cannot be written.
    """
    options = Options(
        _names(input_names), _names(output_names), tensorrt_version, opset, int8_weights, strict, cache_name
    )
    chosen = [formats] if isinstance(formats, str) else list(formats)
    if not chosen:
        raise TfqatError("formats: expected at least one, such as ['tensorrt'], received none.")
    final = finalize(model)
    modules = [exporter(name, load_target(final.placement.target).exporters) for name in chosen]
    for module in modules:
        module.check(options)
    float_model, encodings = split(final)
    return _write(modules, float_model, encodings, Path(path), options)


def export_spec(spec: Any, cache: Path | None = None) -> Mapping[str, Path]:
    """Exports the trained model of a spec into ``<results_dir>/export``, or beside ``cache`` where that is given.

    Raises:
        TfqatError: there is no trained model yet, or see :func:`export`.
    """
    section = spec.export
    return export(
        quantized_model(spec),
        export_folder(spec, cache),
        formats=section.formats,
        input_names=section.input_names,
        output_names=section.output_names,
        tensorrt_version=section.tensorrt_version,
        opset=section.opset,
        int8_weights=section.int8_weights,
        strict=spec.quantization.strict,
        cache_name=CACHE_FILE if cache is None else cache.name,
    )


def export_folder(spec: Any, cache: Path | None = None) -> Path:
    """Where a spec's export is: ``<results_dir>/export``, or the folder of ``cache`` where that is given."""
    return Path(spec.results_dir) / EXPORT_FOLDER if cache is None else cache.parent


def _write(
    modules: Sequence[Any], model: keras.Model, encodings: Any, folder: Path, options: Options
) -> Mapping[str, Path]:
    written: dict[str, Path] = {}
    messages = []
    if folder.exists() and not folder.is_dir():
        raise TfqatError(f"{folder} is a file; name a folder to export into.")
    with folder_on_success(folder) as temporary:
        for module in modules:
            names, message = module.write(model, encodings, temporary, options)
            written.update({role: folder / name for role, name in names.items()})
            messages.append(message)
    print("\n".join(messages))
    print(f"Written to {folder}: {', '.join(path.name for path in written.values())}.")
    return written


def _names(given: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if given is None else ((given,) if isinstance(given, str) else tuple(given))
