"""keras.applications models, small: the whole way but for training, judged as `tfqat verify` does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "scripts/models.py"
SIZES = {
    "ResNet50": 64,
    "MobileNetV2": 96,
    "EfficientNetB0": 64,
    "DenseNet121": 64,
    "MobileNetV3Small": 96,
    "InceptionV3": 75,
}


@pytest.mark.parametrize("name", SIZES)
def test_every_step_and_both_judges(name):
    command = [sys.executable, str(SCRIPT), name, "--here", "--untimed", "--size", str(SIZES[name])]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert "INT8 100.0 % of MACs" in result.stdout
