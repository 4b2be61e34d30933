"""The manifest notices files that are not those it was written for."""

from __future__ import annotations

import pytest

from tfqat.exporters import manifest
from tfqat.exporters.manifest import Manifest, ManifestError


@pytest.fixture
def written(tmp_path):
    file = tmp_path / "model.cache"
    file.write_bytes(b"abc")
    return manifest.write(
        tmp_path / "manifest.json", Manifest("tensorrt", {"cache": manifest.entry(file, "trtexec")}, {}, {})
    )


def test_round_trip(written):
    found = manifest.read(written)
    row = found.files["cache"]
    # The digest of "abc" is the standard's own example (FIPS 180-4).
    assert row["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (row["name"], row["bytes"], found.target) == ("model.cache", 3, "tensorrt")
    assert {"tfqat", "keras", "onnx"} <= set(found.packages)
    assert manifest.check_files(written) == {"cache": written.parent / "model.cache"}


CHANGES = {
    "missing": (lambda path: path.unlink(), "missing"),
    "cut off": (lambda path: path.write_bytes(b"ab"), "2 bytes, not 3"),
    "changed": (lambda path: path.write_bytes(b"abd"), "changed"),
}


@pytest.mark.parametrize(("change", "says"), CHANGES.values(), ids=CHANGES)
def test_a_changed_file_is_refused(written, change, says):
    change(written.parent / "model.cache")
    with pytest.raises(ManifestError, match=says):
        manifest.check_files(written)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "tfqat manifest", "version": 1}'])
def test_another_file_is_refused(written, text):
    written.write_text(text)
    with pytest.raises(ManifestError, match="export again"):
        manifest.read(written)
