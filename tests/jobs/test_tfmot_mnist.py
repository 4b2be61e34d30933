"""A CNN that TFMOT quantized and trained on MNIST, measured by scripts/tfmot.py, whose exit status judges it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MNIST = ROOT.parent / "shared/data/mnist/mnist.npz"


@pytest.mark.skipif(not MNIST.exists(), reason=f"MNIST is not at {MNIST}")
def test_a_trained_cnn_is_the_same_in_keras_3_and_as_good_in_every_file(tmp_path):
    command = [sys.executable, str(ROOT / "scripts/tfmot.py"), "--models", "cnn", "--images", "4000"]
    command += ["--data", str(MNIST), "--folder", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    rows = [line.split(" | ") for line in run.stdout.splitlines() if line.startswith("| cnn")]
    assert [row[1] for row in rows if row[1].endswith(("ONNX", "cache", "TFLite"))] == [
        "Q/DQ ONNX",
        "float ONNX + cache",
        "int8 TFLite",
    ]
    assert all(float(row[2].strip("%")) > 90 for row in rows)
