"""Verification passes what is right and notices what is not."""

from __future__ import annotations

import json
import re
import weakref

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tfqat
from tfqat.core.encoding import Encodings
from tfqat.errors import TfqatError
from tfqat.exporters import cache, encodings, manifest, onnx_file, onnx_qdq
from tfqat.verification import compare
from tfqat.verification.blocks import judge_blocks, judged_tensors
from tfqat.verification.files import disagreements, open_files
from tfqat.verification.keras_values import centered_error, noise_error, values_of
from tfqat.verification.runner import RunError, Runner
from tfqat.verification.simulation import SimulationError, simulate


@pytest.fixture(scope="session")
def labels(qat, images):
    return np.asarray(qat(images)).argmax(axis=-1)


@pytest.fixture(scope="session")
def files(exported):
    return open_files(exported)


@pytest.fixture(scope="session")
def values(qat, images):
    return values_of(tfqat.finalize(qat), {"image": images[:16]})


def test_all_is_within_tolerance(qat, exported, images, labels):
    report = tfqat.verify(qat, exported, (images, labels))
    assert report.passed, report
    assert [(row.name, row.correct, row.agreeing) for row in report.rows] == [
        ("Q/DQ ONNX", 64, 64),
        ("float ONNX + cache", 64, 64),
    ]
    assert report.trained.score == 1.0
    assert {score.tensor for score in report.blocks} >= {"image", "stem_relu", "join_relu", "pool", "pad", "scale"}
    assert sum(score.elements for score in report.blocks) > 64 * 2000
    assert "OUT OF TOLERANCE" not in str(report)


def test_random_inputs_will_do_for_parity(qat, exported):
    report = tfqat.verify(qat, exported)
    assert report.passed
    assert report.rows[0].score is None


def test_batches_of_a_dataset(qat, exported, images, labels):
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(20)
    assert tfqat.verify(qat, exported, batches).rows[0].correct == 64


def test_a_data_set_that_is_shuffled_anew_each_time(qat, exported, images, labels):
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(64).batch(20)
    report = tfqat.verify(qat, exported, batches)
    assert [(row.correct, row.agreeing) for row in report.rows] == [(64, 64)] * 2


def test_no_batch_is_held_but_those_that_are_judged(qat, exported, images, labels):
    seen, alive = [], []

    def batches():
        for _ in range(12):
            batch = images.copy()
            seen.append(weakref.ref(batch))
            yield batch, labels
            del batch
            alive.append(sum(one() is not None for one in seen))

    report = tfqat.verify(qat, exported, batches())
    assert (report.rows[0].images, report.rows[0].correct, report.judged) == (12 * 64, 12 * 64, 64)
    assert max(alive) <= 3  # the judged one, and the one that was just run


def test_a_model_of_large_tensors_is_judged_image_by_image(qat, exported, images, labels, monkeypatch):
    whole = tfqat.verify(qat, exported, (images, labels))
    monkeypatch.setattr(compare, "_HELD_ELEMENTS", 1)
    report = tfqat.verify(qat, exported, (images, labels))
    assert report.passed, report
    assert (report.judged, report.in_blocks, whole.in_blocks) == (64, 1, 64)
    assert report.trained == whole.trained
    for row, before in zip(report.rows, whole.rows, strict=True):
        assert (row.correct, row.agreeing, row.error) == (64, 64, before.error)
        sizes = {score.tensor: score.elements for score in row.blocks}
        assert {name: 64 * size for name, size in sizes.items()} == {s.tensor: s.elements for s in before.blocks}


def test_values_of_some_tensors_are_those_of_all(qat, files, values, images):
    wanted = judged_tensors(files.qdq, {})  # some of which are ONNX' own
    some = values_of(tfqat.finalize(qat), {"image": images[:16]}, wanted)
    assert wanted & set(values.after) <= set(some.after)
    assert len(some.before) < len(values.before)
    for found, known in ((some.after, values.after), (some.before, values.before)):
        for name, value in found.items():
            np.testing.assert_array_equal(value, known[name])
    np.testing.assert_array_equal(some.outputs[0], values.outputs[0])


def test_wrong_labels_do_not_matter_but_equal_counts_do(qat, exported, images):
    report = tfqat.verify(qat, exported, (images, np.zeros(64, int)))
    assert report.rows[0].correct == report.trained.correct < 64


SPOILT = {
    "a scale 3 % off": ("stem_relu/scale", lambda a: a * np.float32(1.03), "stem_relu"),
    "a kernel scale 3 % off": ("branch/kernel/scale", lambda a: a * np.float32(1.03), "join_relu"),
    "a bias moved": ("depthwise/bias", lambda a: a + np.float32(0.1), "depthwise/silu"),
}


