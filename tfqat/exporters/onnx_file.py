"""ONNX files: reading and writing, without Keras."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import external_data_helper, numpy_helper, version_converter

from tfqat.core.files import write_bytes
from tfqat.errors import TfqatError


class OnnxError(TfqatError):
    """An ONNX model that cannot be made or read."""


def save(model: onnx.ModelProto, path: str | os.PathLike[str]) -> Path:
    """Writes the model, whole or not at all; the same model gives the same bytes."""
    return write_bytes(path, serialized(model))


def serialized(model: onnx.ModelProto) -> bytes:
    """The bytes of the file; the same for the same model.

    Raises:
        OnnxError: they would be 2 GB or more, a limit of protobuf.
    """
    try:
        return model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise OnnxError(
            f"The model does not fit into one ONNX file of less than 2 GB ({first_line(error)})."
        ) from error


def load(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Reads an ONNX file, and the files beside it that hold its weights, where there are any.

    Raises:
        OnnxError: the file is cut off or is no ONNX model, or a file of weights is missing.
        OSError: it cannot be opened.
    """
    data = Path(path).read_bytes()
    try:
        model = onnx.load_model_from_string(data)
        if any(external_data_helper.uses_external_data(tensor) for tensor in model.graph.initializer):
            onnx.load_external_data_for_model(model, str(Path(path).parent))
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, FileNotFoundError) as error:
        raise OnnxError(f"{path} is not a whole ONNX model ({first_line(error)}); export it again.") from error
    return model


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the default operator set."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def with_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in another opset; itself where it is in that one already.

    Raises:
        OnnxError: onnx cannot convert it.
    """
    if opset_of(model) == opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except RuntimeError as error:
        raise OnnxError(
            f"onnx cannot convert this model from opset {opset_of(model)} to {opset} ({first_line(error)}); use "
            f"opset {opset_of(model)}, or export it with {opset} where it was made."
        ) from error


def with_constants(model: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A copy of the model with other values for some initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[tensor.name]), tensor.name))
    return copy


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its class."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
