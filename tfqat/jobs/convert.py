"""Convert: scales from one file format into another, with the ONNX that they belong to; all files or none.

What the new files cannot express at all is refused; what they leave out is listed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from tfqat.conversion.inputs import read_inputs
from tfqat.conversion.outputs import LOWEST_OPSET, WRITERS, Choices
from tfqat.conversion.source import AIMET, CACHE, ENCODINGS, ONNX, PRECISIONS, QDQ, TEXTS, ConvertError, Source
from tfqat.core.files import folder_on_success
from tfqat.exporters import aimet, cache

FORMATS = (ENCODINGS, CACHE, QDQ, AIMET)
NEWEST = 10  # the last major version of TensorRT that reads a cache
# File names within a folder; beside a file that is named otherwise they take its stem.
NAMES: Mapping[str, str] = {
    ENCODINGS: "encodings.json",
    CACHE: "model.cache",
    QDQ: "model.qdq.onnx",
    AIMET: "model.encodings",
    ONNX: "model.onnx",
    PRECISIONS: "layer_precisions.txt",
}


def convert(
    inputs: Sequence[str | os.PathLike[str]],
    to: str,
    output: str | os.PathLike[str],
    *,
    lossless: bool = False,
    **choices: Any,
) -> Mapping[str, Path]:
    """Writes what ``inputs`` say in another format; prints what that leaves out.

    Args:
        inputs: one file that holds scales (encodings.json, a TensorRT cache, a Q/DQ ONNX, AIMET JSON), and what
            belongs to it (the float ONNX, the layer precisions beside a cache), in any order.
        to: ``encodings``, ``cache``, ``qdq_onnx`` or ``aimet``.
        output: the file to write, or a folder (one that exists, ends with a slash or has no suffix). Files that come
            with it (the float ONNX that was inside a Q/DQ ONNX, layer precisions) stand beside it.
        lossless: whether it is an error that the new files leave something out.
        choices: see :class:`Choices`.

    Returns:
        Role -> path of each file written.

    Raises:
        TfqatError: inputs that are damaged or do not belong together, what the format cannot hold, a file that would
            be overwritten unasked; nothing is written then.
        OSError: a file cannot be opened or written.
    """
    if to not in WRITERS:
        raise ConvertError(f"The format must be one of {', '.join(FORMATS)}, received {to!r}.")
    chosen = Choices(**choices)
    _check(chosen, to)
    source = read_inputs(inputs)
    result = WRITERS[to](source, chosen)
    lost = [*source.notes, *result.lost]
    if lossless and lost:
        raise ConvertError(f"{TEXTS[to]} would leave out: {'; '.join(lost)}. Convert without lossless to accept that.")
    given = [Path(path).resolve() for path in inputs]
    paths = _paths(to, os.fspath(output), list(result.files), given)
    _check_free(paths, result.files, given, to)
    folder = paths[to].parent
    with folder_on_success(folder) as temporary:
        for role, data in result.files.items():
            (temporary / paths[role].name).write_bytes(data)
    print(_message(source, to, paths, lost, result.told))
    return paths


def _check(choices: Choices, to: str) -> None:
    if choices.tensorrt_version is not None:
        cache.version_number(choices.tensorrt_version)
        if to == CACHE and int(str(choices.tensorrt_version).split(".")[0]) > NEWEST:
            raise ConvertError(
                f"tensorrt_version is {choices.tensorrt_version}, but TensorRT 11 and later read no calibration cache; "
                f"expected up to {NEWEST}, or convert into qdq_onnx."
            )
    aimet.check_version(choices.aimet_version)
    highest = onnx.defs.onnx_opset_version()
    if choices.opset is not None and not LOWEST_OPSET <= choices.opset <= highest:
        raise ConvertError(f"opset must be from {LOWEST_OPSET} to {highest}, received {choices.opset}.")


def _paths(to: str, output: str, roles: Sequence[str], inputs: Sequence[Path]) -> dict[str, Path]:
    """Role -> where it goes: the names of an export in a folder, or beside a file under its stem."""
    path = Path(output)
    if path.is_dir() or output.endswith(("/", os.sep)) or not path.suffix:
        return {role: path / NAMES[role] for role in roles}
    stem = path.name.split(".")[0] or path.stem
    beside = path.with_name(f"{stem}.onnx")
    if beside.resolve() in inputs:  # a Q/DQ ONNX that is simply called model.onnx
        beside = path.with_name(f"{stem}.float.onnx")
    others = {ONNX: beside, PRECISIONS: path.with_name(f"{stem}.{NAMES[PRECISIONS]}")}
    return {role: path if role == to else others[role] for role in roles}


def _check_free(paths: Mapping[str, Path], files: Mapping[str, bytes], inputs: Sequence[Path], to: str) -> None:
    """Refuses to write over an input, and over a file that was not named unless it is the same."""
    if len(set(paths.values())) < len(paths):
        raise ConvertError(f"{paths[to]} is also the name of a file that comes with it; name the output otherwise.")
    for role, path in paths.items():
        if path.resolve() in inputs:
            raise ConvertError(f"{path} is one of the inputs; write to another file or folder.")
        if role != to and path.exists() and path.read_bytes() != files[role]:
            raise ConvertError(
                f"{path} exists and is another file than the {TEXTS[role].removeprefix('a ')} that comes with "
                f"{paths[to].name}; write to another folder, or remove it."
            )


def _message(source: Source, to: str, paths: Mapping[str, Path], lost: Sequence[str], told: Sequence[str]) -> str:
    lines = [f"Converted {TEXTS[source.kind]} into {TEXTS[to]}."]
    lines += [f"  {line}" for text in told for line in text.split("\n")]
    lines += ["Left out:", *(f"  {text}" for text in lost)] if lost else ["Nothing is left out."]
    return "\n".join([*lines, f"Written: {', '.join(str(path) for path in paths.values())}."])
