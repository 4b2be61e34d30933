"""TensorRT calibration cache: one text line a tensor, ``name: scale``, which an INT8 engine build reads.

The format, taken from the programs that read it (ONNX Runtime's ``ReadDynamicRange``, trtexec's
``readScalesFromCalibrationCache``, the MLPerf and NVDLA scripts) and from public caches::

    TRT-8601-EntropyCalibration2
    image: 3c010204

The value is the big-endian IEEE-754 float32 of ``amax / 127`` in hexadecimal. Some readers split a line at its first
colon and some at its last, so a name that is written may hold none.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfqat.core.encoding import Encoding, Encodings
from tfqat.core.files import write_bytes
from tfqat.core.scheme import Scheme
from tfqat.errors import TfqatError

ALGORITHM = "EntropyCalibration2"  # what trtexec --calib and ONNX Runtime expect
DEFAULT_VERSION = "8.6.1"
SCHEME = Scheme(bits=8, signed=True, symmetric=True)  # of every tensor in a cache
METADATA, OTHERS = "tensorrt_cache", "other_lines"  # subject in Encodings.metadata, and a key there

_HEADER = re.compile(r"TRT-(\d+)-(\w+)", re.ASCII)
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.\d+)*")
_VALUE = re.compile(r" ([0-9a-fA-F]{1,8}|inf)")
_INFINITY = "7f800000"


class CacheError(TfqatError):
    """A calibration cache that cannot be written or read."""


@dataclass(frozen=True)
class Cache:
    """One calibration cache.

    Attributes:
        header: its first line, such as ``TRT-8601-EntropyCalibration2``.
        scales: tensor name -> scale (``amax / 127``), in the order of the lines.
    """

    header: str
    scales: Mapping[str, np.float32]

    @property
    def version(self) -> int:
        """The TensorRT version number of the header, such as 8601."""
        return int(self.header.split("-")[1])

    @property
    def algorithm(self) -> str:
        """The calibration algorithm of the header, such as ``EntropyCalibration2``."""
        return self.header.split("-")[2]


def version_number(version: str) -> int:
    """The number in the header: major*1000+minor*100+patch below TensorRT 10, major*10000+minor*100+patch from 10.

    ``"8.6.1"`` gives 8601 and ``"10.3.0"`` gives 100300; a missing patch is 0 and a build number is left out.

    Raises:
        CacheError: ``version`` is not of the form ``major.minor[.patch[.build]]``.
    """
    match = _VERSION.fullmatch(str(version).strip())
    if match is None:
        raise CacheError(
            f"tensorrt_version must look like '8.6.1' or '10.3.0' (see `trtexec --help` or `dpkg -l | grep "
            f"tensorrt`), received {version!r}."
        )
    major, minor, patch = (int(part or 0) for part in match.groups())
    if minor > (9 if major < 10 else 99) or patch > 99:
        raise CacheError(f"tensorrt_version {version!r} has no number of its own in a cache's header; is it mistyped?")
    return major * (1000 if major < 10 else 10000) + minor * 100 + patch


def render(activations: Mapping[str, Encoding], version: str) -> str:
    """The text of the cache that gives each tensor of ``activations`` its scale, in their order.

    Raises:
        CacheError: a name that a reader would not find again, an Encoding that a cache cannot hold, or no line.
    """
    for name in activations:
        check_name(name)
    return _text(header_of(version), _scales(activations))


def header_of(version: str, algorithm: str = ALGORITHM) -> str:
    """The first line of a cache that is written for a TensorRT version."""
    return f"TRT-{version_number(version)}-{algorithm}"


def to_encodings(cache: Cache, tensors: Collection[str] | None = None) -> Encodings:
    """What a cache says, as Encodings of activations.

    Its header, and the lines that get no Encoding, go into the metadata, so that :func:`from_encodings` gives all
    lines back in their order.

    Args:
        cache: the cache.
        tensors: those that get an Encoding; all where None. Scales that cannot quantize (``inf``, 0 and others that
            are not normal float32) get none in any case.
    """
    known = {
        name: scale for name, scale in cache.scales.items() if is_usable(scale) and (tensors is None or name in tensors)
    }
    others = {
        name: {"line": line, "bits": _hexadecimal(scale)}
        for line, (name, scale) in enumerate(cache.scales.items(), start=2)
        if name not in known
    }
    metadata: dict[str, object] = {"header": cache.header, **({OTHERS: others} if others else {})}
    activations = {name: Encoding(SCHEME, scale, np.int32(0), "imported") for name, scale in known.items()}
    return Encodings("tensorrt", activations, {}, {}, {METADATA: metadata})


def from_encodings(encodings: Encodings, version: str | None = None) -> str:
    """The text of the cache of ``encodings``; where they came from a cache, the same lines in the same order.

    Args:
        encodings: in names of the ONNX that the cache will stand beside.
        version: of TensorRT, for the header, which keeps its algorithm; None for the header that the encodings came
            with, or DEFAULT_VERSION.

    Raises:
        CacheError: see :func:`render`; names with a colon pass only where they came from a cache.
    """
    said = encodings.metadata.get(METADATA)
    if said is None:
        return render(encodings.activations, version or DEFAULT_VERSION)
    header, others = _said(said)
    rows = list(_scales(encodings.activations).items())
    for line, name, scale in others:
        rows.insert(line - 2, (name, scale))
    return _text(header if version is None else header_of(version, header.split("-")[2]), dict(rows))


def is_usable(scale: np.float32) -> bool:
    """Whether a scale that a cache holds can quantize: finite, positive and normal in float32."""
    return bool(np.isfinite(scale) and scale >= np.finfo(np.float32).tiny)


def write(path: str | os.PathLike[str], activations: Mapping[str, Encoding], version: str = "8.6.1") -> Path:
    """Writes the cache of ``activations`` for one TensorRT version, whole or not at all; returns the path.

    Raises:
        CacheError: see :func:`render`.
    """
    return write_bytes(path, render(activations, version).encode("ascii"))


def read(path: str | os.PathLike[str]) -> Cache:
    """Reads a cache, also one that another program wrote.

    Names with a colon (split at the last), CRLF, upper case, unpadded hexadecimal, ``0`` and ``inf`` are accepted.

    Raises:
        CacheError: anything else; names the file and the line.
        OSError: the file cannot be opened.
    """
    data = Path(path).read_bytes()
    try:
        return parse(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CacheError(f"{path}, line {line}: not text, so not a TensorRT calibration cache.") from error
    except CacheError as error:
        raise CacheError(f"{path}, {error}") from error


def parse(text: str) -> Cache:
    """Reads a cache from its text; see :func:`read`.

    Raises:
        CacheError: names the line.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    cut_off = lines[-1] != ""
    if not cut_off:
        lines.pop()
    header = _checked_header(lines[0] if lines else "")
    numbers: dict[str, int] = {}
    scales: dict[str, np.float32] = {}
    for number, line in enumerate(lines[1:], start=2):
        name, scale = _entry(number, line, cut_off and number == len(lines))
        if name in scales:
            raise CacheError(f"line {number}: tensor {name!r} has a line already, line {numbers[name]}; keep one.")
        numbers[name], scales[name] = number, scale
    if not scales:
        raise CacheError("line 2: expected 'name: hexadecimal scale', received the end of the file.")
    return Cache(header, scales)


