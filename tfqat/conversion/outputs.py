"""Outputs of a conversion: the files of each format, made in memory, with what they leave out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import onnx

from tfqat.conversion.losses import (
    check_symmetric,
    listed,
    lost_by_cache,
    lost_by_qdq,
    lost_of_cache,
    lost_origins,
    lost_readers,
    lost_target,
    requantized,
)
from tfqat.conversion.source import AIMET, CACHE, ENCODINGS, ONNX, PRECISIONS, QDQ, ConvertError, Source
from tfqat.core.encoding import Encodings
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
)

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
class Result:
    """Files to be written, and what to tell.

    Attributes:
        files: role -> bytes.
        lost: what the inputs say and these files do not.
        told: what else there is to know.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def _to_encodings(source: Source, choices: Choices) -> Result:
    result = Result({ENCODINGS: encodings.render(source.encodings).encode()})
    if source.remade:
        result.files[ONNX] = _bytes(source)
    return result


def _to_cache(source: Source, choices: Choices) -> Result:
    told = source.encodings
    check_symmetric(told)
    result = Result({CACHE: b""}, lost_by_cache(source))
    if source.kind != CACHE:
        if source.model is not None:
            told = _beside_onnx(source, source.model, result)
        if told.float_ops:
            result.files[PRECISIONS] = layer_precisions.render(told.float_ops).encode()
    result.files[CACHE] = cache.from_encodings(told, choices.tensorrt_version).encode()
    colons = [name for name in told.activations if ":" in name]
    result.told += listed("names hold a colon, where ONNX Runtime and NVDLA split a line, trtexec does not", colons)
    return result


def _beside_onnx(source: Source, model: onnx.ModelProto, result: Result) -> Encodings:
    """The Encodings of all tensors that get a line beside the float ONNX, which joins the files if it is a new one."""
    told = replace(source.encodings, activations=carry.spread(model, source.encodings.activations))
    shared = [name for name in told.activations if name not in source.encodings.activations]
    result.told += listed("tensors share the range of another and have lines, too", shared)
    if source.kind == QDQ:
        model, told, renamed = onnx_names_plain.plain(model, told)
        result.told += listed("names changed, for the readers of caches", renamed)
    if source.remade:
        result.files[ONNX] = onnx_file.serialized(model)
    covered = coverage.cover(model, told.activations, told.float_ops)
    result.told.append(coverage.describe(covered, told.float_ops))
    unlike = [name for name in told.weights if name in covered.float_nodes and name not in told.float_ops]
    result.lost += listed("layers of INT8 are float beside a cache, for want of a line", unlike)
    result.lost += requantized(model, told)
    result.told += listed(
        "activations of several nodes have no lines inside, as their ranges are unknown; where TensorRT does not fuse "
        "one, its layers run in float. They begin at",
        onnx_blocks.spelled_out(model, told.activations),
    )
    return told


def _to_qdq(source: Source, choices: Choices) -> Result:
    told, model = source.encodings, _model(source, "A Q/DQ ONNX")
    opset = choices.opset or max(onnx_file.opset_of(model), LOWEST_OPSET)
    made = onnx_qdq.insert(onnx_file.with_opset(model, opset), told, choices.int8_weights, clip=True)
    try:
        onnx.checker.check_model(made, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConvertError(f"onnx.checker refuses the Q/DQ ONNX: {onnx_file.first_line(error)}") from error
    result = Result({QDQ: onnx_file.serialized(made)}, lost_of_cache(told))
    inner = [name for name, encoding in told.activations.items() if encoding.origin == "calibrated"]
    result.lost += listed("scales inside a fused block, or behind what does not run in INT8, get no Q/DQ", inner)
    result.lost += lost_by_qdq(source)
    integers = {name for node in made.graph.node if node.op_type == "QuantizeLinear" for name in node.output}
    clipped = [node.name for node in made.graph.node if node.op_type == "Clip" and node.input[0] in integers]
    result.told += listed("tensors use part of their integers, by a Clip, which TensorRT refuses", clipped)
    pairs = len(onnx_qdq.scales_of(made))
    result.told.append(f"{pairs} tensors and {len(told.weights)} kernels have Q/DQ; opset {opset}")
    result.told += [f"float: {node} ({reason})" for node, reason in told.float_ops.items()]
    return result


def _to_aimet(source: Source, choices: Choices) -> Result:
    told, version = source.encodings, choices.aimet_version
    text = aimet.render(told, source.model, version)
    result = Result({AIMET: text.encode()}, lost_of_cache(told) + lost_readers(told) + lost_origins(told))
    if source.kind == QDQ:
        result.files[ONNX] = _bytes(source)
    result.lost += lost_target(told) if source.kind == ENCODINGS else []
    result.lost += [line for text, names in aimet.not_held(told, version).items() for line in listed(text, names)]
    why = "layers stay float, but not why" if version == "1.0.0" else "layers stay float, which is not said"
    result.lost += listed(why, list(told.float_ops))
    return result


WRITERS: Mapping[str, Callable[[Source, Choices], Result]] = {
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
