"""Document: how plain words are read, and where keys stand."""

from __future__ import annotations

import math

import pytest

from tfqat.spec.document import DocumentError, dotted, parse, parse_value

# YAML 1.2 core schema, section 10.3.2, but for 0o and 0x integers, which a spec has no use for.
WORDS = {
    "true": True,
    "False": False,
    "yes": "yes",
    "off": "off",
    "0": 0,
    "-12": -12,
    "010": "010",
    "1_000": 1000,
    "0x10": "0x10",
    "1e-3": 0.001,
    "1E3": 1000.0,
    "-.5": -0.5,
    "3.": 3.0,
    "08.5": "08.5",
    "1:30": "1:30",
    "8.6.1": "8.6.1",
    "2020-01-01": "2020-01-01",
    "-.inf": -math.inf,
    "null": None,
    "~": None,
    "": None,
    "'1'": "1",
    "a=b": "a=b",
}


@pytest.mark.parametrize(("text", "value"), WORDS.items(), ids=[f"<{word}>" for word in WORDS])
def test_word(text, value):
    read = parse_value(text)
    assert (type(read), read) == (type(value), value)


def test_nan():
    assert math.isnan(parse_value(".nan"))


def test_keys_are_texts():
    assert parse("1: a\ntrue: b\nnull: c\n").values == {"1": "a", "true": "b", "null": "c"}


def test_lines_count_from_one():
    document = parse("a: 1\nb:\n  c: {d: 2}\n  e:\n    - 3\n    - f: 4\n")
    lines = {dotted(path): line for path, line in document.lines.items()}
    assert lines == {"a": 1, "b": 2, "b.c": 3, "b.c.d": 3, "b.e": 4, "b.e[0]": 5, "b.e[1]": 6, "b.e[1].f": 6}


def test_twice():
    assert parse("a: 1\nb: {c: 1, c: 2}\n").twice == {("b", "c"): (2, 2)}
    assert parse("a: {x: 1}\nb: {x: 1}\n").twice == {}


def test_merge_key_is_no_repetition():
    document = parse("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n")
    assert document.values["b"] == {"x": 3, "y": 2}
    assert document.twice == {}


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\ta: 1", "a: *b", "%TAG"])
def test_syntax_error_has_a_line(text):
    with pytest.raises(DocumentError) as caught:
        parse(text)
    assert caught.value.line == 1