def scale_of(name: str, encoding: Encoding) -> np.float32:
    """The scale ``amax / 127`` of tensor ``name`` in a cache; with 8 bits it is the Encoding's own.

    Raises:
        CacheError: an Encoding that is not symmetric, signed, per tensor and of at most 8 bits.
    """
    scheme = encoding.scheme
    if not fits(encoding):
        shift = "" if scheme.per_channel else f" with zero point {int(encoding.zero_point)}"
        raise CacheError(
            f"Tensor {name!r}: a TensorRT cache holds one symmetric int8 scale a tensor, received {scheme}{shift}; "
            f"TensorRT has no zero points, so train this model for the target tensorrt, or export it in another format."
        )
    if scheme.bits == 8:
        return np.float32(encoding.scale)
    return np.float32(encoding.scale * np.float32(2 ** (scheme.bits - 1) - 1) / np.float32(127))


def fits(encoding: Encoding) -> bool:
    """Whether an Encoding is a symmetric int8 grid: per tensor, at most 8 bits, its zero point in the middle.

    uint8 with zero point 128 is the grid of int8 with zero point 0.
    """
    scheme = encoding.scheme
    middle = 0 if scheme.signed else 2 ** (scheme.bits - 1)
    return not scheme.per_channel and scheme.bits <= 8 and int(encoding.zero_point) == middle


