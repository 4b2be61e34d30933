"""AIMET encodings, read; see ``aimet`` for what they are.

What a file does not say is taken from the ONNX: which entries are kernels (2.0.0), their channel axis, and whether
their lowest integer is in use.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tfqat.core.encoding import Encoding, Encodings
from tfqat.core.listing import some
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError
from tfqat.exporters.json_text import JsonTextError, document_of
from tfqat.exporters.onnx_qdq import Weight, keras_axes, weights_of
from tfqat.exporters.onnx_tidy import tensor_names

VERSIONS = ("0.6.1", "1.0.0", "2.0.0")
TARGET = "imported"  # Encodings.target of what is read
EXCLUDED = "excluded from quantization in the AIMET file"
_ROUNDING = 1e-5  # of float32, in parts of a range
SIGNED = "signed_asymmetric"  # key of the tensors that are so; tfqat's own


class AimetError(TfqatError):
    """AIMET encodings that cannot be written or read."""


@dataclass(frozen=True)
class Read:
    """What an AIMET file says.

    Attributes:
        encodings: in names of the ONNX.
        notes: entries that they do not hold.
    """

    encodings: Encodings
    notes: tuple[str, ...]


def read(path: str | os.PathLike[str], model: onnx.ModelProto | None) -> Encodings:
    """The Encodings of an AIMET file of any of the VERSIONS; see :func:`parse`.

    Raises:
        AimetError: names the file and the entry.
        OSError: the file cannot be opened.
    """
    try:
        return parse(document_of(Path(path).read_bytes()), model).encodings
    except (AimetError, JsonTextError) as error:
        raise AimetError(f"{path}: {error}") from error


def is_aimet(document: object) -> bool:
    """Whether a JSON document is (meant to be) AIMET encodings."""
    return isinstance(document, dict) and bool({"activation_encodings", "param_encodings", "encodings"} & set(document))


def parse(document: object, model: onnx.ModelProto | None) -> Read:
    """Encodings of a JSON document.

    Args:
        document: what the file holds.
        model: the float ONNX that it belongs to; None will do for 0.6.1 and 1.0.0 where no parameter is quantized.

    Raises:
        AimetError: another format or version, an entry that no Encoding holds, names that the model lacks.
    """
    if not isinstance(document, dict) or not is_aimet(document):
        raise AimetError("expected an object with activation_encodings and param_encodings, or with encodings.")
    version = document.get("version")
    if not isinstance(version, str) or version not in _PARSERS:
        raise AimetError(f"expected AIMET encodings of version {', '.join(VERSIONS)}, received version {version!r}.")
    return _told(document, _PARSERS[version](document), model)


@dataclass(frozen=True)
class _Entry:
    """One tensor as a file has it.

    Attributes:
        name: of the tensor or initializer.
        param: whether it is a parameter; None where the file does not say.
        encoding: with axis (-1,) where there are channels; None for floats and int32 biases.
        axis: of the channels in the initializer, where the file says it.
    """

    name: str
    param: bool | None
    encoding: Encoding | None
    axis: int | None = None


def _parse_0_6_1(document: Mapping[str, Any]) -> list[_Entry]:
    signed = _names(document, SIGNED)
    found = []
    for section, param in (("activation_encodings", False), ("param_encodings", True)):
        for name, rows in _section(document, section, dict).items():
            where = f"{section}.{name}"
            if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
                raise AimetError(f"{where} must be a list of encodings, received {str(rows)[:80]}.")
            if _is_float(rows[0]):
                found.append(_Entry(name, param, None))
                continue
            grid = {
                "bits": _same(where, [_integer(where, row, "bitwidth") for row in rows]),
                "symmetric": _same(where, [_flag(where, row, "is_symmetric") for row in rows]),
                "scale": [_number(where, row, "scale") for row in rows],
                "offset": [_integer(where, row, "offset") for row in rows],
                "channels": len(rows) > 1,
                "signed": name in signed,
            }
            found.append(_Entry(name, param, _encoding(where, **grid)))
            for row in rows:
                _check_range(where, row, grid["bits"])
    return found


def _check_range(where: str, row: Mapping[str, Any], bits: int) -> None:
    """Refuses a row of 0.6.1 whose min and max are not those of its scale and offset.

    A strictly symmetric grid has a step less, or not, by who wrote it.
    """
    scale, offset = _number(where, row, "scale"), _integer(where, row, "offset")
    highest = 2**bits - 1 + offset
    strict = _flag(where, row, "is_symmetric") and offset == 1 - 2 ** (bits - 1)
    allowed = {"min": [offset], "max": [highest, highest - 1] if strict else [highest]}
    for key, steps in allowed.items():
        if key in row and bits != 32:
            said, slack = _number(where, row, key), _ROUNDING * scale * 2**bits
            if not any(abs(said - scale * step) <= slack for step in steps):
                raise AimetError(
                    f"{where}: {key} is {said!r}, but scale {scale!r} and offset {offset} give {scale * steps[0]!r}; "
                    f"they contradict each other, so export it again."
                )


def _parse_1_0_0(document: Mapping[str, Any]) -> list[_Entry]:
    signed = _names(document, SIGNED)
    found = []
    for section, param in (("activation_encodings", False), ("param_encodings", True)):
        for row in _rows(document, section):
            where = f"{section}.{row['name']}"
            if _is_float(row):
                found.append(_Entry(row["name"], param, None))
                continue
            if row.get("enc_type") not in ("PER_TENSOR", "PER_CHANNEL") or any(_vector(row, "zero_point_shift")):
                raise AimetError(
                    f"{where}: expected enc_type PER_TENSOR or PER_CHANNEL and whole zero points, received "
                    f"{row.get('enc_type')!r}; scales a block have no place in any format here."
                )
            grid = {
                "bits": _integer(where, row, "bw"),
                "symmetric": _flag(where, row, "is_sym"),
                "scale": [_number(where, {"scale": value}, "scale") for value in _vector(row, "scale")],
                "offset": [_integer(where, {"offset": value}, "offset") for value in _vector(row, "offset")],
                "channels": row["enc_type"] == "PER_CHANNEL",
                "signed": row["name"] in signed,
            }
            found.append(_Entry(row["name"], param, _encoding(where, **grid)))
    return found


def _parse_2_0_0(document: Mapping[str, Any]) -> list[_Entry]:
    return [_entry_2_0_0(f"encodings.{row['name']}", row) for row in _rows(document, "encodings")]


def _entry_2_0_0(where: str, row: Mapping[str, Any]) -> _Entry:
    dtype = str(row.get("output_dtype"))
    signed, bits = not dtype.startswith("u"), dtype.removeprefix("u").removeprefix("int")
    if not dtype.removeprefix("u").startswith("int") or not bits.isdecimal():
        raise AimetError(f"{where}: expected output_dtype int8, uint8 or the like, received {dtype!r}.")
    if "block_size" in row or "per_block_int_scale" in row or isinstance(row.get("y_scale"), dict):
        raise AimetError(f"{where}: scales for blocks of a tensor have no place in any format here.")
    scale = [_number(where, {"y_scale": value}, "y_scale") for value in _vector(row, "y_scale")]
    points = _vector(row, "y_zero_point") or [0] * len(scale)
    zero_point = [_integer(where, {"y_zero_point": value}, "y_zero_point") for value in points]
    if int(bits) == 32:
        return _Entry(row["name"], None, None)  # a bias
    scheme = {"bits": int(bits), "signed": signed, "symmetric": signed and not any(zero_point)}
    axis = None if row.get("axis") is None else _integer(where, row, "axis")
    encoding = _made(where, scheme, scale, zero_point, isinstance(row.get("y_scale"), list) and axis is not None)
    return _Entry(row["name"], None, encoding, axis)


_PARSERS: Mapping[Any, Callable[[Mapping[str, Any]], list[_Entry]]] = {
    "0.6.1": _parse_0_6_1,
    "1.0.0": _parse_1_0_0,
    "2.0.0": _parse_2_0_0,
}


def _encoding(
    where: str, bits: int, symmetric: bool, scale: list[float], offset: list[int], channels: bool, signed: bool
) -> Encoding | None:
    """From scales and offsets. AIMET's symmetric grids are signed, but for those whose offset is 0.

    A strictly symmetric one (offset -127 for 8 bits) lacks the lowest integer.
    """
    if bits == 32:
        return None  # a bias
    if not 2 <= bits <= 16:
        raise AimetError(f"{where}: expected from 2 to 16 bits, or 32 for a bias, received {bits}.")
    half = 2 ** (bits - 1)
    if any(value > 0 for value in offset):
        raise AimetError(f"{where}: expected offsets of at most 0, received {max(offset)}.")
    strict = symmetric and all(value == 1 - half for value in offset)
    signed = signed or (symmetric and any(offset))
    shift = half - strict if signed else 0
    zero_point = [-(value + shift) for value in offset]
    scheme = {"bits": bits, "signed": signed, "symmetric": symmetric and not any(zero_point), "narrow": strict}
    return _made(where, scheme, scale, zero_point, channels)


def _made(where: str, scheme: Mapping[str, Any], scale: list[float], zero_point: list[int], channels: bool) -> Encoding:
    if len(scale) != len(zero_point) or not scale or (not channels and len(scale) > 1):
        raise AimetError(f"{where}: {len(scale)} scales and {len(zero_point)} offsets do not fit each other.")
    shape = (-1,) if channels else ()
    try:
        made = Scheme(**scheme, axis=(-1,) if channels else ())
        scales, zero_points = np.asarray(scale, np.float32), np.asarray(zero_point, np.int32)
        return Encoding(made, scales.reshape(shape), zero_points.reshape(shape), "imported")
    except (ValueError, OverflowError) as error:
        raise AimetError(f"{where}: {error}") from error


def _told(document: Mapping[str, Any], entries: list[_Entry], model: onnx.ModelProto | None) -> Read:
    _check_once(entries)
    if model is None:
        return _told_alone(document, entries)
    weights = weights_of(model)
    kernels: dict[str, list[Weight]] = {}
    for weight in weights.values():
        kernels.setdefault(weight.initializer, []).append(weight)
    tensors = set(tensor_names(model))
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    _check_names(entries, tensors | set(arrays), [*tensor_names(model), *kernels])
    by_name = {entry.name: entry for entry in entries}
    usable = {name: entry.encoding for name, entry in by_name.items() if entry.encoding is not None}
    activations = {name: usable[name] for name in tensor_names(model) if name in usable}
    _check_per_tensor(activations)
    told = {}
    nodes = {node.name: node for node in model.graph.node}
    for name, weight in weights.items():
        if weight.initializer in usable:
            entry = by_name[weight.initializer]
            encoding = usable[entry.name]
            if _of_channels(document, entry):
                encoding = _with_channels(encoding)
            told[name] = _kernel(entry, encoding, weight, nodes[name], arrays[weight.initializer])
    excluded = _excluded(document)
    foreign = [name for name in excluded if name not in nodes]
    notes = _notes(entries, {*activations, *kernels})
    if foreign:
        notes = (*notes, f"{len(foreign)} excluded layers are no nodes of the ONNX: {some(foreign)}")
    known = [name for name in excluded if name in nodes]
    return Read(_assembled(known, activations, told), notes)


def _told_alone(document: Mapping[str, Any], entries: list[_Entry]) -> Read:
    unclear = [entry.name for entry in entries if entry.param is not False]
    if unclear:
        raise AimetError(
            f"Which kernels the entries {some(unclear)} belong to is said by the float ONNX; give it, too."
        )
    activations = {entry.name: entry.encoding for entry in entries if entry.encoding is not None}
    _check_per_tensor(activations)
    return Read(_assembled(_excluded(document), activations, {}), _notes(entries, set(activations)))


def _excluded(document: Mapping[str, Any]) -> list[str]:
    """The layers that an AIMET file leaves out."""
    names = document.get("excluded_layers")
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AimetError(f"excluded_layers must be a list of names of layers, received {str(names)[:80]!r}.")
    return names


def _assembled(excluded: list[str], activations: Mapping[str, Encoding], weights: Mapping[str, Encoding]) -> Encodings:
    return Encodings(TARGET, activations, weights, dict.fromkeys(excluded, EXCLUDED))


def _of_channels(document: Mapping[str, Any], entry: _Entry) -> bool:
    """Whether a single scale is that of a single channel, as far as the file tells."""
    usual = document.get("quantizer_args")
    said = usual.get("per_channel_quantization") if isinstance(usual, dict) else None
    single = entry.encoding is not None and entry.encoding.scale.size == 1
    return single and (entry.axis is not None or (document["version"] == "0.6.1" and str(said).lower() == "true"))


def _with_channels(encoding: Encoding) -> Encoding:
    scheme = replace(encoding.scheme, axis=(-1,))
    return Encoding(scheme, encoding.scale.reshape(-1), encoding.zero_point.reshape(-1), encoding.origin)


def _per_tensor(encoding: Encoding) -> Encoding:
    scheme = replace(encoding.scheme, axis=())
    return Encoding(scheme, encoding.scale.reshape(()), encoding.zero_point.reshape(()), encoding.origin)


def _check_per_tensor(activations: Mapping[str, Encoding]) -> None:
    several = [name for name, encoding in activations.items() if encoding.scheme.per_channel]
    if several:
        raise AimetError(f"Activations have one scale each, received one a channel for {some(several)}.")


def _kernel(
    entry: _Entry, encoding: Encoding, weight: Weight, node: onnx.NodeProto, tensor: onnx.TensorProto
) -> Encoding:
    """The Encoding of a kernel, its axis and narrow range from the ONNX."""
    kernel = numpy_helper.to_array(tensor)
    scheme, channels = encoding.scheme, kernel.shape[weight.axis]
    if scheme.per_channel and encoding.scale.size == 1 != channels:
        scheme, encoding = replace(scheme, axis=()), _per_tensor(encoding)
    if scheme.per_channel:
        axis = weight.axis if entry.axis is None else entry.axis % kernel.ndim
        if axis != weight.axis or encoding.scale.size != channels:
            raise AimetError(
                f"{entry.name}: expected {channels} scales on axis {weight.axis}, the output channels of {node.name!r} "
                f"({node.op_type}), or a single one; received {encoding.scale.size} on axis {axis}."
            )
        scheme = replace(scheme, axis=keras_axes(node, kernel.shape))
    spread = [-1 if axis == weight.axis and scheme.per_channel else 1 for axis in range(kernel.ndim)]
    lowest = np.rint(kernel / encoding.scale.reshape(spread)) + encoding.zero_point.reshape(spread)
    narrow = scheme.narrow or bool(lowest.min(initial=scheme.qmax) > scheme.qmin)
    return Encoding(replace(scheme, narrow=narrow), encoding.scale, encoding.zero_point, encoding.origin)


def _notes(entries: list[_Entry], kept: set[str]) -> tuple[str, ...]:
    floats = [entry.name for entry in entries if entry.encoding is None]
    others = [entry.name for entry in entries if entry.encoding is not None and entry.name not in kept]
    told = {
        "entries are float or int32 biases, and stay float": floats,
        "entries are of constants that are no kernel, which stay float": others,
    }
    return tuple(f"{len(names)} {text}: {some(names)}" for text, names in told.items() if names)


def _check_once(entries: list[_Entry]) -> None:
    twice = [name for name, count in Counter(entry.name for entry in entries).items() if count > 1]
    if twice:
        raise AimetError(f"These tensors have several entries: {some(twice)}; keep one of each.")


def _check_names(entries: list[_Entry], known: set[str], wanted: list[str]) -> None:
    named = {entry.name for entry in entries}
    foreign = [entry.name for entry in entries if entry.name not in known]
    if foreign:
        without = [name for name in wanted if name not in named]
        raise AimetError(
            f"The encodings belong to another model: {len(foreign)} of their {len(entries)} names are not in the ONNX "
            f"({some(foreign)}); {len(without)} tensors and kernels of the ONNX have no entry ({some(without)})."
        )


def _section(document: Mapping[str, Any], key: str, kind: type) -> Any:
    value = document.get(key)
    if not isinstance(value, kind):
        raise AimetError(
            f"{key} must be {'an object' if kind is dict else 'a list'} in version {document['version']}, received "
            f"{type(value).__name__}."
        )
    return value


def _rows(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = _section(document, key, list)
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise AimetError(f"{key}[{number}] must be an object with a name, received {str(row)[:80]}.")
    return rows


def _names(document: Mapping[str, Any], key: str) -> set[str]:
    value = document.get(key)
    return {str(name) for name in value} if isinstance(value, list) else set()


def _is_float(row: Mapping[str, Any]) -> bool:
    return str(row.get("dtype", "int")).lower() == "float"


def _vector(row: Mapping[str, Any], key: str) -> list[Any]:
    value = row.get(key, [])
    return value if isinstance(value, list) else [value]


def _number(where: str, row: Mapping[str, Any], key: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AimetError(f"{where}: {key} must be a number, received {value!r}.")
    try:
        return float(value)
    except OverflowError as error:
        raise AimetError(f"{where}: {key} is a number of {len(str(value))} digits.") from error


def _integer(where: str, row: Mapping[str, Any], key: str) -> int:
    value = _number(where, row, key)
    if not value.is_integer():
        raise AimetError(f"{where}: {key} must be a whole number, received {value!r}.")
    return int(value)


def _flag(where: str, row: Mapping[str, Any], key: str) -> bool:
    value = str(row.get(key)).lower()
    if value not in ("true", "false"):
        raise AimetError(f"{where}: {key} must be true or false, received {row.get(key)!r}.")
    return value == "true"


def _same(where: str, values: list[Any]) -> Any:
    if len(set(values)) > 1:
        raise AimetError(f"{where}: its channels differ in bits or symmetry, which no format here holds.")
    return values[0]
