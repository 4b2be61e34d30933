"""One float model, every deployment: trained for each target, exported, verified, in one table.

    python scripts/deployments.py                        # specs/digits.yaml
    python scripts/deployments.py specs/mnist.yaml --difference 0.2 --agreement 99.5

The float phase runs once; each target goes on from its `float.keras`. The exit status is 1 where a file is out of
tolerance: farther than --difference points from its QAT model, or naming another class on more images than --agreement
percent allow, besides what `tfqat verify` judges.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfqat.jobs.export import export_spec
from tfqat.jobs.train import train
from tfqat.jobs.verify import verify_spec
from tfqat.spec import load_spec
from tfqat.training import stages
from tfqat.verification.report import Report

TRAINED_FOR = ("tensorrt", "sima", "tflite")
# Formats that a target's usual export does not write, each into a folder of its own.
ALSO = {"tensorrt": ("tensorrt_dla",)}
HEADINGS = ("trained for", "run", "accuracy", "to QAT", "same class", "elements a step off in blocks", "size")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", nargs="?", default="specs/digits.yaml")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--difference", type=float, default=0.5)
    parser.add_argument("--agreement", type=float, default=99.0)
    arguments = parser.parse_intermixed_args()
    lines: list[tuple[str, ...]] = [HEADINGS]
    for target in TRAINED_FOR:
        lines += deployed(target, arguments.spec, arguments.overrides)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("RESULT " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    far = [
        line[:2]
        for line in lines[1:]
        if line[3] and (abs(float(line[3])) > arguments.difference or float(line[4][:-1]) < arguments.agreement)
    ]
    print(f"FAILED {far}" if far else "All within tolerance.")
    sys.exit(1 if far else 0)


def deployed(target: str, path: str, overrides: list[str]) -> Iterator[tuple[str, ...]]:
    """Trains for one target, exports and verifies; the lines of the table."""
    spec = spec_for(target, path, overrides)
    train(spec)
    export_spec(spec)
    report = verify_spec(spec)
    for stage in stages.read_stages(Path(spec.results_dir) / "stages.json"):
        if stage.run_by == "Keras" and (target == TRAINED_FOR[0] or stage.name in (stages.QAT, stages.FINALIZED)):
            yield (target, stage.name, f"{stage.score:.2%}", *[""] * 4)
    yield from lines_of(target, report, spec)
    for form in ALSO.get(target, ()):
        other = spec_for(target, path, [*overrides, f"export_config.formats=[{form}]"])
        cache = Path(spec.results_dir) / form / "model.cache"
        export_spec(other, cache)
        yield from lines_of(f"{target}, as {form}", verify_spec(other, cache), other)


def lines_of(name: str, report: Report, spec: Any) -> Iterator[tuple[str, ...]]:
    """A line a file."""
    sizes = {stage.name: stage.file_size for stage in stages.read_stages(Path(spec.results_dir) / "stages.json")}
    for row in report.rows:
        difference = 100 * (row.score - report.trained.score)
        off = sum(score.differing for score in row.blocks)
        blocks = f"{off:,} of {sum(score.elements for score in row.blocks):,}"
        size = f"{sizes[row.name] / 1e3:.0f} kB"
        yield (name, row.name, f"{row.score:.2%}", f"{difference:+.2f}", f"{row.agreement:.2%}", blocks, size)


def spec_for(target: str, path: str, overrides: list[str]) -> Any:
    """The spec for one target, in a folder of its own; all but the first go on from the first one's float model."""
    usual = load_spec(path, overrides)
    changes = [f"quantization_config.target={target}", f"results_dir={usual.results_dir}_{target}"]
    if target != TRAINED_FOR[0]:
        trained = f"{usual.results_dir}_{TRAINED_FOR[0]}/float.keras"
        changes += [f"model_config={{checkpoint: {trained}}}", "training_config.float_epochs=0"]
    return load_spec(path, [*changes, *overrides])


if __name__ == "__main__":
    main()
