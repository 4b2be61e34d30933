"""`tfqat convert` as a user meets it: in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CACHE = "TRT-8601-EntropyCalibration2\nimage: 3c010204\nrelu:0: 7f800000\n"
CODE = """
import atexit, sys
atexit.register(lambda: print("IMPORTED", sorted({"tensorflow", "keras", "tf2onnx", "onnxruntime"} & set(sys.modules))))
from tfqat.cli.main import main
main()
"""


def convert(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE, "convert", *arguments]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=60, check=False)


def test_there_and_back_without_tensorflow(tmp_path):
    (tmp_path / "a.cache").write_text(CACHE)
    there = convert("a.cache", "--to", "encodings", "--output", "made/", cwd=tmp_path)
    assert there.returncode == 0, there.stderr
    assert there.stdout.splitlines()[0] == "Converted a TensorRT calibration cache into encodings.json of tfqat."
    assert there.stdout.splitlines()[-1] == "IMPORTED []"
    assert (tmp_path / "made" / "encodings.json").is_file()
    back = convert("made/encodings.json", "--to", "cache", "-o", "b.cache", cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "b.cache").read_text() == CACHE


WRONG = {
    "format": (("a.cache", "--to", "tflite", "-o", "b"), 2, "--to"),
    "no output": (("a.cache", "--to", "cache"), 2, "--output"),
    "no such file": (("nowhere", "--to", "cache", "-o", "b"), 1, "nowhere"),
    "no ONNX": (("a.cache", "--to", "qdq_onnx", "-o", "b"), 1, "needs the float ONNX"),
    "a loss": (("a.cache", "--to", "aimet", "-o", "b", "--lossless"), 1, "would leave out: the header"),
}


@pytest.mark.parametrize(("arguments", "code", "says"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_one_message(arguments, code, says, tmp_path):
    (tmp_path / "a.cache").write_text(CACHE)
    found = convert(*arguments, cwd=tmp_path)
    assert (found.returncode, "Traceback" in found.stderr) == (code, False)
    assert says in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.cache"]
