"""Convert: scales from one file format into another, with the ONNX that they belong to; all files or none.

What the new files cannot express at all is refused; what they leave out is listed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tfqat.core.encoding import Encodings
from tfqat.core.files import folder_on_success
from tfqat.exporters import (
    aimet,
    cache,
    carry,
    coverage,
    encodings,
    layer_precisions,
    onnx_blocks,
    onnx_file,
    onnx_names_plain,
    onnx_qdq,
    requantization,
)
from tfqat.exporters.onnx_qdq import OUTPUT, UNQUANTIZED_READERS, weights_of
from tfqat.jobs.convert_inputs import (
    AIMET,
    CACHE,
    ENCODINGS,
    ONNX,
    PRECISIONS,
    QDQ,
    TEXTS,
    ConvertError,
    Source,
    read_inputs,
    some,
)

FORMATS = (ENCODINGS, CACHE, QDQ, AIMET)
# File names within a folder; beside a file that is named otherwise they take its stem.
NAMES: Mapping[str, str] = {
    ENCODINGS: "encodings.json",
    CACHE: "model.cache",
    QDQ: "model.qdq.onnx",
    AIMET: "model.encodings",
    ONNX: "model.onnx",
    PRECISIONS: "layer_precisions.txt",
}
LOWEST_OPSET = 13  # of QuantizeLinear with an axis


@dataclass(frozen=True)
class Choices:
    """How to write.

    Attributes:
        tensorrt_version: in a cache's header; None for the one that the scales came with, or 8.6.1.
        aimet_version: of AIMET encodings.
        opset: of a Q/DQ ONNX; None for that of the float ONNX, or 13 where that is lower.
        int8_weights: whether a Q/DQ ONNX holds its kernels as integers.
    """

    tensorrt_version: str | None = None
    aimet_version: str = aimet.DEFAULT_VERSION
    opset: int | None = None
    int8_weights: bool = False


@dataclass
class _Result:
    """Files to be written, and what to tell.

    Attributes:
        files: role -> bytes.
        lost: what the inputs say and these files do not.
        told: what else there is to know.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


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
    if to not in _WRITERS:
        raise ConvertError(f"The format must be one of {', '.join(FORMATS)}, received {to!r}.")
    chosen = Choices(**choices)
    _check(chosen)
    source = read_inputs(inputs)
    result = _WRITERS[to](source, chosen)
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


def _check(choices: Choices) -> None:
    if choices.tensorrt_version is not None:
        cache.version_number(choices.tensorrt_version)
    aimet.check_version(choices.aimet_version)
    highest = onnx.defs.onnx_opset_version()
    if choices.opset is not None and not LOWEST_OPSET <= choices.opset <= highest:
        raise ConvertError(f"opset must be from {LOWEST_OPSET} to {highest}, received {choices.opset}.")


# One function a format.


def _to_encodings(source: Source, choices: Choices) -> _Result:
    result = _Result({ENCODINGS: encodings.render(source.encodings).encode()})
    if source.remade:
        result.files[ONNX] = _bytes(source)
    return result


def _to_cache(source: Source, choices: Choices) -> _Result:
    told = source.encodings
    _check_symmetric(told)
    result = _Result({CACHE: b""}, _lost_by_cache(source))
    if source.kind != CACHE:
        if source.model is not None:
            told = _beside_onnx(source, source.model, result)
        if told.float_ops:
            result.files[PRECISIONS] = layer_precisions.render(told.float_ops).encode()
    result.files[CACHE] = cache.from_encodings(told, choices.tensorrt_version).encode()
    colons = [name for name in told.activations if ":" in name]
    result.told += _listed("names hold a colon, where ONNX Runtime and NVDLA split a line, trtexec does not", colons)
    return result


