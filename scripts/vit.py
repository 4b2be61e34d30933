"""A vision transformer trained in float, then for INT8, exported and verified; how good it is, in one table.

    python scripts/vit.py [specs/vit_mnist.yaml] [dotted overrides] | tee results/vit.txt

The exit status is 1 where a figure is out of its bound: QAT more than --below-float points below float, a file more
than --from-qat points from QAT, or a matmul or dense layer that is not INT8, the output layer aside; and where `tfqat
verify` fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from stage_lines import end, lines_of, out_of_bounds, tell

import tfqat
from tfqat.graph.placement import Placement
from tfqat.jobs.export import export_spec
from tfqat.jobs.train import train
from tfqat.jobs.verify import verify_spec
from tfqat.spec import load_spec
from tfqat.training import stages

PRODUCTS = ("matmul", "dense", "conv2d")
HEADINGS = ("stage", "run by", "accuracy", "to float", "to QAT", "size")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", nargs="?", default="specs/vit_mnist.yaml")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--below-float", type=float, default=0.5)
    parser.add_argument("--from-qat", type=float, default=0.3)
    arguments = parser.parse_intermixed_args()
    spec = load_spec(arguments.spec, arguments.overrides)
    train(spec)
    export_spec(spec)
    verify_spec(spec)
    folder = Path(spec.results_dir)
    plan = tfqat.load_model(folder / "qat.keras").placement
    rows = stages.read_stages(folder / "stages.json")
    tell([HEADINGS, *lines_of(rows)])
    for text in placed(plan):
        print(f"RESULT {text}")
    failed = [*out_of_bounds(rows, arguments.below_float, arguments.from_qat), *in_float(plan)]
    sys.exit(end(failed))


def placed(plan: Placement) -> Iterator[str]:
    """What the placement says of the products."""
    for kind in PRODUCTS:
        rows = [row for row in plan.rows if row.kind == kind and not row.output]
        int8 = sum(row.state == "int8" for row in rows)
        yield f"{kind}: {int8} of {len(rows)} in INT8, {sum(row.macs for row in rows):,} multiply-accumulates an image"
    yield f"INT8 share of multiply-accumulates, output layer aside: {100 * plan.int8_mac_share:.1f} %"


def in_float(plan: Placement) -> Iterator[str]:
    """The products that are not INT8."""
    for row in plan.rows:
        if row.kind in PRODUCTS and row.state != "int8" and not row.output:
            yield f"{row.op} ({row.kind}) is {row.state}: {row.reason}"
    if plan.int8_mac_share < 1:
        yield f"{100 * plan.int8_mac_share:.2f} % of the multiply-accumulates are INT8"


if __name__ == "__main__":
    main()
