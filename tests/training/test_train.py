"""The job: what a run leaves, and how it ends where it cannot go on."""

from __future__ import annotations

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfqat.errors import TfqatError
from tfqat.jobs.evaluate import evaluate
from tfqat.jobs.train import train
from tfqat.models.load import load_model
from tfqat.training import loop
from tfqat.training.results import Results
from tfqat.training.stages import read_stages


def results_of(spec) -> Results:
    from pathlib import Path

    return Results(Path(spec.results_dir))


def statuses(results):
    return [json.loads(line) for line in results.status.read_text().splitlines()]


def test_a_run_from_float_to_finalized(make_spec, capsys):
    spec = make_spec()
    train(spec)
    results = results_of(spec)
    for path in (results.float_model, results.qat_model, results.placement, results.metrics, results.spec):
        assert path.stat().st_size > 0
    rows = read_stages(results.stages)
    assert [row.name for row in rows] == ["float", "float + ReLU6", "PTQ (calibrated only)", "QAT", "finalized"]
    assert rows[3].file_size == results.qat_model.stat().st_size
    assert [line["status"] for line in statuses(results)] == ["STARTED", "RUNNING", "RUNNING", "SUCCESS"]
    assert "finalized" in capsys.readouterr().out

    # The saved model is the one of the table.
    score = evaluate(spec)
    assert score.score == pytest.approx(rows[3].score)
    assert f"{score.score:.2%}" in capsys.readouterr().out
    # Keras itself reads both files, compiled as they were.
    for path in (results.float_model, results.qat_model):
        assert keras.models.load_model(path).compiled
    labels, guesses = [], []
    model = load_model(results.qat_model)
    from tfqat.data import load

    for images, batch_labels in load(spec.dataset, spec.random_seed).validation:
        guesses += list(np.argmax(model(images, training=False), axis=-1))
        labels += list(batch_labels.numpy())
    assert np.mean(np.equal(labels, guesses)) == pytest.approx(score.score)

    # A second run trains nothing, says so, and prints the table again.
    before = results.status.read_text()
    train(spec)
    printed = capsys.readouterr().out
    assert "nothing was trained" in printed
    assert "finalized" in printed
    assert results.status.read_text() == before


def test_float_only(make_spec):
    spec = make_spec(enable_qat=False)
    train(spec)
    results = results_of(spec)
    assert [row.name for row in read_stages(results.stages)] == ["float"]
    assert not results.qat_model.exists()
    assert evaluate(spec).score == pytest.approx(read_stages(results.stages)[0].score)


def test_a_checkpoint_without_float_epochs_and_calibration_only(make_spec, user_module, tmp_path):
    model = user_module.net((8, 8, 1), 10)
    model.save(tmp_path / "given.keras")
    spec = make_spec({"model_config": {"checkpoint": str(tmp_path / "given.keras")}}, float_epochs=0, num_epochs=0)
    train(spec)
    saved = load_model(results_of(spec).float_model)
    for ours, given in zip(saved.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, given)
    rows = read_stages(results_of(spec).stages)
    assert rows[2].score == rows[3].score


def nan_in_second_epoch():
    images = np.random.default_rng(0).random((32, 8, 8, 1), np.float32)
    labels = np.arange(32) % 10
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)

    def epoch_data(epoch):
        factor = tf.where(epoch == 1, np.float32("nan"), np.float32(1))
        return dataset.map(lambda x, y: (x * factor, y))

    return {"train": epoch_data, "validation": dataset, "calibration": dataset}


def test_a_loss_that_is_nan_stops_and_keeps_the_last_good_checkpoint(make_spec, user_module):
    user_module.data = nan_in_second_epoch
    spec = make_spec({"dataset_config": {"kind": "python", "function": "users:data"}}, float_epochs=3)
    with pytest.raises(loop.TrainingError, match=r"loss of the float phase is nan at step 1.*Lower the learning rate"):
        train(spec)
    results = results_of(spec)
    last = statuses(results)[-1]
    assert last["status"] == "FAILURE"
    assert "nan" in last["message"]
    (checkpoint,) = results.checkpoints.iterdir()
    assert checkpoint.name == "float-0001.keras"
    assert all(np.isfinite(value).all() for value in load_model(checkpoint).get_weights())
    assert not results.float_model.exists()


def test_a_checkpoint_of_another_architecture(make_spec, user_module, tmp_path):
    spec = make_spec(enable_qat=False)
    results = results_of(spec)
    results.checkpoints.mkdir(parents=True)
    other = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    other.save(results.checkpoints / "float-0001.keras")
    with pytest.raises(TfqatError, match=r"float-0001\.keras is of another architecture: it has 2 var.*--restart"):
        train(spec)
    assert statuses(results)[-1]["status"] == "FAILURE"
    train(spec, restart=True)
    assert statuses(results)[-1]["status"] == "SUCCESS"


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(make_spec, capsys):
    spec = make_spec(enable_qat=False, float_epochs=3)
    train(spec)
    results = results_of(spec)
    whole = load_model(results.float_model).get_weights()
    results.float_model.unlink()
    newest = results.checkpoints / "float-0003.keras"
    newest.write_bytes(newest.read_bytes()[:5000])
    train(spec)
    assert "Continuing the float phase after epoch 2 of 3" in capsys.readouterr().out
    for ours, other in zip(load_model(results.float_model).get_weights(), whole, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-3, atol=1e-4)


def test_tensorboard_that_is_not_installed(make_spec, monkeypatch):
    monkeypatch.setattr(loop.importlib.util, "find_spec", lambda name: None)
    spec = make_spec(tensorboard=True)
    with pytest.raises(TfqatError, match="pip install tensorboard"):
        train(spec)
    assert not results_of(spec).folder.exists()


def test_a_results_folder_that_cannot_be_written_is_found_before_training(make_spec, user_module, tmp_path):
    (tmp_path / "file").write_text("")
    user_module.net = lambda: pytest.fail("the model was built")
    with pytest.raises(TfqatError, match="cannot be written"):
        train(make_spec({"results_dir": str(tmp_path / "file" / "results")}))


def test_evaluate_without_a_model(make_spec):
    with pytest.raises(TfqatError, match=r"No trained model at .*qat\.keras"):
        evaluate(make_spec())


def test_the_folder_can_be_moved(make_spec, tmp_path, capsys):
    spec = make_spec(enable_qat=False)
    train(spec)
    shutil.move(spec.results_dir, tmp_path / "moved")
    train(make_spec({"results_dir": str(tmp_path / "moved")}, enable_qat=False))
    assert "nothing was trained" in capsys.readouterr().out


def test_what_cannot_be_prepared_is_found_before_the_float_phase(make_spec):
    spec = make_spec({"quantization_config": {"rules": [{"match": "no_such_op", "quantize": False}]}})
    with pytest.raises(TfqatError, match="no_such_op"):
        train(spec)
    assert [line["status"] for line in statuses(results_of(spec))] == ["STARTED", "FAILURE"]
    assert not results_of(spec).checkpoints.exists()
