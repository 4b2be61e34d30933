"""The calibration cache: bytes as TensorRT's readers expect them, and what is read back."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfqat.core.encoding import Encoding, Encodings, encoding_of_range
from tfqat.core.scheme import Scheme
from tfqat.exporters import cache
from tfqat.exporters.cache import CacheError

INT8 = Scheme()
PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "caches"


def scales(values: dict[str, float]) -> dict[str, Encoding]:
    return {name: Encoding(INT8, np.float32(value), np.int32(0)) for name, value in values.items()}


def split_at_first_colon(text: str) -> dict[str, int]:
    """ONNX Runtime's, MLPerf's and NVDLA's rule: name up to the first colon; the value's bits."""
    rows = (line.split(":", 1) for line in text.splitlines()[1:])
    return {name: int(value, 16) for name, value in rows}


def split_at_last_colon(text: str) -> dict[str, int]:
    """trtexec's rule: the value after the last colon."""
    found = {}
    for line in text.splitlines()[1:]:
        at = line.rindex(":")
        found[line[:at]] = int(line[at + 2 :], 16)
    return found


VERSIONS = {
    "5.1.2": 5102,
    "7.2.0": 7200,
    "8.4.2": 8402,
    "8.6.1": 8601,
    "8.6.1.6": 8601,
    "8.6": 8600,
    "9.3.0": 9300,
    "10.0.1": 100001,
    "10.3.0": 100300,
    "10.13.2": 101302,
}


@pytest.mark.parametrize(("version", "number"), VERSIONS.items())
def test_version_number(version, number):
    assert cache.version_number(version) == number
    assert cache.render(scales({"a": 1}), version).startswith(f"TRT-{number}-EntropyCalibration2\n")


@pytest.mark.parametrize("version", ["", "8", "8601", "v8.6.1", "8.6.x", "8.10.0", "8.6.100"])
def test_a_mistyped_version_is_refused(version):
    with pytest.raises(CacheError, match="tensorrt_version"):
        cache.version_number(version)


def test_bytes_of_a_known_cache(tmp_path):
    # 3c010204 and 3d418306 are the numbers of DESIGN's example: amax 1 and 6.
    activations = {"image": encoding_of_range(INT8, -1, 1), "conv1_relu": encoding_of_range(INT8, 0, 6)}
    path = cache.write(tmp_path / "model.cache", activations, "8.6.1")
    assert path.read_bytes() == b"TRT-8601-EntropyCalibration2\nimage: 3c010204\nconv1_relu: 3d418306\n"


def test_a_small_scale_is_padded_with_zeros():
    assert cache.render(scales({"a": 2.0**-126}), "8.6.1").endswith("a: 00800000\n")


names = st.text(st.sampled_from("abzAZ019_./- []()*"), min_size=1).filter(lambda name: name == name.strip())
positive = st.floats(2.0**-126, 2.0**127, width=32)


@given(st.dictionaries(names, positive, min_size=1))
def test_what_is_written_is_read_back_by_every_rule(values):
    text = cache.render(scales(values), "8.6.1")
    bits = {name: int.from_bytes(struct.pack(">f", value), "big") for name, value in values.items()}
    assert split_at_first_colon(text) == split_at_last_colon(text) == bits
    found = cache.parse(text)
    assert list(found.scales) == list(values)
    assert {name: scale.view(np.uint32) for name, scale in found.scales.items()} == bits
    assert (found.version, found.algorithm) == (8601, "EntropyCalibration2")


@pytest.mark.parametrize("name", ["", "a:0", "ä", "a\nb", " a", "a ", "a\tb"])
def test_a_name_that_readers_would_split_is_refused(name):
    with pytest.raises(CacheError, match="ASCII"):
        cache.render(scales({name: 1}), "8.6.1")


