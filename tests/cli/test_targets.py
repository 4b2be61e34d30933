"""`tfqat targets`: every target with its files, without a framework."""

from __future__ import annotations

import json
import subprocess
import sys

from tfqat.exporters.registry import FORMATS
from tfqat.jobs.targets import listed_targets, target_text
from tfqat.targets import load_target, target_names

CODE = """
import sys
from tfqat.cli.main import main
try:
    main()
finally:
    heavy = {"tensorflow", "keras", "sklearn", "onnx", "onnxruntime", "tf2onnx"} & set(sys.modules)
    print(sorted(heavy), file=sys.stderr)
"""


def tfqat(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=False)


def test_the_list():
    result = tfqat("targets")
    assert (result.returncode, result.stderr) == (0, "[]\n")
    for name in target_names():
        for form in load_target(name).exporters:
            assert all(file in result.stdout for file in FORMATS[form].files.values())
        assert f"\n{name}\n" in f"\n{result.stdout}"
    assert "config.json" in result.stdout


def test_as_json():
    result = tfqat("targets", "--json")
    assert result.stderr == "[]\n"
    listed = {row["name"]: row for row in json.loads(result.stdout)}
    assert set(listed) == set(target_names())
    assert listed["tensorrt"]["formats"]["tensorrt"][1] == "model.cache"
    assert listed["sima"]["activations"] == "uint8 asymmetric (or int8), per tensor"
    assert listed["tensorrt"]["weights"] == "int8 symmetric, per channel"


def test_what_is_written_on_request_says_so():
    for line in target_text(listed_targets()).splitlines():
        if "model_data.c" in line:
            assert "model_data.c (" in line
