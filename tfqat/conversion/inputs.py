"""Inputs of a conversion: what each given file is, by its content, and what they say together."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from tfqat.conversion.implicit import implicit_of, off_grid
from tfqat.conversion.source import (
    AIMET,
    CACHE,
    COMPANIONS,
    ENCODINGS,
    ONNX,
    PRECISIONS,
    QDQ,
    TEXTS,
    ConvertError,
    Source,
)
from tfqat.core.encoding import Encodings
from tfqat.core.listing import some
from tfqat.errors import TfqatError
from tfqat.exporters import aimet, cache, encodings, layer_precisions, onnx_file, onnx_qdq_read
from tfqat.exporters.json_text import JsonTextError, document_of
from tfqat.exporters.onnx_qdq import check_axes, weights_of
from tfqat.exporters.onnx_tidy import tensor_names, tidy
from tfqat.verification.simulation import check_names

# Names that TensorRT gives to tensors that the ONNX does not have.
_TENSORRTS_OWN = re.compile(r"\(Unnamed (Layer|ITensor)\* \d+\).*|ONNXTRT_.*")
_OTHER_FLOATS = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
_MARK = b"\xef\xbb\xbf"  # the byte order mark with which some editors begin a file
_PRECISIONS = re.compile(r"\s*([^:,\s][^,]*:(fp32|fp16|int8|int32)(,|\s*$))*")


def read_inputs(paths: Sequence[str | os.PathLike[str]]) -> Source:
    """Reads the files of one conversion, in any order.

    Raises:
        ConvertError: not exactly one file that holds scales, or one that the others do not go with.
        TfqatError: a file that is damaged, or files that do not belong together.
        OSError: a file cannot be opened.
    """
    files = _by_kind([Path(path) for path in paths])
    holders = [kind for kind in files if kind in COMPANIONS]
    if len(holders) != 1:
        told = "; ".join(f"{path} is {TEXTS[kind]}" for kind, path in files.items())
        raise ConvertError(
            f"Expected exactly one file that holds scales ({', '.join(TEXTS[kind] for kind in COMPANIONS)}) and what "
            f"belongs to it, received: {told}."
        )
    kind = holders[0]
    for other in files:
        if other != kind and other not in COMPANIONS[kind]:
            raise ConvertError(
                f"{files[other]} ({TEXTS[other]}) does not go with {files[kind]} ({TEXTS[kind]}), which says all that "
                f"is asked for by itself; leave it out."
            )
    model = _float_model(files[ONNX]) if ONNX in files else None
    return _READERS[kind](files, model)


def kind_of(path: Path) -> str:
    """What a file is, by its content.

    Raises:
        ConvertError: nothing that is known here.
        OSError: it cannot be opened.
    """
    data = path.read_bytes()
    if not data.strip():
        return _kind_of_nothing(path)
    begin = data.removeprefix(_MARK).lstrip()
    if begin.startswith(b"TRT-") or begin.split(b"\n", 1)[0].strip() == b"1":
        return CACHE
    if begin.startswith(b"{"):
        return _kind_of_json(path, data)
    text = _text(data)
    if text is not None and _PRECISIONS.fullmatch(text):
        return PRECISIONS
    try:
        return QDQ if onnx_qdq_read.has_pairs(onnx_file.load(path)) else ONNX
    except onnx_file.OnnxError as error:
        known = ", ".join(TEXTS.values())
        raise ConvertError(f"{path} is none of these, or is not whole: {known}. Read as ONNX: {error}") from error


def _kind_of_nothing(path: Path) -> str:
    """An empty text is what layer precisions are where no layer stays float; anything else empty was cut off."""
    if path.suffix == ".txt":
        return PRECISIONS
    raise ConvertError(f"{path} is empty; write or copy it again (only layer precisions, a .txt, may be empty).")


def _kind_of_json(path: Path, data: bytes) -> str:
    try:
        document = document_of(data)
    except JsonTextError as error:
        raise ConvertError(f"{path}: {error}") from error
    if document.get("format") == encodings.FORMAT:
        return ENCODINGS
    if aimet.is_aimet(document):
        return AIMET
    raise ConvertError(
        f"{path} is JSON, but neither encodings.json of tfqat (format {encodings.FORMAT!r}) nor AIMET encodings; its "
        f"keys are {sorted(document)[:8]}."
    )


def _text(data: bytes) -> str | None:
    if b"\x00" in data[:4096]:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _by_kind(paths: list[Path]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in paths:
        kind = kind_of(path)
        if kind in files:
            raise ConvertError(f"{files[kind]} and {path} are both {TEXTS[kind]}; give one of them.")
        files[kind] = path
    return files


def _float_model(path: Path) -> onnx.ModelProto:
    """The float ONNX that scales belong to.

    Raises:
        ConvertError: it computes in another type than float32.
    """
    model = onnx_file.load(path)
    kernels = {weight.initializer for weight in weights_of(model).values()}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer if tensor.name in kernels}
    types |= {info.name: info.type.tensor_type.elem_type for info in model.graph.input}
    halves = [name for name, kind in types.items() if kind in _OTHER_FLOATS]
    if halves:
        raise ConvertError(
            f"{path} computes in {onnx.TensorProto.DataType.Name(types[halves[0]]).lower()} ({some(halves)}), expected "
            f"float32, of which Q/DQ and caches tell how to round it; export in float32."
        )
    return model


def _from_encodings(files: Mapping[str, Path], model: onnx.ModelProto | None) -> Source:
    told = encodings.read(files[ENCODINGS])
    if model is not None:
        model = tidy(model)
        check_belongs(told, model)
    return Source(ENCODINGS, told, model)


def _from_qdq(files: Mapping[str, Path], model: onnx.ModelProto | None) -> Source:
    try:
        found = onnx_qdq_read.read(onnx_file.load(files[QDQ]))
    except onnx_qdq_read.QdqReadError as error:
        raise onnx_qdq_read.QdqReadError(f"{files[QDQ]}: {error}") from error
    return Source(QDQ, found.encodings, found.model, True, found.notes)


def _from_aimet(files: Mapping[str, Path], model: onnx.ModelProto | None) -> Source:
    model = None if model is None else tidy(model)
    try:
        found = aimet.parse(document_of(files[AIMET].read_bytes()), model)
    except aimet.AimetError as error:
        raise aimet.AimetError(f"{files[AIMET]}: {error}") from error
    notes = list(found.notes)
    rounded = {} if model is None else off_grid(model, found.encodings)
    if model is not None and rounded:
        model = onnx_file.with_constants(model, rounded)
        notes.append(f"{len(rounded)} kernels of the ONNX were not on their grids and are rounded to them")
    return Source(AIMET, found.encodings, model, bool(rounded), tuple(notes))


def _from_cache(files: Mapping[str, Path], model: onnx.ModelProto | None) -> Source:
    held = cache.read(files[CACHE])
    floats = layer_precisions.read(files[PRECISIONS]) if PRECISIONS in files else {}
    kept = [node for node, precision in floats.items() if precision != "int8"]
    if model is None:
        return Source(
            CACHE, replace(cache.to_encodings(held), float_ops=dict.fromkeys(kept, "in the layer precisions"))
        )
    whole = tidy(model)
    constants = {tensor.name for tensor in model.graph.initializer} | (
        set(tensor_names(model)) - set(tensor_names(whole))
    )
    foreign = [name for name in held.scales if _TENSORRTS_OWN.fullmatch(name) or name in constants]
    ours = cache.Cache(held.header, {name: scale for name, scale in held.scales.items() if name not in foreign})
    try:
        check_names(whole, ours, kept)
    except TfqatError as error:
        raise ConvertError(f"{files[CACHE]} and {files[ONNX]}: {error}") from error
    told, implicit = implicit_of(whole, held, ours, kept)
    remade = bool(off_grid(whole, told))
    notes = []
    if foreign:
        notes.append(
            f"{len(foreign)} lines are of tensors that TensorRT made or that are constants, not tensors of the ONNX"
        )
    return Source(CACHE, told, implicit, remade, tuple(notes))


_READERS: Mapping[str, Callable[[Mapping[str, Path], Any], Source]] = {
    ENCODINGS: _from_encodings,
    CACHE: _from_cache,
    QDQ: _from_qdq,
    AIMET: _from_aimet,
}


def check_belongs(told: Encodings, model: onnx.ModelProto) -> None:
    """Refuses encodings of another model.

    Raises:
        ConvertError: lists what each side lacks.
        QdqError: the channels of a kernel are on another axis.
    """
    tensors, kernels = tensor_names(model), weights_of(model)
    missing = [name for name in told.activations if name not in set(tensors)]
    missing += [name for name in told.weights if name not in kernels]
    if missing:
        without = [name for name in tensors if name not in told.activations]
        without += [name for name in kernels if name not in told.weights]
        raise ConvertError(
            f"The encodings belong to another model: {len(missing)} of their names are not in the ONNX "
            f"({some(missing)}); {len(without)} tensors and kernels of the ONNX have no encoding ({some(without)})."
        )
    nodes = {node.name: node for node in model.graph.node}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for name, encoding in told.weights.items():
        check_axes(nodes[name], shapes[kernels[name].initializer], encoding)
