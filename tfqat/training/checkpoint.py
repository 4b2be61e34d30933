"""Checkpoint: a `.keras` file of model and optimizer state after some epochs of a phase."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import keras

from tfqat.core.files import replace_on_success
from tfqat.errors import TfqatError
from tfqat.graph.depth import room_for
from tfqat.models.weights import load_weights
from tfqat.training.results import Results

# The newest one is resumed from; the one before it is there for a disk that damages the newest.
KEPT = 2
# Errors of Keras, h5py and zipfile on a damaged or foreign file.
READ_ERRORS = (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile)
MEND = "Give this run another results_dir, or run `tfqat train --restart`, which begins anew."


class UnreadableError(TfqatError):
    """A checkpoint that is damaged."""


def save_model(model: keras.Model, path: Path) -> None:
    """Saves to ``path`` (`.keras`), whole or not at all."""
    with replace_on_success(path) as temporary, room_for():
        model.save(temporary)


def save_checkpoint(model: keras.Model, results: Results, phase: str, epoch: int) -> None:
    """Saves the state after ``epoch`` epochs of ``phase``, and removes the phase's checkpoints but the last KEPT."""
    save_model(model, results.checkpoints / f"{phase}-{epoch:04d}.keras")
    for old in _newest_first(results, phase)[KEPT:]:
        old.unlink()


def best_path(results: Results, phase: str) -> Path:
    """The file of the phase's best epoch; not one of those that a run goes on from."""
    return results.checkpoints / f"{phase}-best.keras"


def has_checkpoint(results: Results, phase: str) -> bool:
    """Whether the phase has begun."""
    return bool(_newest_first(results, phase))


def latest_epoch(results: Results, phase: str) -> int:
    """The epoch of the phase's newest checkpoint, 0 without one."""
    return max(map(_epoch, _newest_first(results, phase)), default=0)


def restore(model: keras.Model, path: Path) -> None:
    """Reads the variables in ``path`` into ``model``, and into its optimizer where both have its state.

    Raises:
        UnreadableError: the file is damaged.
        TfqatError: it is of another architecture.
    """
    try:
        load_weights(model, path)
    except TfqatError as error:
        raise TfqatError(f"{error} {MEND}") from error
    except READ_ERRORS as error:
        raise UnreadableError(f"{path} cannot be read: {error}. {MEND}") from error


def restore_latest(model: keras.Model, results: Results, phase: str) -> int:
    """Restores the phase's newest readable checkpoint into the compiled ``model``; returns its epoch, 0 without one.

    Raises:
        TfqatError: a checkpoint of another architecture, or none that can be read.
    """
    paths = _newest_first(results, phase)
    for path in paths:
        try:
            restore(model, path)
            return _epoch(path)
        except UnreadableError as error:
            if path == paths[-1]:
                raise
            print(f"{error}\nGoing back to the checkpoint before it.")
    return 0


def _newest_first(results: Results, phase: str) -> list[Path]:
    found = [path for path in results.checkpoints.glob(f"{phase}-*.keras") if re.fullmatch(r"\w+-\d{4,}", path.stem)]
    return sorted(found, key=_epoch, reverse=True)


def _epoch(path: Path) -> int:
    return int(path.stem.split("-")[1])
