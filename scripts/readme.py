"""Writes the tables of README.md anew, from what the other scripts last printed, and its examples from their files.

    bash scripts/demo.sh                                       # stage-table, placement-table: results/digits
    python scripts/bench.py | tee results/bench.txt            # bench-table
    python scripts/zoo.py --bounds | tee results/models.txt    # models-table
    python scripts/deployments.py | tee results/deployments_digits.txt                  # deployments-table, and
    python scripts/deployments.py specs/mnist.yaml | tee results/deployments_mnist.txt
    python scripts/tfmot.py | tee results/tfmot.txt            # tfmot-table
    python scripts/vit.py | tee results/vit.txt                # vit-table
    python scripts/bccd.py | tee results/bccd.txt              # bccd-table
    python scripts/overfit.py | tee results/overfit.txt        # overfit-table
    python scripts/efficientdet.py --nets d0 --verify --steps 12 | tee results/efficientdet.txt   # efficientdet-table
    tfqat analyze --spec specs/digits.yaml | tee results/analyze.txt                    # analyze-table
    python scripts/readme.py

A table whose source is not there keeps its text.
"""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from tfqat.training import stages

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"


def stage_table() -> str:
    """The stages of the digits, as `tfqat verify` ends."""
    path = RESULTS / "digits/stages.json"
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "run scripts/demo.sh first", str(path))
    console = Console(file=io.StringIO(), width=90)
    stages.print_stages(stages.read_stages(path), console)
    return console.file.getvalue().rstrip()


def placement_table() -> str:
    """The first ops, the last ones and the totals of the digits' placement."""
    lines = (RESULTS / "digits/placement.txt").read_text().splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("op "))
    table = lines[header:]
    return "\n".join([lines[0], "...", *table[:14], "...", *table[-6:]])


def bench_table() -> str:
    """What bench.py printed."""
    return (RESULTS / "bench.txt").read_text().strip()


def models_table() -> str:
    """The result lines that zoo.py printed."""
    return results("models.txt")


def deployments_table() -> str:
    """The result lines that deployments.py printed, of both data sets."""
    both = {"Digits, 599 held-out images": "digits", "MNIST, 10,000 test images": "mnist"}
    return "\n\n".join(f"{title}\n{results(f'deployments_{name}.txt')}" for title, name in both.items())


def tfmot_table() -> str:
    """The table that tfmot.py printed."""
    lines = (RESULTS / "tfmot.txt").read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith("| "))


def analyze_table() -> str:
    """The whole forms and the first blocks that `tfqat analyze` printed."""
    lines = [line.rstrip() for line in (RESULTS / "analyze.txt").read_text().splitlines()]
    blocks = next(number for number, line in enumerate(lines) if line.strip().startswith("Blocks, "))
    start = next(number for number, line in enumerate(lines) if " samples" in line)
    return "\n".join([*lines[start : blocks + 7], "..."])


def vit_table() -> str:
    """The result lines that vit.py printed."""
    return results("vit.txt")


def bccd_table() -> str:
    """The result lines that bccd.py printed."""
    return results("bccd.txt")


def overfit_table() -> str:
    """The result lines that overfit.py printed."""
    return results("overfit.txt")


def efficientdet_table() -> str:
    """The tables that efficientdet.py printed."""
    lines = (RESULTS / "efficientdet.txt").read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith(("| ", "D0,")) or not line).strip()


def results(name: str) -> str:
    """The lines that a script marked as its result."""
    lines = (RESULTS / name).read_text().splitlines()
    return "\n".join(line.removeprefix("RESULT ").rstrip() for line in lines if line.startswith("RESULT "))


TABLES: dict[str, Callable[[], str]] = {
    "stage-table": stage_table,
    "placement-table": placement_table,
    "bench-table": bench_table,
    "models-table": models_table,
    "deployments-table": deployments_table,
    "tfmot-table": tfmot_table,
    "analyze-table": analyze_table,
    "vit-table": vit_table,
    "bccd-table": bccd_table,
    "overfit-table": overfit_table,
    "efficientdet-table": efficientdet_table,
}


# Files that the README shows whole; the tests run them, and compare them with the README.
EXAMPLES: dict[str, Path] = {
    "accelerator-example": ROOT / "tests/targets/example_accelerator.py",
    "loop-example": ROOT / "tests/examples/own_loop.py",
    "train-step-example": ROOT / "tests/examples/train_step.py",
    "custom-layer-example": ROOT / "tests/examples/custom_layer.py",
}


def example_block(name: str) -> str:
    """An example as it stands in the README, markers included."""
    return _block(name, EXAMPLES[name].read_text().rstrip(), "python")


def _block(name: str, body: str, language: str = "") -> str:
    return f"<!-- {name} -->\n```{language}\n{body}\n```\n<!-- /{name} -->"


def _blocks() -> Iterator[tuple[str, str]]:
    for name, table in TABLES.items():
        try:
            yield name, _block(name, table())
        except FileNotFoundError as error:
            print(f"{name}: kept, {error.filename} is not there")
    for name in EXAMPLES:
        yield name, example_block(name)


def main() -> None:
    path = ROOT / "README.md"
    text = path.read_text()
    for name, block in _blocks():
        text, count = re.subn(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _, b=block: b, text, flags=re.DOTALL)
        print(f"{name}: written" if count else f"{name}: README.md has no place for it")
    path.write_text(text)


if __name__ == "__main__":
    main()