REFUSED_SCHEMES = {
    "asymmetric": encoding_of_range(Scheme(symmetric=False), -1, 2),
    "unsigned": encoding_of_range(Scheme(signed=False, symmetric=False), 0, 2),
    "16 bits": encoding_of_range(Scheme(bits=16), -1, 1),
    "per channel": Encoding(Scheme(axis=(-1,)), np.ones(3), np.zeros(3)),
}


@pytest.mark.parametrize("encoding", REFUSED_SCHEMES.values(), ids=REFUSED_SCHEMES)
def test_an_encoding_that_a_cache_cannot_hold_is_refused(encoding):
    with pytest.raises(CacheError, match="'a'"):
        cache.render({"a": encoding}, "8.6.1")


def test_fewer_bits_keep_amax():
    text = cache.render({"a": encoding_of_range(Scheme(bits=4), -7, 7)}, "8.6.1")
    assert float(cache.parse(text).scales["a"]) == pytest.approx(7 / 127, rel=1e-6)


def test_an_empty_cache_is_refused():
    with pytest.raises(CacheError, match="No tensor"):
        cache.render({}, "8.6.1")


HEADER = "TRT-8601-EntropyCalibration2\n"
ACCEPTED = {
    "colon in name": ("in:0: 3c010204\n", "in:0", 0x3C010204),
    "upper case": ("a: 3C01020F\n", "a", 0x3C01020F),
    "unpadded": ("a: 800000\n", "a", 0x00800000),
    "bare zero": ("a: 0\n", "a", 0),
    "inf in hexadecimal": ("a: 7f800000\n", "a", 0x7F800000),
    "inf": ("a: inf\n", "a", 0x7F800000),
    "spaces and brackets": (
        "(Unnamed Layer* 1) [Scale]_output: 3dcff4cf\n",
        "(Unnamed Layer* 1) [Scale]_output",
        0x3DCFF4CF,
    ),
    "CRLF": ("a: 3c010204\r\n", "a", 0x3C010204),
    "no final newline": ("a: 3c010204", "a", 0x3C010204),
}