@pytest.mark.parametrize(("name", "change", "block"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_model_fails_in_its_own_block_only(files, values, images, name, change, block):
    model = onnx.ModelProto()
    model.CopyFrom(files.qdq)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
    scores = judge_blocks(model, values, {"image": images[:16]}, {})
    failed = {score.tensor for score in scores if not score.passed}
    assert block in failed
    # A tensor's own scale is also that of the integers it is judged by downstream; nothing else may fail.
    assert failed <= {block, "join_relu"}


def test_every_block_passes(files, values, images):
    scores = judge_blocks(files.qdq, values, {"image": images[:16]}, {})
    assert all(score.passed for score in scores)
    assert max(score.largest for score in scores) <= 1


def test_noise_moves_outputs_a_little(qat, images):
    final = tfqat.finalize(qat)
    assert noise_error(final, {"image": images[:16]}, 0.0, 1) == [0.0]
    small, large = (noise_error(final, {"image": images[:16]}, size, 2)[0] for size in (3e-7, 3e-2))
    assert small < 0.01 < large


def test_the_last_bits_of_a_constant_output_are_no_error():
    reference = np.full((8, 3), 1 / 3)
    shaken = reference * (1 + 1e-7 * np.random.default_rng(0).standard_normal((8, 3)))
    assert centered_error(shaken, reference) < 2e-3
    assert centered_error(reference, reference) == 0
    assert centered_error(reference * [[1.001]] + np.eye(8, 3) * 1e-3, reference) > 0.1


def test_centered_error_sees_through_a_common_offset():
    reference = np.array([[1.0, 2.0], [3.0, 5.0]])
    assert centered_error(reference + 100, reference) == pytest.approx(0)
    assert centered_error(-reference, reference) == pytest.approx(2)
    assert centered_error(np.zeros((2, 2)), np.zeros((2, 2))) == 0
    assert centered_error(reference, np.zeros((2, 2))) == 1


def test_one_image_alone_is_judged_by_its_own_values():
    reference = np.array([[3.0, 4.0]])
    assert centered_error(-reference, reference) == 2
    assert centered_error(np.array([[3.0, 4.5]]), reference) == pytest.approx(0.1)


# The simulation, checked with numpy alone.


def test_the_simulation_quantizes_what_the_cache_names(files, images):
    simulated = simulate(files.model, files.cache, files.kept_float)
    pairs = onnx_qdq.scales_of(simulated.model)
    assert {name: np.float32(scale) for name, scale in pairs.items()} == dict(files.cache.scales)
    assert set(simulated.coverage.int8) == {"stem", "branch", "depthwise", "excite"}
    assert simulated.coverage.float_nodes == ("head",)
    weights = {t.name: numpy_helper.to_array(t) for t in simulated.model.graph.initializer}
    kernel = {t.name: numpy_helper.to_array(t) for t in files.model.graph.initializer}["stem/kernel"]
    expected = np.abs(kernel).max(axis=(1, 2, 3)) / np.float32(127)
    np.testing.assert_array_equal(weights["stem/kernel/scale"], expected)


def test_a_layer_without_a_line_for_its_output_stays_float(files):
    scales = {name: scale for name, scale in files.cache.scales.items() if name != "join_relu"}
    simulated = simulate(files.model, cache.Cache(files.cache.header, scales))
    assert "branch" in simulated.coverage.float_nodes
    assert "join_relu" not in onnx_qdq.scales_of(simulated.model)


def test_layer_precisions_keep_a_layer_float(files):
    assert "stem" in simulate(files.model, files.cache).coverage.int8
    assert "stem" in simulate(files.model, files.cache, ["stem"]).coverage.float_nodes


def test_a_foreign_cache_is_refused_with_names_of_both_sides(files):
    foreign = cache.parse("TRT-8601-EntropyCalibration2\nother: 3c010204\n")
    with pytest.raises(SimulationError, match=r"other.*image"):
        simulate(files.model, foreign)
    with pytest.raises(SimulationError, match="nowhere"):
        simulate(files.model, files.cache, ["nowhere"])


# Files that are not what was exported.


def rewritten(folder, name: str, text: str) -> None:
    """Changes a file and its row of the manifest, so that only its content is wrong."""
    (folder / name).write_text(text)
    listed = manifest.read(folder / "manifest.json")
    rows = {r: manifest.entry(folder / e["name"], e["read_by"]) for r, e in listed.files.items()}
    manifest.write(folder / "manifest.json", manifest.Manifest(listed.target, rows, listed.options, listed.report))


def test_a_scale_changed_in_the_cache_is_noticed(qat, copied):
    text = (copied / "model.cache").read_text()
    changed = re.sub(r"(join_relu: )(..)", r"\g<1>3e", text)
    assert changed != text
    (copied / "model.cache").write_text(changed)
    with pytest.raises(TfqatError, match="changed after the export"):
        tfqat.verify(qat, copied)
    rewritten(copied, "model.cache", changed)
    assert disagreements(open_files(copied)) == ["the cache has other scales than the encodings for join_relu"]
    assert not tfqat.verify(qat, copied).passed


def test_a_line_missing_in_the_cache_is_noticed(copied):
    lines = (copied / "model.cache").read_text().splitlines(keepends=True)
    rewritten(copied, "model.cache", "".join(line for line in lines if not line.startswith("pool:")))
    assert "pool" in disagreements(open_files(copied))[0]


@pytest.mark.parametrize("int8_weights", [False, True])
def test_a_kernel_changed_in_one_of_the_models_is_noticed(qat, tmp_path, int8_weights):
    tfqat.export(qat, tmp_path, int8_weights=int8_weights)
    files = open_files(tmp_path)
    assert disagreements(files) == []
    kernel = next(tensor for tensor in files.model.graph.initializer if tensor.name == "branch/kernel")
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) + np.float32(0.1), kernel.name))
    assert disagreements(files) == ["the Q/DQ ONNX has other weights than the float ONNX for branch/kernel"]


