"""The text that keeps layers float in trtexec."""

from __future__ import annotations

import pytest

from tfqat.exporters import layer_precisions
from tfqat.exporters.layer_precisions import LayerPrecisionsError


def test_one_line_for_trtexec(tmp_path):
    path = layer_precisions.write(tmp_path / "p.txt", ["head", "outer/head_2"])
    assert path.read_text() == "head:fp32,outer/head_2:fp32\n"
    assert layer_precisions.read(path) == {"head": "fp32", "outer/head_2": "fp32"}


def test_nothing_float_is_an_empty_file(tmp_path):
    path = layer_precisions.write(tmp_path / "p.txt", [])
    assert path.read_bytes() == b""
    assert layer_precisions.read(path) == {}


@pytest.mark.parametrize("name", ["a,b", "a:0", "a*", ""])
def test_a_name_that_trtexec_would_split_is_refused(name):
    with pytest.raises(LayerPrecisionsError, match="trtexec"):
        layer_precisions.render([name])


@pytest.mark.parametrize("text", ["head", "head:float", ":fp32", "a:fp32,b"])
def test_another_text_is_refused(tmp_path, text):
    path = tmp_path / "p.txt"
    path.write_text(text)
    with pytest.raises(LayerPrecisionsError, match="expected 'node:fp32'"):
        layer_precisions.read(path)
