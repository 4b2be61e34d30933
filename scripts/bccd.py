"""A detector trained in float, then for INT8, exported for TensorRT and for TFLite and verified; AP50 in one table.

    python scripts/bccd.py [specs/efficientdet_bccd.yaml] [dotted overrides] | tee results/bccd.txt

TFLite has an INT8 form of its own, so that the float model is trained on for it, too; its rows begin with "tflite:".
The exit status is 1 where a figure is out of its bound: float below --float, QAT more than --below-float points below
float, a file more than --from-qat points from QAT; and where `tfqat verify` fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from stage_lines import end, lines_of, out_of_bounds, tell

from tfqat.jobs.export import export_spec
from tfqat.jobs.train import train
from tfqat.jobs.verify import verify_spec
from tfqat.spec import load_spec
from tfqat.training import stages

HEADINGS = ("stage", "run by", "AP50", "to float", "to QAT", "size")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", nargs="?", default="specs/efficientdet_bccd.yaml")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--float", type=float, default=60.0)
    parser.add_argument("--below-float", type=float, default=1.0)
    parser.add_argument("--from-qat", type=float, default=0.5)
    parser.add_argument("--no-tflite", action="store_true")
    arguments = parser.parse_intermixed_args()
    spec = load_spec(arguments.spec, arguments.overrides)
    runs = {"": whole_way(spec)}
    if not arguments.no_tflite:
        runs["tflite: "] = whole_way(for_tflite(arguments.spec, arguments.overrides, spec))
    failed = []
    for name, rows in runs.items():
        failed += [name + text for text in out_of_bounds(rows, arguments.below_float, arguments.from_qat)]
    score = 100 * runs[""][0].score
    if score < arguments.float:
        failed.append(f"float has {score:.2f} points")
    tell([HEADINGS, *(line for name, rows in runs.items() for line in named(name, rows))])
    sys.exit(end(failed))


def whole_way(spec: Any) -> list[stages.Stage]:
    """Train, export, verify; the stages."""
    begun = time.monotonic()
    train(spec)
    print(f"RESULT {spec.quantization.target}: trained in {(time.monotonic() - begun) / 60:.1f} minutes")
    export_spec(spec)
    verify_spec(spec)
    return stages.read_stages(Path(spec.results_dir) / "stages.json")


def for_tflite(path: str, overrides: list[str], trained: Any) -> Any:
    """The spec for TFLite, from the float model on that was trained."""
    own = [
        *("quantization_config.target=tflite", f"results_dir={trained.results_dir}_tflite"),
        *("training_config.float_epochs=0", f"model_config.checkpoint={trained.results_dir}/float.keras"),
        *("model_config.architecture=null", "model_config.options={}"),
    ]
    return load_spec(path, [*overrides, *own])


def named(prefix: str, rows: list[stages.Stage]) -> list[tuple[str, ...]]:
    """The lines of one run."""
    return [(prefix + name, *rest) for name, *rest in lines_of(rows)]


if __name__ == "__main__":
    main()
