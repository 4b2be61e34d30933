"""A part of the zoo, small: the whole way and both judges, as scripts/zoo.py goes it with every model."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"
APPLICATIONS = {
    "ResNet50": 64,
    "DenseNet121": 64,
    "MobileNetV3Small": 96,
    "EfficientNetV2B0": 32,
    "ConvNeXtTiny": 32,
}
BACKBONES = {"MobileNetBackbone": 64, "ViTBackbone": 64, "BertBackbone": 64}


@pytest.fixture
def zoo_page(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import zoo_page

    return zoo_page


def walked(name, size, folder):
    """The result of one model, and its row of the page."""
    command = [sys.executable, str(SCRIPTS / "zoo.py"), "--only", name, "--size", str(size), "--eager"]
    command += ["--folder", str(folder), "--page", str(folder / "zoo.md")]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    rows = [line for line in (folder / "zoo.md").read_text().splitlines() if line.startswith(f"| {name} ")]
    return json.loads((folder / f"{name}.json").read_text()), *rows


@pytest.mark.parametrize("name", APPLICATIONS)
def test_application(name, tmp_path):
    result, row = walked(name, APPLICATIONS[name], tmp_path)
    assert (result["int8_share"], result["problems"]) == (1.0, [])
    assert result["files"]["Q/DQ ONNX"]["elements"] > 0
    assert row.endswith("| passed |")


@pytest.mark.skipif(find_spec("keras_hub") is None, reason="keras-hub is not installed (the extra `zoo`)")
@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(name, tmp_path):
    result, row = walked(name, BACKBONES[name], tmp_path)
    assert (result["kernels"] > 10, result["problems"]) == (True, [])
    assert row.endswith("| passed |")


def test_what_failed_is_told(zoo_page):
    good = {"name": "Good", "family": "keras.applications", "size": 96, "versions": {"keras": "3"}, "int8_share": 1.0}
    cases = {
        "refused": ({**good, "step": "prepare", "error": "Traceback\nTfqatError: no"}, ["prepare: TfqatError: no"]),
        "float": ({**good, "int8_share": 0.5}, ["50.00 % of the multiply-accumulates are INT8"]),
        "late": ({**good, "seconds": {"build": 1.0, "prepare": 11.0}}, ["prepare took 11.0 s"]),
        "judge": ({**good, "problems": ["Q/DQ ONNX: 1 of 2 blocks differ"]}, ["Q/DQ ONNX: 1 of 2 blocks differ"]),
        "passed": (good, []),
    }
    found = {case: zoo_page.problems_of(result, {"prepare": 10.0}) for case, (result, _) in cases.items()}
    assert found == {case: problems for case, (_, problems) in cases.items()}
    text = zoo_page.page([{**cases["refused"][0], "name": "Bad"}, good])
    assert "- Bad: prepare: TfqatError: no" in text
    assert [line.split(" | ")[-1] for line in text.splitlines() if line.startswith(("| Good", "| Bad"))] == [
        "**failed** |",
        "passed |",
    ]
