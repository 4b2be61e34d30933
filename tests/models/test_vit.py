"""The small vision transformer, and the script that measures it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfqat
from tfqat.models.vit import vit

ROOT = Path(__file__).parents[2]
MNIST = ROOT.parent / "shared/data/mnist/mnist.npz"


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (9, 7, 2)], ids=str)
def test_gives_probabilities_for_any_image_size(shape):
    model = vit(shape, 10, width=24, blocks=1)
    outputs = keras.ops.convert_to_numpy(model(np.random.default_rng(0).random((2, *shape), np.float32)))
    assert outputs.shape == (2, 10)
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)


def test_is_of_four_blocks_of_width_192():
    model = vit((28, 28, 1), 10)
    assert sum(isinstance(layer, keras.layers.MultiHeadAttention) for layer in model.layers) == 4
    assert model.get_layer("positions").table.shape == (16, 192)
    # Patches, positions, final norm and head; each block: four projections, the MLP, two norms.
    block = 4 * (192 * 192 + 192) + 2 * 192 * 384 + 384 + 192 + 4 * 192
    assert model.count_params() == 49 * 192 + 192 + 16 * 192 + 4 * block + 2 * 192 + 1930


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_every_product_but_the_output_layer_is_int8(dropout):
    plan = tfqat.placement(vit((28, 28, 1), 10, dropout=dropout))
    rows = [row for row in plan.rows if row.macs]
    assert [row.op for row in rows if row.state != "int8"] == ["logits"]
    assert sum(row.kind == "matmul" for row in rows) == 8
    assert plan.int8_mac_share == 1.0


def test_loads_without_its_module(tmp_path):
    vit((8, 8, 1), 3, width=24, blocks=1).save(tmp_path / "float.keras")
    script = f"import tfqat, keras; keras.models.load_model({str(tmp_path / 'float.keras')!r})"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(not MNIST.exists(), reason=f"MNIST is not at {MNIST}")
def test_the_script_trains_exports_and_verifies(tmp_path):
    """A smaller one, on so few images that nothing is learnt but how to run."""
    with np.load(MNIST) as file:
        parts = {name: file[name][:count] for name in file for count in [256 if name.endswith("train") else 64]}
    np.savez(tmp_path / "few.npz", **parts)
    vit((28, 28, 1), 10, width=24, blocks=1).save(tmp_path / "small.keras")
    command = [sys.executable, str(ROOT / "scripts/vit.py"), str(ROOT / "specs/vit_mnist.yaml")]
    command += [f"results_dir={tmp_path / 'results'}", f"dataset_config.path={tmp_path / 'few.npz'}"]
    command += [f"model_config={{checkpoint: {tmp_path / 'small.keras'}}}", "training_config.float_epochs=1"]
    command += ["dataset_config.batch_size=32", "--below-float=20", "--from-qat=5"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    results = [line for line in run.stdout.splitlines() if line.startswith("RESULT ")]
    assert any("matmul: 2 of 2 in INT8" in line for line in results)
    assert any("Q/DQ ONNX" in line for line in results)
