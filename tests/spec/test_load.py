"""Loading: what is read, what each mistake is called, and that one report names them all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfqat.errors import TfqatError
from tfqat.spec import Spec, SpecError, dump_spec, load_spec

VALID = """\
results_dir: results/x
dataset_config: {kind: digits}
model_config: {architecture: resnet8, num_classes: 10}
training_config: {float_epochs: 1}
"""
NPZ = """\
results_dir: results/x
dataset_config: {kind: npz, path: a.npz}
model_config: {checkpoint: a.keras}
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "spec.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def report(write):
    """The text of the error that a spec with these overrides gives."""

    def report(*overrides: str, text: str | bytes = VALID) -> str:
        with pytest.raises(SpecError) as caught:
            load_spec(write(text), overrides)
        return str(caught.value)

    return report


def test_defaults_and_values(write):
    spec = load_spec(write(VALID))
    assert spec.random_seed == 42
    assert spec.dataset.kind == "digits"
    assert spec.dataset.image_size == 32
    assert spec.training.enable_qat is True
    assert spec.quantization.relu6 == ("relu", "leaky_relu", "prelu", "elu")
    assert spec.export.tensorrt_version == "8.6.1"


def test_is_frozen(write):
    spec = load_spec(write(VALID))
    for section, name in ((spec, "random_seed"), (spec.training, "num_epochs"), (spec.training.optimizer, "name")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(section, name, 1)


# Override -> the attribute it sets, and its value.
ACCEPTED = {
    "integer": ("training_config.num_epochs=1", lambda s: s.training.num_epochs, 1),
    "whole_number_for_a_fraction": ("training_config.optimizer.learning_rate=1", lambda s: s.training.optimizer, 1.0),
    "exponent_without_a_point": ("training_config.optimizer.learning_rate=1e-3", lambda s: s.training.optimizer, 0.001),
    "boolean": ("training_config.enable_qat=false", lambda s: s.training.enable_qat, False),
    "null": ("quantization_config.freeze_after=null", lambda s: s.quantization.freeze_after, None),
    "list": ("quantization_config.relu6=[relu]", lambda s: s.quantization.relu6, ("relu",)),
    "list_of_mappings": (
        'quantization_config.rules=[{match: "head_*", quantize: false}]',
        lambda s: [rule.model_dump() for rule in s.quantization.rules],
        [{"match": "head_*", "quantize": False, "relu6": None, "weight_bits": None, "activation_bits": None}],
    ),
    "value_with_equals_sign": ("results_dir=runs/lr=0.1", lambda s: s.results_dir, "runs/lr=0.1"),
    "whole_section": ("model_config={checkpoint: a.h5}", lambda s: s.model.checkpoint, "a.h5"),
    "new_section": ("export_config.opset=13", lambda s: s.export.opset, 13),
    "two_part_version": ('export_config.tensorrt_version="8.6"', lambda s: s.export.tensorrt_version, "8.6.0"),
    "build_number": ("export_config.tensorrt_version=10.9.0.34", lambda s: s.export.tensorrt_version, "10.9.0"),
}


@pytest.mark.parametrize(("override", "read", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_override(write, override, read, expected):
    value = read(load_spec(write(VALID), [override]))
    assert getattr(value, "learning_rate", value) == expected


def test_a_square_or_two_sides(write):
    assert load_spec(write(NPZ), ["dataset_config.image_size=24"]).dataset.image_size == (24, 24)
    assert load_spec(write(NPZ), ["dataset_config.image_size=[24, 32]"]).dataset.image_size == (24, 32)


def test_override_of_one_entry_of_a_list(write):
    text = VALID + "quantization_config: {rules: [{match: a, quantize: false}, {match: b, relu6: false}]}\n"
    rules = load_spec(write(text), ["quantization_config.rules[1].match=c"]).quantization.rules
    assert [rule.match for rule in rules] == ["a", "c"]


# Override -> the dotted key of the one mistake, and words that its line must hold.
MISTAKES = {
    "unknown_key": ("training_config.num_epoch=3", "training_config.num_epoch", ["3", "training_config.num_epochs"]),
    "unknown_key_other_case": (
        "training_config.numEpochs=3",
        "training_config.numEpochs",
        ["training_config.num_epochs"],
    ),
    "unknown_key_of_another_section": ("num_epochs=3", "num_epochs", ["training_config.num_epochs"]),
    "unknown_section": ("training={}", "training", ["training_config"]),
    "key_of_another_kind": ("dataset_config.train_dir=x", "dataset_config.train_dir", ["kind digits", "image_size"]),
    "unknown_key_in_a_rule": (
        "quantization_config.rules=[{match: a, quantise: true}]",
        "quantization_config.rules[0].quantise",
        ["quantization_config.rules[0].quantize"],
    ),
    "number_as_text": ('training_config.num_epochs="3"', "training_config.num_epochs", ['"3"', "an integer", "quotes"]),
    "fraction_for_integer": ("training_config.num_epochs=1.5", "training_config.num_epochs", ["1.5", "an integer"]),
    "boolean_for_integer": ("training_config.num_epochs=true", "training_config.num_epochs", ["true", "an integer"]),
    "integer_for_boolean": ("training_config.enable_qat=1", "training_config.enable_qat", ["1", "true or false"]),
    "yes_for_boolean": ("training_config.enable_qat=yes", "training_config.enable_qat", ['"yes"', "did you mean true"]),
    "boolean_in_quotes": ('training_config.enable_qat="true"', "training_config.enable_qat", ["true or false"]),
    "negative_epochs": ("training_config.num_epochs=-1", "training_config.num_epochs", ["-1", "at least 0"]),
    "nan": (
        "training_config.optimizer.learning_rate=.nan",
        "training_config.optimizer.learning_rate",
        ["nan", "finite"],
    ),
    "infinity": ("quantization_config.decay=.inf", "quantization_config.decay", ["inf", "finite"]),
    "overflow": (
        "training_config.optimizer.learning_rate=1e400",
        "training_config.optimizer.learning_rate",
        ["finite"],
    ),
    "decay_of_one": ("quantization_config.decay=1", "quantization_config.decay", ["1", "below 1"]),
    "fraction_of_zero": ("quantization_config.observe_fraction=0", "quantization_config.observe_fraction", ["above 0"]),
    "percentile_above_100": (
        "quantization_config.calibration={method: percentile, percentile: 100.1}",
        "quantization_config.calibration.percentile",
        ["100.1", "at most 100"],
    ),
    "word_of_a_choice": ("quantization_config.ranges=movingaverage", "quantization_config.ranges", ["moving_average"]),
    "unknown_target": ("quantization_config.target=tensort", "quantization_config.target", ["tensort", "tensorrt"]),
    "unknown_format": ("export_config.formats=[tensort]", "export_config.formats", ["did you mean tensorrt"]),
    "no_format": ("export_config.formats=[]", "export_config.formats", ["at least 1"]),
    "format_twice": ("export_config.formats=[tensorrt, tensorrt]", "export_config.formats", ["once"]),
    "unknown_kind": ("dataset_config.kind=image_folders", "dataset_config.kind", ["image_folder", "npz", "python"]),
    "no_kind": ("dataset_config={}", "dataset_config.kind", ["missing", "digits"]),
    "no_mapping": ("training_config=3", "training_config", ["3", "a mapping", "num_epochs"]),
    "nothing": ("model_config=", "model_config", ["null", "a mapping", "architecture"]),
    "text_for_a_list": ("export_config.formats=tensorrt", "export_config.formats", ["a list"]),
    "misspelt_application": ("model_config.architecture=mobilenet_v2", "model_config.architecture", ["MobileNetV2"]),
    "low_opset": ("export_config.opset=12", "export_config.opset", ["12", "13"]),
    "high_opset": ("export_config.opset=22", "export_config.opset", ["22", "21"]),
    "version_as_number": ("export_config.tensorrt_version=8.6", "export_config.tensorrt_version", ["8.6", "quotes"]),
    "version_as_word": ("export_config.tensorrt_version=latest", "export_config.tensorrt_version", ['"8.6.1"']),
    "version_without_caches": ("export_config.tensorrt_version=11.0.0", "export_config.tensorrt_version", ["11", "10"]),
    "colon_in_a_tensor_name": ('export_config.input_names=["a:0"]', "export_config.input_names[0]", ["a:0", "':'"]),
    "seed_of_33_bits": ("random_seed=4294967296", "random_seed", ["4294967296", "4294967295"]),
    "empty_text": ("results_dir=' '", "results_dir", ["not empty"]),
    "resolver": ('results_dir="${oc.env:HOME}"', "results_dir", ["oc.env"]),
    "missing_marker": ("results_dir='???'", "results_dir", ["???"]),
    "broken_reference": ("results_dir='${a'", "results_dir", ["${a"]),
    "no_function": (
        "dataset_config={kind: python, function: f}",
        "dataset_config.function",
        ["package.module:function"],
    ),
    "checkpoint_of_another_kind": ("model_config={checkpoint: a.pb}", "model_config.checkpoint", ["a.pb", ".keras"]),
}


@pytest.mark.parametrize(("override", "key", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_names_key_received_and_expected(report, override, key, words):
    first, *lines = report(override).splitlines()
    assert first.endswith("spec.yaml: 1 error")
    (line,) = lines
    assert key in line
    assert "override" in line
    for word in words:
        assert word in line


MANY = """\
results_dir: results/x
random_seed: "42"
dataset_config:
  kind: digits
  batch_sise: 64
model_config:
  architecture: resnet9
  num_classes: 9
training_config:
  num_epochs: -1
  num_epochs: 2.5
  optimizer: {name: adam, momentum: 0.8}
quantization_config:
  rules:
    - {match: "head_*"}
    - {match: "stem", relu6: maybe}
export_config:
  int8_weights: true
"""
ALL_AT_ONCE = """\
spec.yaml: 11 errors
  override 'num_epochs': expected key=value, such as training_config.num_epochs=1
  export_config.opset (override): received 99 (an integer), expected at most 21
  random_seed (line 2): received "42" (a text), expected an integer; a number stands without quotes
  dataset_config.batch_sise (line 5): unknown key of kind digits, received 64 (an integer); nearest valid key: \
dataset_config.batch_size; expected one of: kind, image_size, batch_size
  model_config.architecture (line 7): received "resnet9" (a text), expected resnet8, vit, efficientdet_d0 to \
efficientdet_d7 or the name of a model of keras.applications; did you mean resnet8?
  model_config.num_classes (line 8): received 9, expected 10, the number of classes of dataset_config.kind digits
  training_config.num_epochs (line 11): stands twice, first in line 10; expected each key once
  training_config.optimizer.momentum (line 12): received 0.8, which adam does not use; expected it with sgd only
  quantization_config.rules[0] (line 15): received a rule for 'head_*' that asks for nothing; expected one of \
quantize, relu6, weight_bits, activation_bits
  quantization_config.rules[1].relu6 (line 16): received "maybe" (a text), expected true or false
  export_config.int8_weights (line 18): received true, which TensorRT 8.6.1 cannot read; expected false, or \
tensorrt_version from 10.0 on"""


def test_one_report_names_all_mistakes(report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = report("num_epochs", "export_config.opset=99", text=MANY)
    assert text.replace(f"{tmp_path}{os.sep}", "") == ALL_AT_ONCE


@pytest.mark.parametrize(
    ("override", "words"),
    {
        "no_equals_sign": ("training_config", ["expected key=value"]),
        "no_key": ("=3", ["expected key=value"]),
        "empty": ("", ["expected key=value"]),
        "an_option": ("--epochs=3", ["expected key=value"]),
        "double_dot": ("training_config..num_epochs=3", ["expected key=value"]),
        "broken_value": ("export_config.formats=[tensorrt", ["YAML syntax error"]),
        "key_twice_in_the_value": ("training_config.optimizer={name: sgd, name: adam}", ["name stands twice"]),
        "beyond_the_list": ("quantization_config.rules[3].match=a", ["finds no place"]),
        "word_for_an_index": ("quantization_config.rules.first=a", ["finds no place"]),
        "code": ("results_dir=!!python/object/apply:os.getcwd []", ["YAML syntax error"]),
    }.values(),
)
def test_bad_override_is_named(report, override, words):
    line = report(override, text=VALID + "quantization_config: {rules: []}\n").splitlines()[1]
    assert repr(override) in line
    for word in words:
        assert word in line


VOC = """\
results_dir: results/x
dataset_config: {kind: voc, path: a}
model_config: {architecture: efficientdet_d0, num_classes: 3, weights: imagenet}
"""
# Override of a detector's spec -> the dotted key of the one mistake, and words that its line must hold.
DETECTORS_MISTAKES = {
    "architecture": (
        "model_config.architecture=efficientdet_d8",
        "model_config.architecture",
        ["resnet8, vit, efficientdet_d0 to efficientdet_d7 or", "did you mean efficientdet_d"],
    ),
    "size": ("dataset_config.image_size=500", "dataset_config.image_size", ["500", "multiples of 128", "[512, 512]"]),
    "side": (
        "dataset_config.image_size=[256, 100]",
        "dataset_config.image_size",
        ["[256, 100]", "multiples of 128", "[256, 128]"],
    ),
    "tiny_size": ("dataset_config.image_size=32", "dataset_config.image_size", ["[128, 128]"]),
    "key_of_coco": ("dataset_config.train_images=a", "dataset_config.train_images", ["kind voc"]),
    "scale": ("dataset_config.augment.scale=[2.0, 0.5]", "dataset_config.augment.scale", ["the smaller one first"]),
    "crowd": ("dataset_config.crowd=ignore", "dataset_config.crowd", ["expected one of: keep, drop"]),
    "class_twice": ("dataset_config.classes=[a, a]", "dataset_config.classes", ["each entry once"]),
    "no_class": ("dataset_config.classes=[]", "dataset_config.classes", ["at least 1"]),
    "two_ratios": (
        "detection_config.aspect_ratios=[1.0, 2.0]",
        "detection_config.aspect_ratios[2]",
        ["is missing; expected a number"],
    ),
    "share": ("detection_config.iou_threshold=50", "detection_config.iou_threshold", ["at most 1"]),
    "loss": ("detection_config.box_loss=iuo", "detection_config.box_loss", ["did you mean iou?"]),
    "clip": ("training_config.optimizer.clip_norm=0", "training_config.optimizer.clip_norm", ["above 0"]),
    "l2": ("training_config.l2=-1.0", "training_config.l2", ["at least 0"]),
    "freeze": ("training_config.freeze=stem*", "training_config.freeze", ["a list"]),
    "misspelt": ("detection_config.focal_gama=2.0", "detection_config.focal_gama", ["detection_config.focal_gamma"]),
    "options": (
        "model_config.options.activation=relu",
        "model_config.options.activation",
        ["expected one of: silu, relu6"],
    ),
}


@pytest.mark.parametrize(("override", "key", "words"), DETECTORS_MISTAKES.values(), ids=DETECTORS_MISTAKES)
def test_a_mistake_in_the_spec_of_a_detector(report, override, key, words):
    head, line = report(override, text=VOC).splitlines()
    assert head.endswith(": 1 error")
    assert line.startswith(f"  {key} (override): ")
    for word in words:
        assert word in line


def test_the_task_is_what_the_data_say(write):
    assert load_spec(write(VALID)).task == "classification"
    assert load_spec(write(VOC)).task == "detection"
    python = "dataset_config={{kind: python, function: 'a:b', targets: {}}}"
    model = "model_config={python: 'a:b', num_classes: 3}"
    for targets, task in (("labels", "classification"), ("boxes", "detection")):
        assert load_spec(write(VOC), [python.format(targets), model]).task == task


FILES = {
    "empty": (b"", "empty"),
    "only_a_comment": (b"# nothing\n", "empty"),
    "list": (b"- a\n- b\n", "a list"),
    "word": (b"hello", "'hello'"),
    "syntax": (b"results_dir: a\nmodel_config: {a: [}\n", "line 2: YAML syntax error"),
    "tab": (b"results_dir: a\nmodel_config:\n\tarchitecture: x\n", "line 3: YAML syntax error"),
    "two_documents": (b"a: 1\n---\nb: 2\n", "line 2: YAML syntax error"),
    "latin1": ("results_dir: caf\u00e9\n".encode("latin-1"), "line 1: not UTF-8"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00", "not UTF-8"),
    "null_byte": (b"results_dir: a\x00b", "YAML syntax error"),
    "code": (b"a: !!python/object/apply:os.system ['true']", "line 1: YAML syntax error"),
    "unhashable_key": (b"? [a]\n: 1\n", "line 1: YAML syntax error"),
    "contradicting_tag": (b"a: !!int abc", "YAML value error"),
    "aliases_without_end": (b"a: &a [*a, *a]", "nested deeper than 20"),
    "alias_bomb": (
        b"a: &a [1,1,1,1,1,1,1,1,1]\n"
        + b"".join(b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 9)) for c in range(97, 104)),
        "10000 values",
    ),
    "deep": (b"a: " + b"[" * 5000, "nested too deeply"),
    "deep_but_closed": (b"a: " + b"[" * 60 + b"]" * 60, "nested deeper than 20"),
}


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES)
def test_file_that_is_no_spec(report, content, words):
    assert words in report(text=content)


def test_byte_order_mark_and_crlf_are_read(write):
    assert load_spec(write(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode())) == load_spec(write(VALID))


def test_no_file(tmp_path, write):
    path = write(VALID)
    with pytest.raises(SpecError, match=f"no such file; did you mean {path}"):
        load_spec(tmp_path / "spec.yml")
    with pytest.raises(SpecError, match="nor a folder"):
        load_spec(tmp_path / "none" / "spec.yaml")
    with pytest.raises(SpecError, match="this is a folder"):
        load_spec(tmp_path)
    with pytest.raises(SpecError, match="no path of a file"):
        load_spec("a\0b")


def test_unreadable_file(write, monkeypatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    path = write(VALID)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SpecError, match="cannot be read: Permission denied"):
        load_spec(path)


def test_error_is_a_tfqat_error_with_its_problems(write):
    with pytest.raises(TfqatError) as caught:
        load_spec(write(VALID), ["random_seed=x"])
    (problem,) = caught.value.problems
    assert (problem.key, problem.place) == ("random_seed", "override")


# Each text here is one that some YAML reader takes for something else.
TEXTS = st.sampled_from(
    ["yes", "010", "1e5", "1.", ".5", "null", "~", "true", "<<", "2020-01-01", "0x10", "1:30", "a: b", "# c"]
)


@given(
    text=TEXTS
    | st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="${}\ufffe\uffff"), min_size=1),
    rate=st.floats(min_value=1e-30, max_value=1e30),
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
    freeze=st.none() | st.integers(0, 10**6),
)
def test_dump_is_read_back_to_an_equal_spec(tmp_path_factory, text, rate, seed, size, freeze):
    values = {
        "results_dir": text if text.strip() else "x",
        "random_seed": seed,
        "dataset_config": {"kind": "npz", "path": "a", "image_size": list(size)},
        "model_config": {"python": "a.b:c"},
        "training_config": {"optimizer": {"learning_rate": rate}},
        "quantization_config": {"freeze_after": freeze, "rules": [{"match": "a*", "quantize": False}]},
    }
    spec = Spec.model_validate(values)
    path = tmp_path_factory.mktemp("dump") / "spec.yaml"
    path.write_text(dump_spec(spec), encoding="utf-8")
    assert load_spec(path) == spec
