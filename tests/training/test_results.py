"""The results folder belongs to one spec, and to a folder that can be written."""

from __future__ import annotations

import pytest

from tfqat.errors import TfqatError
from tfqat.spec import load_spec
from tfqat.training.results import OWN_FILES, check_trained_by, open_results


def test_holds_the_resolved_spec(make_spec):
    spec = make_spec()
    assert load_spec(open_results(spec).spec) == spec


def test_the_same_spec_may_come_again_and_export_may_change(make_spec):
    open_results(make_spec())
    open_results(make_spec())
    open_results(make_spec({"export_config": {"opset": 18}}))


def test_another_spec_is_refused_by_the_keys_that_differ(make_spec):
    open_results(make_spec())
    with pytest.raises(TfqatError) as error:
        open_results(make_spec({"random_seed": 1}, float_epochs=3))
    text = str(error.value)
    assert "training_config.float_epochs: was 1, is 3" in text
    assert "random_seed: was 42, is 1" in text
    assert "--restart" in text
    assert "batch_size" not in text
    assert load_spec(open_results(make_spec()).spec).training.float_epochs == 1


def test_restart_removes_what_tfqat_made_and_nothing_else(make_spec):
    results = open_results(make_spec())
    for name in OWN_FILES:
        (results.folder / name).write_text("old")
    results.checkpoints.mkdir()
    (results.checkpoints / "float-0001.keras").write_text("old")
    (results.folder / "notes.txt").write_text("the user's")
    open_results(make_spec(float_epochs=2), restart=True)
    assert sorted(path.name for path in results.folder.iterdir()) == ["notes.txt", "spec.yaml"]


def test_a_folder_that_cannot_be_written(make_spec, tmp_path):
    (tmp_path / "file").write_text("")
    spec = make_spec({"results_dir": str(tmp_path / "file" / "results")})
    with pytest.raises(TfqatError, match=r"results_dir .*file/results' cannot be written.*Name a folder"):
        open_results(spec)


def test_temporary_files_of_a_killed_run_are_removed(make_spec):
    results = open_results(make_spec())
    results.checkpoints.mkdir()
    for folder in (results.folder, results.checkpoints):
        (folder / ".0123456789ab.tmp.keras").write_text("half")
        (folder / ".hidden").write_text("the user's")
    open_results(make_spec())
    assert [path.name for path in results.folder.rglob(".*")] == [".hidden", ".hidden"]


def test_a_broken_spec_file(make_spec):
    open_results(make_spec()).spec.write_text("{")
    with pytest.raises(TfqatError, match=r"spec\.yaml is no spec"):
        open_results(make_spec())


def test_what_comes_after_training_must_ask_for_what_was_trained(make_spec):
    spec = make_spec()
    results = open_results(spec)
    check_trained_by(results, spec)
    strict = spec.model_copy(update={"quantization": spec.quantization.model_copy(update={"strict": True})})
    check_trained_by(results, strict)
    found = {"score_threshold": 0.3, "iou_threshold": 0.7, "max_detections": 9}
    check_trained_by(results, spec.model_copy(update={"detection": spec.detection.model_copy(update=found)}))
    learnt = spec.model_copy(update={"detection": spec.detection.model_copy(update={"anchor_scale": 3.0})})
    with pytest.raises(TfqatError, match=r"detection_config\.anchor_scale: was 4\.0, is 3\.0"):
        check_trained_by(results, learnt)
    other = spec.model_copy(update={"quantization": spec.quantization.model_copy(update={"ranges": "fixed"})})
    with pytest.raises(TfqatError, match=r"quantization_config\.ranges: was 'moving_average', is 'fixed'"):
        check_trained_by(results, other)
