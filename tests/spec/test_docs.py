"""The tables and the example of docs/detection.md and docs/tao.md: what they name is there, with these defaults."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from tfqat.cli.app import command
from tfqat.data.detection.python_boxes import _ARRAYS
from tfqat.spec.datasets import Coco, Dataset, TFRecord, Voc
from tfqat.spec.keys import all_keys, kinds
from tfqat.spec.names import BOX_KINDS
from tfqat.spec.schema import Detection, Spec
from tfqat.tasks import task_of
from tfqat.tasks.detection.finish import FORMS

DOCS = Path(__file__).parents[2] / "docs"


def section(file, title):
    """What stands below a heading."""
    return (DOCS / file).read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text):
    """The cells of all table rows whose first one is a name."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


TAO = [(title, *row) for title in ("EfficientDet", "Classification") for row in rows(section("tao.md", title))]


def test_each_field_of_tao_has_one_row():
    fields = [(title, field) for title, field, *_ in TAO]
    assert len(fields) == len(set(fields)) == 112 + 96


@pytest.mark.parametrize("title", ["EfficientDet", "Classification"])
def test_what_stands_for_a_field_of_tao_is_there(title):
    valid, commands = set(all_keys()), command().commands
    for _, field, ours, note in (row for row in TAO if row[0] == title):
        assert (ours == "none") == (not names(ours)), field
        assert note or ours != "none", f"{field}: none needs a reason"
        for name in names(ours) + [word for word in names(note) if word.startswith("tfqat ") or "_config." in word]:
            if name.startswith("tfqat "):
                _, verb, option, *_ = name.split()
                assert option in [text for one in commands[verb].params for text in one.opts], field
            else:
                assert name.split(":")[0] in valid, field


def test_older_names_of_tao_lead_to_a_row():
    known = {field.strip("`") for _, field, *_ in TAO}
    for _, above in rows(section("tao.md", "Older names")):
        for name in names(above) if "section" not in above and "none" not in above else ():
            assert any(field == name or (name.endswith("*") and field.startswith(name[:-1])) for field in known), name


def table(text, heading):
    """Name -> the other cells, of the table with this heading."""
    body = text.split(heading)[1].split("\n\n")[0]
    return {names(row[0])[0]: row[1:] for row in rows(body)}


def defaults(model, prefix=""):
    found = {}
    for key, field in model.model_fields.items():
        value = field.default
        nested = getattr(type(value), "model_fields", None)
        found |= defaults(type(value), f"{key}.") if nested else {f"{prefix}{key}": value}
    return found


def plain(value):
    return list(value) if isinstance(value, tuple) else value


def test_keys_of_detection_and_their_defaults():
    told = table(section("detection.md", "`detection_config`"), "| key | default | does |")
    expected = {key: plain(value) for key, value in defaults(Detection).items()}
    assert {key: yaml.safe_load(cells[0].strip("`")) for key, cells in told.items()} == expected


def test_keys_of_data_with_boxes_and_their_defaults():
    text = section("detection.md", "Data")
    told = table(text, "| key | default | does |")
    shared = set(defaults(Voc)) & set(defaults(TFRecord)) - {"kind"}
    expected = {key: plain(value) for key, value in defaults(TFRecord).items() if key in shared}
    assert {key: yaml.safe_load(cells[0].strip("`")) for key, cells in told.items()} == expected
    by_kind = table(text, "| `kind` | `dataset_config` names |")
    assert set(by_kind) == {*BOX_KINDS, "python"} <= set(kinds(Dataset))
    for kind, form in {"voc": Voc, "coco": Coco, "tfrecord": TFRecord}.items():
        own = set(form.model_fields) - {key.split(".")[0] for key in shared} - {"kind"}
        assert own <= set(names(by_kind[kind][0])), kind


def test_finished_files():
    told = table(section("detection.md", "What comes out"), "| file | made of | read by |")
    assert set(told) == {form.name for form in FORMS}


def test_the_example_of_boxes_from_python(monkeypatch):
    text = section("detection.md", "Data from Python")
    arrays = table(text, "| key | shape | holds |")
    assert {key: f"{cells[1].split(':')[0].split()[0]} {cells[0]}" for key, cells in arrays.items()} == {
        key: f"{array.holds}{'' if array.holds != 'booleans' else ';'} {str(array).split('of shape ')[1]}"
        for key, array in _ARRAYS.items()
    }
    module = ModuleType("squares")
    exec(compile(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1), "squares", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "squares", module)
    spec = Spec.model_validate(
        {
            "results_dir": "unused",
            "dataset_config": {"kind": "python", "function": "squares:datasets", "targets": "boxes"},
            "model_config": {"architecture": "efficientdet_d0", "num_classes": 2},
            "training_config": {"float_epochs": 1},
        }
    )
    detection = task_of(spec)
    data = detection.data()
    assert (data.steps, data.input_shape) == (8, (256, 256, 3))
    for images, learnt in detection.criterion(None, data).batches(data.validation):
        assert images.shape == (8, 256, 256, 3)
        assert ((learnt["class_logits"].numpy() == 0).sum(axis=1) > 0).all()  # each image has anchors that learn
    (images, wanted), *_ = data.validation
    top, left, bottom, right = wanted["boxes"][0, 0].numpy().astype(int)
    np.testing.assert_array_equal(images[0, top:bottom, left:right], 200)
