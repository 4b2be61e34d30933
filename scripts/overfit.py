"""A detector that is to learn 16 images by heart, in float and then for INT8: the losses and the matching at work.

    python scripts/overfit.py [specs/efficientdet_bccd.yaml] [dotted overrides]

The images are the first of the spec's training split (Pascal VOC), which are validated on, too; nothing is augmented.
The exit status is 1 where AP50 is below --float, or below --qat after quantization-aware training.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from stage_lines import end, lines_of, tell

from tfqat.jobs.train import train
from tfqat.spec import load_spec
from tfqat.training import stages

HEADINGS = ("stage", "run by", "AP50", "to float", "to QAT", "size")
IMAGES = 16
OVERRIDES = (
    *("dataset_config.train_split=few", "dataset_config.val_split=few"),
    *("dataset_config.augment={}", "training_config.float_epochs=100", "training_config.num_epochs=20"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", nargs="?", default="specs/efficientdet_bccd.yaml")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--float", type=float, default=95.0)
    parser.add_argument("--qat", type=float, default=93.0)
    arguments = parser.parse_intermixed_args()
    given = load_spec(arguments.spec, arguments.overrides)
    with tempfile.TemporaryDirectory() as folder:
        few(Path(given.dataset.path), given.dataset.train_split, Path(folder) / "voc")
        places = [f"dataset_config.path={folder}/voc", f"results_dir={folder}/results"]
        spec = load_spec(arguments.spec, [*OVERRIDES, *arguments.overrides, *places])
        train(spec)
        rows = stages.read_stages(Path(folder) / "results/stages.json")
    tell([HEADINGS, *lines_of(rows)])
    scores = {row.name: 100 * row.score for row in rows}
    bounds = {stages.FLOAT: arguments.float, stages.QAT: arguments.qat}
    sys.exit(end([f"{name} has {scores[name]:.2f} points" for name, least in bounds.items() if scores[name] < least]))


def few(folder: Path, split: str, place: Path) -> None:
    """A Pascal VOC folder with the first images of a split of another one, as its split `few`."""
    names = (folder / "ImageSets/Main" / f"{split}.txt").read_text().split()[:IMAGES]
    (place / "ImageSets/Main").mkdir(parents=True)
    (place / "ImageSets/Main/few.txt").write_text("\n".join(names) + "\n")
    for part in ("Annotations", "JPEGImages"):
        (place / part).symlink_to((folder / part).resolve())


if __name__ == "__main__":
    main()
