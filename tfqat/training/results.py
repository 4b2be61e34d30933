"""Results: the folder that one run fills, and the rule that it belongs to one spec."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tfqat.core.files import write_text
from tfqat.errors import TfqatError
from tfqat.spec import dump_spec
from tfqat.targets import load_target

# Keys that may change between two runs over one folder: nothing that was trained depends on them.
FREE_KEYS = ("results_dir", "export_config", "training_config.tensorboard")
# Besides these, what may differ between training and what comes after it: other images may be looked at, and other
# boxes be taken for found.
FOUND = ("score_threshold", "iou_threshold", "max_detections")
FREE_AFTER_TRAINING = (
    *FREE_KEYS,
    *("dataset_config", "quantization_config.strict"),
    *(f"detection_config.{key}" for key in FOUND),
)
# What `--restart` removes; other files in the folder are the user's, or made from these by later commands.
OWN_FILES = (
    *("spec.yaml", "target.json", "float.keras", "qat.keras", "placement.txt"),
    *("metrics.csv", "status.jsonl", "stages.json", "summary.html"),
)
OWN_FOLDERS = ("checkpoints", "tensorboard")


@dataclass(frozen=True)
class Results:
    """The paths in one results folder."""

    folder: Path

    @property
    def spec(self) -> Path:
        """The resolved spec: with all defaults and overrides."""
        return self.folder / "spec.yaml"

    @property
    def target(self) -> Path:
        """The document of a target that is an AIMET-style config."""
        return self.folder / "target.json"

    @property
    def float_model(self) -> Path:
        """The trained float model."""
        return self.folder / "float.keras"

    @property
    def qat_model(self) -> Path:
        """The model after quantization-aware training."""
        return self.folder / "qat.keras"

    @property
    def placement(self) -> Path:
        """The placement table."""
        return self.folder / "placement.txt"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One row an epoch."""
        return self.folder / "metrics.csv"

    @property
    def status(self) -> Path:
        """One JSON object a line."""
        return self.folder / "status.jsonl"

    @property
    def stages(self) -> Path:
        """The rows of the stage table."""
        return self.folder / "stages.json"

    @property
    def summary(self) -> Path:
        """All of it as a page."""
        return self.folder / "summary.html"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's logs."""
        return self.folder / "tensorboard"


def open_results(spec: Any, restart: bool = False) -> Results:
    """The results folder of ``spec``, made if need be, writable, and holding the resolved spec.

    Args:
        spec: the spec.
        restart: whether to remove what an earlier run left (OWN_FILES and OWN_FOLDERS, nothing else).

    Raises:
        TfqatError: the folder cannot be written, or was filled by a run of another spec.
    """
    results = Results(Path(spec.results_dir))
    resolved = dump_spec(spec)
    try:
        if restart:
            _clear(results)
        _check_same_spec(results, resolved, FREE_KEYS, _mend(results))
        _remove_leftovers(results)
        _keep_target(results, spec.quantization.target)
        write_text(results.spec, resolved)
    except OSError as error:
        raise TfqatError(
            f"results_dir {spec.results_dir!r} cannot be written: {error}. Name a folder that you may write to "
            "(results_dir=...), or change its permissions."
        ) from error
    return results


def _clear(results: Results) -> None:
    for name in OWN_FILES:
        (results.folder / name).unlink(missing_ok=True)
    for name in OWN_FOLDERS:
        if (results.folder / name).exists():
            shutil.rmtree(results.folder / name)


def check_trained_by(results: Results, spec: Any) -> None:
    """Raises TfqatError where the trained model is not what ``spec`` asks for: nothing of it would be obeyed."""
    if not results.spec.exists():
        return  # a model that was put there by hand
    mend = f"Use the spec that trained it ({results.spec}), or train this one: `tfqat train --restart`."
    _check_same_spec(results, dump_spec(spec), FREE_AFTER_TRAINING, mend)


def _check_same_spec(results: Results, resolved: str, free: tuple[str, ...], mend: str) -> None:
    """Raises TfqatError where the folder's files were made by another spec; ``free`` keys may differ."""
    if not results.spec.exists():
        return
    try:
        before = dict(_leaves(yaml.safe_load(results.spec.read_text(encoding="utf-8"))))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TfqatError(f"{results.spec} is no spec: {error}. {mend}") from error
    now = dict(_leaves(yaml.safe_load(resolved)))
    differing = [
        f"  {key}: was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(free)
    ]
    if differing:
        head = f"{results.folder} holds the results of another spec. Keys that differ:"
        raise TfqatError("\n".join([head, *differing, mend]))


def _keep_target(results: Results, target: str) -> None:
    """Keeps the document of a target from a file; refuses one that has changed since."""
    config = load_target(target).config
    if config is None:
        return
    text = json.dumps(config, indent=1) + "\n"
    if results.target.exists() and results.target.read_text(encoding="utf-8") != text:
        raise TfqatError(
            f"{results.folder} holds the results of another target: {target!r} was changed since ({results.target} is "
            f"what it was). {_mend(results)}"
        )
    write_text(results.target, text)


def _mend(results: Results) -> str:
    return (
        "Give this run another results_dir, or run `tfqat train --restart`, which removes the earlier run's files from "
        f"{results.folder}."
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key -> value of each entry that is not a mapping."""
    if not isinstance(value, dict):
        yield path, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{path}.{key}" if path else str(key))


def _remove_leftovers(results: Results) -> None:
    """Removes the temporary files of a run that was killed while writing."""
    for folder in (results.folder, results.checkpoints):
        for file in folder.glob(".????????????.tmp*"):
            if file.is_file():
                file.unlink()