def _beside_onnx(source: Source, model: onnx.ModelProto, result: _Result) -> Encodings:
    """The Encodings of all tensors that get a line beside the float ONNX, which joins the files if it is a new one."""
    told = replace(source.encodings, activations=carry.spread(model, source.encodings.activations))
    shared = [name for name in told.activations if name not in source.encodings.activations]
    result.told += _listed("tensors share the range of another and have lines, too", shared)
    if source.kind == QDQ:
        model, told, renamed = onnx_names_plain.plain(model, told)
        result.told += _listed("names changed, for the readers of caches", renamed)
    if source.remade:
        result.files[ONNX] = onnx_file.serialized(model)
    covered = coverage.cover(model, told.activations, told.float_ops)
    result.told.append(coverage.describe(covered, told.float_ops))
    unlike = [name for name in told.weights if name in covered.float_nodes and name not in told.float_ops]
    result.lost += _listed("layers of INT8 are float beside a cache, for want of a line", unlike)
    result.lost += _requantized(model, told)
    result.told += _listed(
        "activations of several nodes have no lines inside, as their ranges are unknown; where TensorRT does not fuse "
        "one, its layers run in float. They begin at",
        onnx_blocks.spelled_out(model, told.activations),
    )
    return told


def _to_qdq(source: Source, choices: Choices) -> _Result:
    told, model = source.encodings, _model(source, "A Q/DQ ONNX")
    opset = choices.opset or max(onnx_file.opset_of(model), LOWEST_OPSET)
    made = onnx_qdq.insert(onnx_file.with_opset(model, opset), told, choices.int8_weights, clip=True)
    try:
        onnx.checker.check_model(made, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConvertError(f"onnx.checker refuses the Q/DQ ONNX: {onnx_file.first_line(error)}") from error
    result = _Result({QDQ: onnx_file.serialized(made)}, _lost_of_cache(told))
    inner = [name for name, encoding in told.activations.items() if encoding.origin == "calibrated"]
    result.lost += _listed("scales inside a fused block, or behind what does not run in INT8, get no Q/DQ", inner)
    clipped = [node.name for node in made.graph.node if node.op_type == "Clip" and node.name.endswith("/clip")]
    result.told += _listed("tensors use part of their integers, by a Clip, which TensorRT refuses", clipped)
    pairs = len(onnx_qdq.scales_of(made))
    result.told.append(f"{pairs} tensors and {len(told.weights)} kernels have Q/DQ; opset {opset}")
    result.told += [f"float: {node} ({reason})" for node, reason in told.float_ops.items()]
    return result


def _to_aimet(source: Source, choices: Choices) -> _Result:
    told, version = source.encodings, choices.aimet_version
    text = aimet.render(told, source.model, version)
    result = _Result({AIMET: text.encode()}, _lost_of_cache(told) + _lost_readers(told) + _lost_origins(told))
    if source.kind == QDQ:
        result.files[ONNX] = _bytes(source)
    narrow = [name for name, encoding in told.activations.items() if encoding.scheme.narrow]
    result.lost += _listed("activations use the lowest integer then", narrow)
    why = "layers stay float, but not why" if version == "1.0.0" else "layers stay float, which is not said"
    result.lost += _listed(why, list(told.float_ops))
    return result


_WRITERS: Mapping[str, Callable[[Source, Choices], _Result]] = {
    ENCODINGS: _to_encodings,
    CACHE: _to_cache,
    QDQ: _to_qdq,
    AIMET: _to_aimet,
}


def _model(source: Source, what: str) -> onnx.ModelProto:
    if source.model is None:
        raise ConvertError(f"{what} needs the float ONNX that the scales belong to: give it as a further input.")
    return source.model


def _bytes(source: Source) -> bytes:
    return onnx_file.serialized(_model(source, "this"))


# What is refused, and what is lost.


def _check_symmetric(told: Encodings) -> None:
    """Refuses what TensorRT's implicit mode cannot run.

    Raises:
        ConvertError: zero points, several scales a tensor, more than 8 bits; lists the tensors.
    """
    rows = [*told.activations.items(), *((f"kernel of {node}", e) for node, e in told.weights.items())]
    shifted = [
        name
        for name, encoding in rows
        if (encoding.zero_point != (0 if encoding.scheme.signed else 2 ** (encoding.scheme.bits - 1))).any()
    ]
    if shifted:
        raise ConvertError(
            f"TensorRT has no zero points (asymmetric, or unsigned: uint8 that is not centered on 128), but "
            f"{len(shifted)} tensors have: {some(shifted)}. Quantize symmetrically (target tensorrt, torch.qint8 with "
            f"per_tensor_symmetric), or keep the Q/DQ ONNX for another runtime."
        )
    wide = [name for name, encoding in rows if encoding.scheme.bits > 8]
    if wide:
        raise ConvertError(
            f"A TensorRT cache holds scales of int8, but {len(wide)} tensors have more bits: {some(wide)}."
        )


def _lost_by_cache(source: Source) -> list[str]:
    told = source.encodings
    if source.kind == CACHE:
        return []
    kernels = _listed(
        "kernels' scales, for which TensorRT takes max|w| / 127 of each output channel", list(told.weights)
    )
    fewer = [name for name, e in told.activations.items() if e.scheme.bits < 8 or e.scheme.narrow]
    return [
        *kernels,
        *_listed("tensors use all 256 integers then", fewer),
        *_lost_readers(told),
        *_lost_origins(told),
        *_listed("layers stay float, but not why", list(told.float_ops)),
    ]


def _lost_origins(told: Encodings) -> list[str]:
    origins = {e.origin for e in (*told.activations.values(), *told.weights.values())} - {"imported"}
    return [f"where scales come from ({', '.join(sorted(origins))})"] if origins else []


def _lost_readers(told: Encodings) -> list[str]:
    """Tensors that some read rounded and others as they are: with one scale a tensor all read it rounded."""
    raw: Mapping[str, Sequence[str]] = told.metadata.get(UNQUANTIZED_READERS, {})
    rows = [
        f"{tensor} (by {', '.join('the model output' if node == OUTPUT else node for node in nodes)})"
        for tensor, nodes in raw.items()
    ]
    return _listed("tensors were also read without their Q/DQ", rows)


def _lost_of_cache(told: Encodings) -> list[str]:
    """What only a cache holds."""
    said = told.metadata.get(cache.METADATA, {})
    header = [f"the header {said['header']}"] if "header" in said else []
    others = list(said.get(cache.OTHERS, {}))
    return header + _listed("lines that are no usable scale, or of no tensor of the ONNX", others)


def _listed(text: str, names: Sequence[str]) -> list[str]:
    """One line about the tensors or layers, if there are any."""
    return [f"{len(names)} {text}: {some(names)}"] if names else []


def _requantized(model: onnx.ModelProto, told: Encodings) -> list[str]:
    """The kernels that get other integers from TensorRT: channel by channel those that do not reach 127."""
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    moved = requantization.errors(model, told)
    found = []
    for node, weight in weights_of(model).items():
        if node not in told.weights:
            continue
        kernel = numpy_helper.to_array(arrays[weight.initializer])
        integers, _, _ = onnx_qdq.on_grid(weight, kernel, told.weights[node])
        channels = np.moveaxis(np.abs(integers - _middle(told, node)), weight.axis, 0)
        largest = channels.reshape(len(channels), -1).max(axis=1, initial=0)
        other = np.flatnonzero((largest != 127) & (largest != 0)).tolist()
        if other:
            found.append(
                f"integers of kernels that do not reach 127, which TensorRT makes anew: {node}, channels "
                f"{_ranges(other)} of {largest.size}; weights move by up to {moved.get(node, 0):.2g} steps"
            )
    return found


def _middle(told: Encodings, node: str) -> int:
    scheme = told.weights[node].scheme
    return 0 if scheme.signed else 2 ** (scheme.bits - 1)


def _ranges(numbers: list[int]) -> str:
    """``0-3, 7`` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(str(end) for end in run) for run in runs)


# Files.


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
                f"{path} exists and is another {TEXTS[role]} than the one that comes with {paths[to].name}; write to "
                f"another folder, or remove it."
            )


def _message(source: Source, to: str, paths: Mapping[str, Path], lost: Sequence[str], told: Sequence[str]) -> str:
    lines = [f"Converted {TEXTS[source.kind]} into {TEXTS[to]}."]
    lines += [f"  {line}" for text in told for line in text.split("\n")]
    lines += ["Left out:", *(f"  {text}" for text in lost)] if lost else ["Nothing is left out."]
    return "\n".join([*lines, f"Written: {', '.join(str(path) for path in paths.values())}."])
