"""The summary page: it says what the folder's files say, and is there after every run."""

from __future__ import annotations

import csv
import json
import re
from html import unescape
from pathlib import Path

import pytest

from tfqat.jobs.export import export_spec
from tfqat.jobs.quantize import quantize
from tfqat.jobs.train import train
from tfqat.jobs.verify import verify_spec
from tfqat.training.results import Results
from tfqat.training.stages import read_stages
from tfqat.training.summary import write_summary


def rows_of(page, name):
    """The cells of a table of the page, its heading aside."""
    table = re.search(rf'<table id="{name}"[^>]*>(.*?)</table>', page, re.S).group(1)
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.S)[1:]
    return [[unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)] for row in rows]


def island(page):
    return json.loads(re.search(r'<script type="application/json" id="report">(.*?)</script>', page, re.S).group(1))


def test_it_says_what_the_files_say(make_spec, capsys):
    rules = {"rules": [{"match": "*", "weight_bits": 5}], "calibration": {"method": "minmax", "batches": 1}}
    spec = make_spec({"quantization_config": rules}, float_epochs=2, num_epochs=1)
    train(spec)
    results = Results(Path(spec.results_dir))
    page = results.summary.read_text()
    assert f"Summary: {results.summary}" in capsys.readouterr().out
    with results.metrics.open() as file:
        known = list(csv.DictReader(file))
    assert [(row["phase"], row["epoch"]) for row in island(page)["metrics"]] == [("float", 1), ("float", 2), ("qat", 1)]
    for row, other in zip(island(page)["metrics"], known, strict=True):
        assert [row[name] for name in list(other)[2:]] == [
            float(other[name]) if other[name] else None for name in list(other)[2:]
        ]
    stages = read_stages(results.stages)
    assert [row[0] for row in rows_of(page, "stages")] == [stage.name for stage in stages]
    assert [row[1] for row in rows_of(page, "stages")] == [f"{stage.score:.2%}" for stage in stages]
    # The same ops, states and reasons as in the text.
    text = results.placement.read_text()
    shown = rows_of(page, "ops")
    assert {row[1] for row in shown} >= {"int8, kernel 5 bits", "float", "input"}
    for op, state, why, macs, given, kind in shown:
        line = next(line for line in text.splitlines() if line.startswith(f"{op} "))
        assert line.split()[1] == kind or state == "input"
        assert all(word in line for word in ("" if state == "input" else state, why, macs, given))
    assert re.search(r"<dt>int8</dt><dd>(\d+) ops", page).group(1) == str(sum(r[1].startswith("int8") for r in shown))
    assert unescape(re.search(r"<pre[^>]*>(.*?)</pre>", page, re.S).group(1)) == results.spec.read_text()


def test_it_needs_nothing_from_outside(make_spec):
    spec = make_spec()
    train(spec)
    page = (Path(spec.results_dir) / "summary.html").read_text()
    assert re.findall(r"https?://[^\s\"'<)]*", page) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"<(link|img|iframe|base|object)|\bsrc=|url\(|@import", page)


def test_a_second_run_and_verify_bring_it_up_to_date(make_spec):
    spec = make_spec()
    train(spec)
    summary = Results(Path(spec.results_dir)).summary
    before = summary.read_text()
    summary.unlink()
    train(spec)
    assert rows_of(summary.read_text(), "stages") == rows_of(before, "stages")
    export_spec(spec)
    verify_spec(spec)
    now = [row[0] for row in rows_of(summary.read_text(), "stages")]
    assert now == [stage.name for stage in read_stages(Results(Path(spec.results_dir)).stages)]
    assert len(now) > len(rows_of(before, "stages"))


def test_quantized_without_any_epoch_it_has_no_curves(make_spec):
    spec = make_spec(float_epochs=0)
    quantize(spec)
    page = Results(Path(spec.results_dir)).summary.read_text()
    assert "No epoch was trained here" in page
    assert "<section hidden>\n<h2>Training" in page
    assert [row[0] for row in rows_of(page, "stages")][-1] == "PTQ (calibrated only)"


def test_a_float_run_has_no_placement(make_spec):
    spec = make_spec(enable_qat=False)
    train(spec)
    page = Results(Path(spec.results_dir)).summary.read_text()
    assert 'id="ops"' not in page
    assert "trained in float" in page


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", ""])
def test_numbers_that_are_none(value, tmp_path):
    results = Results(tmp_path)
    results.metrics.write_text(f"phase,epoch,loss,accuracy\nfloat,1,{value},0.5\n<b>,2,1.5,0.5\n")
    page = write_summary(results).read_text()
    rows = island(page)["metrics"]
    assert [row["loss"] for row in rows] == [None, 1.5]
    assert "<b>" not in page
