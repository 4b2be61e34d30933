"""Files appear whole or not at all."""

from __future__ import annotations

import os

import pytest

from tfqat.core.files import folder_on_success, replace_on_success, write_bytes, write_text


def test_writes_what_is_given(tmp_path):
    path = write_text(tmp_path / "new" / "a.txt", "ä\nb\n")
    assert path.read_bytes() == "ä\nb\n".encode()
    assert write_bytes(path, b"\x00\r\n").read_bytes() == b"\x00\r\n"


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyError), replace_on_success(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_temporary_path_is_beside_the_final_one_with_its_suffix(tmp_path):
    with replace_on_success(tmp_path / "model.keras") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".keras"
        temporary.write_text("x")
    assert os.listdir(tmp_path) == ["model.keras"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replace_on_success(tmp_path / "a"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_folder_is_filled_at_the_end(tmp_path):
    write_text(tmp_path / "out" / "a", "old")
    write_text(tmp_path / "out" / "other", "stays")
    with folder_on_success(tmp_path / "out") as temporary:
        (temporary / "a").write_text("new")
        (temporary / "b").write_text("new")
        assert (tmp_path / "out" / "a").read_text() == "old"
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert found == {"a": "new", "b": "new", "other": "stays"}


def test_a_folder_whose_block_fails_stays_as_it_was(tmp_path):
    write_text(tmp_path / "out" / "a", "old")
    with pytest.raises(KeyError), folder_on_success(tmp_path / "out") as temporary:
        (temporary / "a").write_text("new")
        raise KeyError
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"a": "old"}
