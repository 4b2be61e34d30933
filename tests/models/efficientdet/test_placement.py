"""What becomes of each op of D0 at its own image size."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tfqat
from tfqat.models.efficientdet.model import efficientdet

GOLDEN = Path(__file__).parents[2] / "graph/golden/detectors"
TARGETS = ("tensorrt", "tensorrt_dla", "sima", "tflite")


@pytest.fixture(scope="module")
def d0():
    import keras

    keras.backend.clear_session()
    return efficientdet("efficientdet_d0", (512, 512, 3), 90)


def test_golden_table(d0):
    plan = tfqat.placement(d0)
    golden = (GOLDEN / "efficientdet_d0.txt").read_text()
    assert f"{plan}\n" == golden, "run scripts/golden.py and read the difference"


@pytest.mark.parametrize("target", TARGETS)
def test_every_convolution_is_int8_but_the_last_of_each_head(d0, target):
    plan = tfqat.placement(d0, target)
    floats = {re.sub(r"/\d+$", "", row.op) for row in plan.rows if row.macs and row.state != "int8"}
    assert floats == (set() if target == "tflite" else {"class_last/pointwise", "box_last/pointwise"})
    assert plan.int8_mac_share == 1.0


def test_nothing_but_output_layers_constants_and_preprocessing_stays_float(d0):
    reasons = {row.reason.split(":")[0] for row in tfqat.placement(d0).rows if row.state == "float"}
    assert reasons == {"output layer", "depends on no input of the model", "before the first Quantizer"}


def test_resizing_shares_and_fusion_adds_on_integers(d0):
    rows = {row.op: row for row in tfqat.placement(d0).rows}
    resized = [row.state for name, row in rows.items() if re.fullmatch(r"bifpn\d_(down|up)\d_(pool|double)", name)]
    assert resized == ["shared"] * 24
    adds = [row.state for name, row in rows.items() if re.fullmatch(r"bifpn\d_\w+_fusion/add_\d", name)]
    # Three BiFPNs of five nodes with two maps (one sum) and three with three (two).
    assert adds == ["int8"] * (15 + 2 * 9)