def test_layer_precisions_of_another_export_are_noticed(copied):
    rewritten(copied, "layer_precisions.txt", "")
    assert disagreements(open_files(copied)) == [
        "the layer precisions and the encodings keep different nodes float: head"
    ]


@pytest.mark.parametrize("name", ["model.onnx", "model.qdq.onnx", "model.cache", "encodings.json", "manifest.json"])
def test_a_file_cut_off_is_refused(copied, name):
    data = (copied / name).read_bytes()
    (copied / name).write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(TfqatError, match=re.escape(name)):
        open_files(copied)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_missing_file_is_refused(copied, name):
    (copied / name).unlink()
    with pytest.raises(TfqatError, match=re.escape(name)):
        open_files(copied)


def test_a_truncated_onnx_is_named(tmp_path, exported):
    data = (exported / "model.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(TfqatError, match=r"cut\.onnx is not a whole ONNX"):
        onnx_file.load(path)


def test_inputs_that_do_not_fit_are_named(files):
    runner = Runner(files.model)
    with pytest.raises(RunError, match="image"):
        runner.run({"image": np.zeros((1, 8, 8, 3), "float32")})
    with pytest.raises(RunError, match="1 inputs"):
        runner.named([np.zeros(1), np.zeros(1)])


# The files among themselves.


def test_every_file_can_be_written_again_from_the_encodings_alone(exported, tmp_path):
    told = encodings.read(exported / "encodings.json")
    again = cache.write(tmp_path / "model.cache", told.activations, "8.6.1")
    assert again.read_bytes() == (exported / "model.cache").read_bytes()
    qdq = onnx_qdq.insert(onnx_file.load(exported / "model.onnx"), told)
    assert onnx_file.save(qdq, tmp_path / "q").read_bytes() == (exported / "model.qdq.onnx").read_bytes()


def test_every_line_names_a_tensor_and_there_are_fewer_than_tensors(files):
    tensors = {"image"} | {name for node in files.model.graph.node for name in node.output}
    assert set(files.cache.scales) < tensors
    # Inside blocks, and the float tail: no line.
    assert tensors - set(files.cache.scales) >= {"stem", "branch", "join", "excite", "logits"}


def test_inner_tensors_of_silu_have_calibrated_lines_and_no_pair(files):
    listed = files.manifest.report["origins"]["calibrated"]
    assert set(listed) == {"depthwise", "depthwise/silu/sigmoid"}
    told: Encodings = files.encodings
    assert told.activations["depthwise/silu/sigmoid"].max <= 1.0
    assert not set(listed) & set(onnx_qdq.scales_of(files.qdq))


def test_the_manifest_says_who_reads_what(exported):
    listed = json.loads((exported / "manifest.json").read_text())
    assert "--calib=model.cache" in listed["files"]["onnx"]["read_by"]
    assert "11" in listed["files"]["qdq_onnx"]["read_by"]
    assert listed["report"]["float"] == {"head": "output layer: outputs stay float"}
