"""The stage table."""

from __future__ import annotations

import io

from rich.console import Console

from tfqat.training.stages import Stage, add_stages, print_stages, read_stages


def test_rows_are_kept_in_order_and_replaced_by_name(tmp_path):
    path = tmp_path / "stages.json"
    assert read_stages(path) == []
    add_stages(path, [Stage("float", "Keras", 0.9, 1000), Stage("QAT", "Keras", 0.8)])
    rows = add_stages(path, [Stage("QAT", "Keras", 0.85), Stage("Q/DQ ONNX", "onnxruntime", 0.84, 2_500_000)])
    assert [row.name for row in rows] == ["float", "QAT", "Q/DQ ONNX"]
    assert read_stages(path) == rows
    assert rows[1].score == 0.85


def test_prints_differences_in_points_and_sizes():
    text = io.StringIO()
    rows = [Stage("float", "Keras", 0.9, 1000), Stage("QAT", "Keras", 0.885, 2_500_000)]
    print_stages(rows, Console(file=text, width=100))
    for part in ("90.00%", "1.0 kB", "88.50%", "-1.50", "2.50 MB"):
        assert part in text.getvalue()
