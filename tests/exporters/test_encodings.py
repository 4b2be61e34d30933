"""The encodings file comes back bit for bit, and says what is wrong with it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfqat.core.encoding import ORIGINS, Encoding, Encodings
from tfqat.core.scheme import Scheme
from tfqat.exporters import encodings
from tfqat.exporters.encodings import EncodingsError

normal = st.floats(2.0**-126, 2.0**100, width=32)
schemes = st.builds(
    Scheme, bits=st.integers(2, 16), signed=st.booleans(), symmetric=st.booleans(), narrow=st.booleans()
)


@st.composite
def any_encoding(draw):
    per_channel = draw(st.booleans())
    axis = draw(st.sampled_from([(-1,), (-2, -1)])) if per_channel else ()
    scheme = Scheme(**{**vars(draw(schemes)), "axis": axis})
    scale = np.asarray(draw(st.lists(normal, min_size=1, max_size=4)) if per_channel else draw(normal), np.float32)
    zero_point = 0 if scheme.symmetric else draw(st.integers(scheme.qmin, scheme.qmax))
    return Encoding(scheme, scale, np.full(scale.shape, zero_point), draw(st.sampled_from(ORIGINS)))


tables = st.dictionaries(st.text(min_size=1), any_encoding(), max_size=3)
values = st.recursive(
    st.text() | st.integers() | st.booleans(), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
metadata = st.dictionaries(st.text(), st.dictionaries(st.text(), values, max_size=2), max_size=2)
reasons = st.dictionaries(st.text(), st.text(), max_size=2)
all_encodings = st.builds(Encodings, st.text(), tables, tables, reasons, metadata)


@given(all_encodings)
def test_round_trip(given_encodings):
    found = encodings.parse(encodings.render(given_encodings))
    assert found == given_encodings
    assert list(found.activations) == list(given_encodings.activations)
    for name, encoding in given_encodings.activations.items():
        assert found.activations[name].scale.tobytes() == encoding.scale.tobytes()


def test_the_file_is_plain_json(tmp_path):
    encoding = Encoding(Scheme(), np.float32(0.1), np.int32(0))
    path = encodings.write(tmp_path / "encodings.json", Encodings("tensorrt", {"a": encoding}, {}, {"head": "why"}))
    document = json.loads(path.read_text())
    assert document["activations"]["a"]["scale"] == float(np.float32(0.1))
    assert document["activations"]["a"]["max"] == float(np.float32(12.7))
    assert (document["target"], document["float_ops"]) == ("tensorrt", {"head": "why"})
    assert encodings.read(path).activations["a"] == encoding


TEXT = encodings.render(Encodings("tensorrt", {"a": Encoding(Scheme(), np.float32(0.5), np.int32(0))}, {}))
BROKEN = {
    "cut off": (TEXT[:-20], "JSON"),
    "another file": ('{"a": 1}', "format"),
    "a list": ("[]", "format"),
    "no scale": (TEXT.replace('"scale"', '"scales"'), r"activations\.a: the key 'scale'"),
    "a text for a scale": (TEXT.replace('"scale": 0.5', '"scale": "x"'), r"activations\.a"),
    "a negative scale": (TEXT.replace('"scale": 0.5', '"scale": -0.5'), "positive"),
    "NaN": (TEXT.replace('"scale": 0.5', '"scale": NaN'), "finite"),
    "unknown origin": (TEXT.replace('"learned"', '"guessed"'), "origin"),
    "metadata of another kind": (TEXT.replace('"float_ops": {}', '"float_ops": {}, "metadata": 3'), "metadata must be"),
    "nested deeply": ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
    "a zero point out of range": (
        TEXT.replace('"zero_point": 0', '"zero_point": 200'),
        r"activations\.a: .*zero point",
    ),
    "another scale than range": (
        TEXT.replace('"scale": 0.5', '"scale": 0.25'),
        r"activations\.a: min is -64\.0, but its scale .* -32\.0",
    ),
    "another range": (TEXT.replace('"max": 63.5', '"max": 64.0'), r"activations\.a: max is 64\.0"),
    "no weights": (TEXT.replace('"weights"', '"weight"'), "weights must be an object"),
}


def test_a_byte_order_mark_is_passed_over():
    assert encodings.parse("\ufeff" + TEXT) == encodings.parse(TEXT)


@pytest.mark.parametrize(("text", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused(tmp_path, text, says):
    path = tmp_path / "encodings.json"
    path.write_text(text)
    with pytest.raises(EncodingsError, match=says) as raised:
        encodings.read(path)
    assert str(path) in str(raised.value)
