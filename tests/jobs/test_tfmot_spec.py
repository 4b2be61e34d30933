"""A spec whose checkpoint is a TFMOT model: imported, trained on, exported."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tfqat.errors import TfqatError
from tfqat.jobs import quantize as other_job
from tfqat.jobs import train as job
from tfqat.jobs.export import export_spec
from tfqat.jobs.quantize import quantize
from tfqat.jobs.train import train
from tfqat.jobs.trained import quantized_model
from tfqat.jobs.verify import verify_spec
from tfqat.rewrite.model import kernel_layers
from tfqat.spec.schema import Spec
from tfqat.training import stages


@pytest.fixture
def make_spec(tfmot_models, tmp_path, monkeypatch):
    # Deterministic ops cannot be switched off again, and would reach the other tests.
    for module in (job, other_job):
        monkeypatch.setattr(module, "make_deterministic", keras.utils.set_random_seed)
    arrays = np.load(tfmot_models / "sequential.npz")
    labels = arrays["y0"].argmax(axis=-1)
    data = {"x_train": arrays["x0"], "y_train": labels, "x_test": arrays["x0"], "y_test": labels}
    np.savez(tmp_path / "data.npz", **data)

    def make(quantization=(), **training):
        return Spec.model_validate(
            {
                "results_dir": str(tmp_path / "results"),
                "dataset_config": {"kind": "npz", "path": str(tmp_path / "data.npz"), "batch_size": 16},
                "model_config": {"checkpoint": str(tfmot_models / "sequential.h5"), "num_classes": 3},
                "training_config": {"num_epochs": 0} | training,
                "quantization_config": {"target": "tensorrt"} | dict(quantization),
            }
        )

    return make


def rows_of(spec):
    rows = json.loads((Path(spec.results_dir) / "stages.json").read_text())
    return {row["name"]: row["score"] for row in rows}


def test_a_tfmot_checkpoint_is_imported_measured_and_exported(make_spec, capsys):
    spec = make_spec()
    train(spec)
    assert list(rows_of(spec)) == [stages.FLOAT, stages.TFMOT, stages.IMPORTED, stages.QAT, stages.FINALIZED]
    # The labels are what TFMOT's model says.
    assert rows_of(spec)[stages.TFMOT] == 1.0
    assert "hidden: asymmetric" not in (printed := capsys.readouterr().out)
    assert "image: asymmetric" in printed
    placement = (Path(spec.results_dir) / "placement.txt").read_text()
    assert "image: asymmetric" in placement
    assert "relu -> relu6" not in placement  # TFMOT's ranges were learned with the activations as they are
    export_spec(spec)
    assert verify_spec(spec).passed
    assert all(layer.scale_by == "held" for layer in kernel_layers(quantized_model(spec)))


def test_it_trains_on(make_spec):
    spec = make_spec(num_epochs=2)
    train(spec)
    lines = (Path(spec.results_dir) / "metrics.csv").read_text().splitlines()
    assert len(lines) == 3
    assert all(layer.scale_by == "held" for layer in kernel_layers(quantized_model(spec)))


def test_it_trains_on_and_learns_from_the_float_model_inside(make_spec):
    spec = make_spec(num_epochs=1, distillation={"features": ["hidden"]}, oscillation={"freeze_threshold": 0.1})
    train(spec)
    heads, values = (line.split(",") for line in (Path(spec.results_dir) / "metrics.csv").read_text().splitlines())
    row = dict(zip(heads, values, strict=True))
    assert float(row["distillation_loss"]) > 0
    assert float(row["feature_loss"]) > 0


def test_a_float_phase_is_refused(make_spec):
    with pytest.raises(TfqatError, match="float_epochs: received 1, expected 0"):
        train(make_spec(float_epochs=1))


def test_a_float_run_takes_the_weights(make_spec):
    spec = make_spec(enable_qat=False, float_epochs=1)
    train(spec)
    assert list(rows_of(spec)) == [stages.FLOAT]


def test_rules_are_obeyed(make_spec):
    spec = make_spec(quantization={"rules": [{"match": "hidden", "quantize": False}]})
    train(spec)
    assert "hidden" not in {layer.name for layer in kernel_layers(quantized_model(spec))}


def test_what_tfmot_trained_is_not_tuned_and_not_quantized_anew(make_spec):
    with pytest.raises(
        TfqatError, match=r"tune: received \['bias_correction'\], expected \[\].*ranges belong to its wei"
    ):
        train(make_spec({"tune": ["bias_correction"]}))
    with pytest.raises(
        TfqatError, match=r"(?s)quantized by TFMOT already; `tfqat train` with training_config.num_epochs=0"
    ):
        quantize(make_spec({}), restart=True)
