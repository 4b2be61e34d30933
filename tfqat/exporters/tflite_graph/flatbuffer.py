"""Flatbuffer: a TFLite model while it is being made; tensors, constants and operators, by the schema's object API.

Format: ``tensorflow/compiler/mlir/lite/schema/schema.fbs``, version 3, file identifier ``TFL3``. Tensors are int8 with
their own scale, constants int8 or int32; a batch is 1 in ``shape`` and -1 in ``shape_signature``, so that an
interpreter can resize it. The same calls give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfqat.core.encoding import Encoding
from tfqat.exporters.tflite_graph.operators import OPERATORS

VERSION, IDENTIFIER, DESCRIPTION = 3, b"TFL3", "tfqat"
SIGNATURE = "serving_default"
# Of the data in a file: readers map it into memory and use it in place.
ALIGNMENT = 16
# Offsets are signed 32-bit numbers; this much is kept for all but the constants.
LARGEST, RESERVED = 2**31 - 1, 2**24
UNKNOWN = -1

Shape = tuple[int | None, ...]


class TooLarge(ValueError):
    """More bytes of constants than a flatbuffer can address."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the model.

    Attributes:
        index: its number.
        name: its name.
        shape: None for the batch.
        encoding: its scale and zero point, None where its values are plain integers (a shape, an axis).
    """

    index: int
    name: str
    shape: Shape
    encoding: Encoding | None


class AlignedBuffer(schema.BufferT):
    """A constant's bytes at a multiple of ALIGNMENT: the schema's ``force_align``, which Python's writer forgets."""

    def Pack(self, builder: Any) -> Any:
        if self.data is None:
            return super().Pack(builder)
        data = self.data.tobytes()
        builder.Prep(ALIGNMENT, len(data))
        vector = builder.CreateByteVector(data)
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class Flatbuffer:
    """One subgraph: what has been added to it so far."""

    def __init__(self) -> None:
        self._graph = schema.SubGraphT()
        self._graph.name = "main"
        self._graph.tensors, self._graph.operators = [], []
        self._codes: dict[tuple[str, int], int] = {}
        self._buffers = [AlignedBuffer()]  # by convention the first is empty: that of tensors without data
        self._names: set[str] = set()
        self._stored_at: dict[bytes, int] = {}
        self._constants = 0

    @property
    def operators(self) -> dict[str, int]:
        """Operator -> how often it stands in the model."""
        names = {index: name for (name, _), index in self._codes.items()}
        found = [names[op.opcodeIndex] for op in self._graph.operators]
        return {name: found.count(name) for name in sorted(set(found))}

    def activation(self, name: str, shape: Shape, encoding: Encoding | None) -> Tensor:
        """A tensor that is computed: int8 with an Encoding, else int32."""
        kind = schema.TensorType.INT8 if encoding is not None else schema.TensorType.INT32
        quantization = None if encoding is None else _quantization(encoding.scale, encoding.zero_point, 0)
        return self._tensor(name, shape, kind, 0, quantization, encoding)

    def constant(
        self, name: str, values: np.ndarray, scale: Any | None = None, axis: int = 0, zero_point: int = 0
    ) -> Tensor:
        """Stored integers, int8 or int32; they stand for real numbers where ``scale`` (one, or one an index) is given.

        Raises:
            TooLarge: the model has grown beyond what the format can hold.
        """
        grid = None if scale is None else _quantization(scale, np.full(np.shape(scale), zero_point), axis)
        kind = {np.dtype(np.int8): schema.TensorType.INT8, np.dtype(np.int32): schema.TensorType.INT32}[values.dtype]
        return self._tensor(name, values.shape, kind, self._stored(values), grid, None)

    def add(
        self, operator: str, inputs: Sequence[Tensor], output: Tensor, version: int | None = None, **options: Any
    ) -> None:
        """Appends an operator.

        Args:
            operator: one of OPERATORS.
            inputs: what it reads, in the order of the schema.
            output: what it writes.
            version: where it is not the usual one.
            options: fields of its options table, in the schema's spelling.
        """
        row = OPERATORS[operator]
        op = schema.OperatorT()
        key = (operator, row.version if version is None else version)
        op.opcodeIndex = self._codes.setdefault(key, len(self._codes))
        op.inputs, op.outputs = [tensor.index for tensor in inputs], [output.index]
        if row.options is not None:
            op.builtinOptionsType = getattr(schema.BuiltinOptions, row.options)
            op.builtinOptions = getattr(schema, f"{row.options}T")()
            for field, value in options.items():
                setattr(op.builtinOptions, field, value)
        self._graph.operators.append(op)

    def finish(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> bytes:
        """The file; ``inputs`` and ``outputs`` are name in the signature -> tensor, in order."""
        self._graph.inputs = [tensor.index for tensor in inputs.values()]
        self._graph.outputs = [tensor.index for tensor in outputs.values()]
        model = schema.ModelT()
        model.version, model.description = VERSION, DESCRIPTION
        model.operatorCodes = [_code(name, version) for name, version in self._codes]
        model.subgraphs, model.buffers = [self._graph], self._buffers
        model.metadata = [self._metadata("min_runtime_version", _oldest_runtime(self._codes))]
        model.signatureDefs = [_signature(inputs, outputs)]
        return pack(model, self._constants)

    def _tensor(
        self, name: str, shape: Shape, kind: int, buffer: int, quantization: Any, encoding: Encoding | None
    ) -> Tensor:
        made = schema.TensorT()
        made.name, made.type, made.buffer, made.quantization = self._unique(name), kind, buffer, quantization
        made.shape = [1 if size is None else size for size in shape]
        if None in shape:
            made.shapeSignature = [UNKNOWN if size is None else size for size in shape]
        self._graph.tensors.append(made)
        return Tensor(len(self._graph.tensors) - 1, made.name, shape, encoding)

    def _stored(self, values: np.ndarray) -> int:
        """The buffer of these bytes; calls of one layer share theirs."""
        # In the order of bytes that the format prescribes, whatever this machine's.
        data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        key = hashlib.sha256(data.tobytes()).digest()
        if key not in self._stored_at:
            self._constants += data.nbytes
            if self._constants > LARGEST - RESERVED:
                raise TooLarge(f"{self._constants} bytes of constants, where the format ends at {LARGEST}")
            buffer = AlignedBuffer()
            buffer.data = data
            self._buffers.append(buffer)
            self._stored_at[key] = len(self._buffers) - 1
        return self._stored_at[key]

    def _unique(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._names:
            name, number = f"{wanted}_{number}", number + 1
        self._names.add(name)
        return name

    def _metadata(self, name: str, text: str) -> Any:
        buffer = AlignedBuffer()
        buffer.data = np.frombuffer(text.encode().ljust(16, b"\0"), np.uint8)
        self._buffers.append(buffer)
        metadata = schema.MetadataT()
        metadata.name, metadata.buffer = name, len(self._buffers) - 1
        return metadata


def pack(model: Any, size_hint: int = 0) -> bytes:
    """A model of the schema's object API as the bytes of a file."""
    builder = flatbuffers.Builder(size_hint + 2**16)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def unpack(data: bytes) -> Any:
    """The bytes of a file as a model of the schema's object API."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for buffer in model.buffers:
        buffer.__class__ = AlignedBuffer
    return model


def _quantization(scale: Any, zero_point: Any, axis: int) -> Any:
    made = schema.QuantizationParametersT()
    made.scale = np.atleast_1d(np.asarray(scale, np.float32))
    made.zeroPoint = np.atleast_1d(np.asarray(zero_point, np.int64))
    made.quantizedDimension = axis
    return made


def _code(name: str, version: int) -> Any:
    made = schema.OperatorCodeT()
    made.builtinCode = getattr(schema.BuiltinOperator, name)
    # Readers from before the field had 32 bits look at this one.
    made.deprecatedBuiltinCode = min(made.builtinCode, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    made.version = version
    return made


def _oldest_runtime(codes: Mapping[tuple[str, int], int]) -> str:
    """The oldest runtime that knows all operators."""
    numbers = [OPERATORS[name].runtime_of(version) for name, version in codes] or ["1.5.0"]
    return max(numbers, key=lambda text: tuple(map(int, text.split("."))))


def _signature(inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Any:
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = SIGNATURE, 0
    made.inputs, made.outputs = _tensor_maps(inputs), _tensor_maps(outputs)
    return made


def _tensor_maps(tensors: Mapping[str, Tensor]) -> list[Any]:
    found = []
    for name, tensor in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, tensor.index
        found.append(entry)
    return found
