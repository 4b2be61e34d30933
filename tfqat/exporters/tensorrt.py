"""TensorRT files: float ONNX with a calibration cache (up to 10.x), Q/DQ ONNX (8.0 and later), and company."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import onnx

from tfqat.core.encoding import Encodings
from tfqat.errors import TfqatError
from tfqat.exporters import (
    cache,
    carry,
    coverage,
    encodings,
    layer_precisions,
    manifest,
    onnx_float,
    onnx_qdq,
    requantization,
)
from tfqat.exporters.options import Options

ONNX, QDQ, CACHE = "onnx", "qdq_onnx", "cache"
PRECISIONS, ENCODINGS, MANIFEST = "layer_precisions", "encodings", "manifest"
# Role of each file -> its name; the cache's may be chosen.
NAMES: Mapping[str, str] = {
    ONNX: "model.onnx",
    CACHE: "model.cache",
    QDQ: "model.qdq.onnx",
    PRECISIONS: "layer_precisions.txt",
    ENCODINGS: "encodings.json",
    MANIFEST: "manifest.json",
}


def check(options: Options) -> None:
    """Refuses options before anything is computed.

    Raises:
        TfqatError: a TensorRT version, opset or file name that cannot be.
    """
    cache.version_number(options.tensorrt_version)
    onnx_float.check_opset(options.opset)
    taken = [name for role, name in NAMES.items() if role != CACHE]
    if options.cache_name in taken:
        raise TfqatError(f"The cache cannot be called {options.cache_name!r}: that is another file of the export.")


def write(model: keras.Model, learnt: Encodings, folder: Path, options: Options) -> tuple[dict[str, str], str]:
    """Writes the files into ``folder``.

    Args:
        model: the float model, BatchNorm folded, kernels on their grids.
        learnt: its Encodings, in names of the view of ``model``.
        folder: an existing folder; files of the same names are replaced.
        options: how.

    Returns:
        Role -> file name, and what to tell the user.

    Raises:
        TfqatError: what a file cannot hold; a dead tensor under ``strict``.
    """
    check(options)
    named = onnx_float.convert(model, options.opset, options.input_names, options.output_names)
    told = carry.to_onnx(named, learnt)
    dead = _checked_dead(told, options)
    moved = requantization.errors(named.model, told)
    covered = coverage.cover(named.model, told.activations, told.float_ops)
    names = {**NAMES, CACHE: options.cache_name}
    _write_models(named.model, told, folder, names, options)
    report = {
        "coverage": asdict(covered),
        "float": dict(told.float_ops),
        "dead": dead,
        "origins": manifest.origins(told),
        "requantization_steps": moved,
        "tensors": {keras_name: name for keras_name, name in named.tensors.items() if keras_name != name},
    }
    files = {role: manifest.entry(folder / names[role], text) for role, text in readers(options).items()}
    chosen = {key: value for key, value in asdict(options).items() if key != "cache_name"}
    manifest.write(folder / names[MANIFEST], manifest.Manifest(told.target, files, chosen, report))
    return names, _message(covered, told, dead, moved, files)


def readers(options: Options) -> dict[str, str]:
    """Role -> which program reads the file, and how."""
    major = cache.version_number(options.tensorrt_version) // (1000 if options.tensorrt_version[1] == "." else 10000)
    names = {**NAMES, CACHE: options.cache_name}
    command = (
        f"trtexec --onnx={names[ONNX]} --int8 --calib={names[CACHE]} --precisionConstraints=obey "
        f"--layerPrecisions=$(cat {names[PRECISIONS]})"
    )
    implicit = "TensorRT 8 to 10" + ("; not the chosen 11 or later, which have no calibrators" if major > 10 else "")
    return {
        ONNX: f"{implicit}: {command}",
        CACHE: f"{implicit}, made for {options.tensorrt_version}; beside {names[ONNX]}",
        QDQ: f"TensorRT {10 if options.int8_weights else 8} and later, 11 included: trtexec --onnx={names[QDQ]} --int8",
        PRECISIONS: f"trtexec --layerPrecisions, beside {names[CACHE]}; empty where no layer is float",
        ENCODINGS: "tfqat, and any program that reads JSON",
    }


def _write_models(
    model: onnx.ModelProto, told: Encodings, folder: Path, names: Mapping[str, str], options: Options
) -> None:
    onnx_float.save(model, folder / names[ONNX])
    cache.write(folder / names[CACHE], told.activations, options.tensorrt_version)
    qdq = onnx_qdq.insert(model, told, options.int8_weights)
    onnx.checker.check_model(qdq, full_check=True)
    onnx_float.save(qdq, folder / names[QDQ])
    layer_precisions.write(folder / names[PRECISIONS], told.float_ops)
    encodings.write(folder / names[ENCODINGS], told)


def _checked_dead(told: Encodings, options: Options) -> list[str]:
    dead = manifest.dead(told)
    if dead and options.strict:
        raise TfqatError(
            f"{len(dead)} tensors were zero wherever they were looked at: {dead[:10]}. Calibrate with data that reach "
            f"them, or export without strict, which gives them the smallest scale."
        )
    return dead


def _message(
    covered: coverage.Coverage,
    told: Encodings,
    dead: list[str],
    moved: Mapping[str, float],
    files: Mapping[str, Mapping[str, Any]],
) -> str:
    lines = [coverage.describe(covered, told.float_ops)]
    if dead:
        shown = ", ".join(dead[:10]) + (f" and {len(dead) - 10} more, see the manifest" if len(dead) > 10 else "")
        lines.append(f"  dead (zero wherever looked at, smallest scale given): {shown}")
    lines += [text for text in [requantization.describe(moved)] if text]
    lines += [f"{row['name']}: {row['read_by']}" for row in files.values()]
    return "\n".join(lines)