@pytest.mark.parametrize(("line", "name", "bits"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(line, name, bits):
    found = cache.parse(HEADER + line).scales
    assert {key: int(value.view(np.uint32)) for key, value in found.items()} == {name: bits}


REFUSED = {
    "no value": ("a: 3c010204\nb:\n", 3),
    "no colon": ("a 3c010204\n", 2),
    "no space": ("a:3c010204\n", 2),
    "two spaces": ("a:  3c010204\n", 2),
    "no name": (": 3c010204\n", 2),
    "nine digits": ("a: 03c010204\n", 2),
    "prefix": ("a: 0x3c01\n", 2),
    "decimal": ("a: 0.5\n", 2),
    "not hexadecimal": ("a: 3c01020g\n", 2),
    "NaN": ("a: 7fc00000\n", 2),
    "negative": ("a: bc010204\n", 2),
    "twice": ("a: 3c010204\nb: 3c010204\na: 3c010204\n", 4),
    "blank line": ("a: 3c010204\n\nb: 3c010204\n", 3),
    "cut off in the value": ("a: 3c010204\nb: 3c0102", 3),
    "cut off in the name": ("a: 3c010204\nbb", 3),
    "nothing": ("", 2),
}


@pytest.mark.parametrize(("lines", "number"), REFUSED.values(), ids=REFUSED)
def test_refused_with_its_line(lines, number):
    with pytest.raises(CacheError, match=f"^line {number}:"):
        cache.parse(HEADER + lines)


@pytest.mark.parametrize("header", ["", "1", "TRT-8601", "TRT-8601-", "TRT-x-EntropyCalibration2", "trt-8601-E", "{}"])
def test_another_header_is_refused(header):
    with pytest.raises(CacheError, match=r"^line 1:"):
        cache.parse(f"{header}\na: 3c010204\n")


def test_a_file_that_is_no_text_is_refused_with_its_name(tmp_path):
    path = tmp_path / "x.cache"
    path.write_bytes(HEADER.encode() + b"a: \xff\xfe\n")
    with pytest.raises(CacheError, match=r"x\.cache, line 2"):
        cache.read(path)


needs_public_caches = pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public caches are not beside the repository")
COUNTS = {
    "trt5101_entropy2_resnet50_nvdla.txt": ("TRT-5101-EntropyCalibration2", "data", 0x3F9839E4),
    "trt5102_entropy2_mnist_colon_names.cache": ("TRT-5102-EntropyCalibration2", "input_tensor:0", 0x3F955020),
    "trt6001_minmax_gnmt_inf.cache": ("TRT-6001-MinMaxCalibration", "Query Embedding Indices", 0x43810204),
    "trt7200_entropy2_resnet50_crlf.cache": ("TRT-7200-EntropyCalibration2", "input_tensor_0", 0x3F810204),
    "trt7203_entropy2_resnet50.cache": ("TRT-7203-EntropyCalibration2", "input_tensor_0", 0x3F810204),
    "trt8001_entropy2_resnet50.cache": ("TRT-8001-EntropyCalibration2", "input_tensor_0", 0x3F810204),
    "trt8402_entropy2_retinanet.cache": ("TRT-8402-EntropyCalibration2", "images", 0x3CAA54FC),
    "trt8600_entropy2_yolov5_qat.cache": ("TRT-8600-EntropyCalibration2", "images", 0x3C00F9F4),
}


@needs_public_caches
@pytest.mark.parametrize(("name", "head"), COUNTS.items(), ids=COUNTS)
def test_a_public_cache_is_read_whole(name, head):
    found = cache.read(PUBLIC / name)
    first = next(iter(found.scales))
    assert (found.header, first, int(found.scales[first].view(np.uint32))) == head
    lines = (PUBLIC / name).read_bytes().replace(b"\r", b"").decode().splitlines()
    again = [found.header] + [f"{key}: {int(value.view(np.uint32)):08x}" for key, value in found.scales.items()]
    assert [line.split(": 0")[0] if line.endswith(": 0") else line for line in lines] == [
        line.split(": 00000000")[0] if line.endswith(": 00000000") else line for line in again
    ]


def test_uint8_around_128_is_the_grid_of_int8():
    centered = Encoding(Scheme(signed=False, symmetric=False), np.float32(1), np.int32(128))
    assert cache.render({"a": centered}, "8.6.1").endswith("a: 3f800000\n")


def test_a_cache_as_encodings_and_back():
    text = "TRT-8001-MinMaxCalibration\na: 7f800000\nb: 3c010204\nc: 0\n"
    told = cache.to_encodings(cache.parse(text))
    assert list(told.activations) == ["b"]
    assert told.metadata[cache.METADATA]["header"] == "TRT-8001-MinMaxCalibration"
    assert cache.from_encodings(told) == text.replace("c: 0\n", "c: 00000000\n")
    assert cache.from_encodings(told, "10.3.0").startswith("TRT-100300-MinMaxCalibration\na: 7f800000\n")


DAMAGED = [
    {},
    {"header": "x"},
    {"header": "TRT-8001-M", "other_lines": {"a": {}}},
    {"header": "TRT-8001-M", "other_lines": 3},
]


@pytest.mark.parametrize("metadata", DAMAGED, ids=str)
def test_damaged_metadata_are_refused(metadata):
    told = Encodings("tensorrt", scales({"b": 1.0}), {}, {}, {cache.METADATA: metadata})
    with pytest.raises(CacheError, match="metadata of the cache are damaged"):
        cache.from_encodings(told)


@needs_public_caches
def test_the_format_before_5_1_is_refused_by_name():
    with pytest.raises(CacheError, match=r"header_1_yolov3_tiny_refuse\.table, line 1: .*TensorRT 5\.0"):
        cache.read(PUBLIC / "header_1_yolov3_tiny_refuse.table")