def check_name(name: str) -> None:
    """Refuses a tensor name that some reader of the cache would not find again.

    Raises:
        CacheError: the name is empty, is not printable ASCII, holds a colon, or begins or ends with a space.
    """
    if not name or not name.isascii() or not name.isprintable() or ":" in name or name != name.strip():
        raise CacheError(
            f"A tensor in a cache needs a name of printable ASCII without ':' (readers split a line there), "
            f"received {name!r}; rename the layer, input or output."
        )


def _checked_header(line: str) -> str:
    if _HEADER.fullmatch(line):
        return line
    if line.strip() == "1":
        raise CacheError(
            "line 1: header '1' is the format of TensorRT 5.0 and older, whose values have another meaning; "
            "calibrate again with TensorRT >= 5.1, which writes 'TRT-<version>-<algorithm>'."
        )
    raise CacheError(f"line 1: expected a header like 'TRT-8601-EntropyCalibration2', received {line[:60]!r}.")


def _entry(number: int, line: str, cut_off: bool) -> tuple[str, np.float32]:
    name, colon, value = line.rpartition(":")
    match = _VALUE.fullmatch(value)
    if not colon or not name or match is None:
        raise CacheError(
            f"line {number}: expected 'name: scale' with the scale as 1 to 8 hexadecimal digits of a float32, "
            f"received {line[:100]!r}."
        )
    digits = match[1]
    if cut_off and len(digits) < 8:
        raise CacheError(f"line {number}: the file ends inside the line {line[:100]!r}; copy it again, whole.")
    scale = _float(int(_INFINITY if digits == "inf" else digits, 16))
    if np.isnan(scale) or np.signbit(scale):
        raise CacheError(f"line {number}: the scale of {name!r} is {scale}; a scale is never negative or NaN.")
    return name, scale


def _scales(activations: Mapping[str, Encoding]) -> dict[str, np.float32]:
    return {name: scale_of(name, encoding) for name, encoding in activations.items()}


def _said(metadata: Any) -> tuple[str, list[tuple[int, str, np.float32]]]:
    """The header, and line, name and scale of each line without an Encoding, from the metadata."""
    try:
        others = metadata.get(OTHERS, {}).items()
        rows = [(int(row["line"]), str(name), _float(int(row["bits"], 16))) for name, row in others]
        return _checked_header(str(metadata["header"])), sorted(rows)
    except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise CacheError(
            f"The encodings' metadata of the cache are damaged ({error}); convert the cache again."
        ) from error


def _text(header: str, scales: Mapping[str, np.float32]) -> str:
    if not scales:
        raise CacheError("No tensor is quantized, so there is no calibration cache to write; see the placement table.")
    return "\n".join([header, *(f"{name}: {_hexadecimal(scale)}" for name, scale in scales.items())]) + "\n"


def _hexadecimal(scale: np.float32) -> str:
    return struct.pack(">f", scale).hex()


def _float(bits: int) -> np.float32:
    return np.float32(np.frombuffer(struct.pack("=I", bits), np.float32)[0])
