"""Loop: one phase of training (float or qat), continued where an earlier run of it broke off."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping
from typing import Any

import keras

from tfqat.errors import TfqatError
from tfqat.training.checkpoint import restore_latest, save_checkpoint
from tfqat.training.evaluation import compile_model
from tfqat.training.journal import add_metrics, add_status, forget_after
from tfqat.training.optimizer import make_optimizer
from tfqat.training.results import Results
from tfqat.training.seeds import seed_layers


class TrainingError(TfqatError):
    """Training that cannot go on."""


def compile_phase(model: keras.Model, loss: keras.losses.Loss, data: Any, spec: Any, phase: str) -> None:
    """Compiles ``model`` with the phase's optimizer, whose state is made at once, so that a checkpoint has it all."""
    optimizer = make_optimizer(spec.training, phase, epochs_of(spec, phase) * data.steps)
    optimizer.build(model.trainable_variables)
    compile_model(model, optimizer, loss)


def epochs_of(spec: Any, phase: str) -> int:
    """How many epochs the spec gives to the phase (float or qat)."""
    return spec.training.float_epochs if phase == "float" else spec.training.num_epochs


def train_phase(model: keras.Model, data: Any, spec: Any, results: Results, phase: str) -> None:
    """Trains ``model``, as ``compile_phase`` left it, to the end of ``phase``: from its newest checkpoint, if any.

    An epoch is a function of the checkpoint before it, the seed and its number, so it does not matter in how many runs
    the phase was trained.

    Raises:
        TrainingError: the loss is not finite; the last checkpoint is of the epoch before.
    """
    epochs, done = epochs_of(spec, phase), restore_latest(model, results, phase)
    forget_after(results, phase, done)
    if done:
        print(f"Continuing the {phase} phase after epoch {done} of {epochs}.")
    if done >= epochs:
        return
    model.fit(
        data.train_from(done),
        initial_epoch=done,
        epochs=epochs,
        steps_per_epoch=data.steps,
        validation_data=data.validation,
        callbacks=_callbacks(spec, results, phase),
        shuffle=False,  # the data is shuffled, by seed and epoch
        verbose=1 if sys.stdout.isatty() else 2,
    )


def check_tensorboard(spec: Any) -> None:
    """Raises TfqatError where TensorBoard is asked for and not installed."""
    if spec.training.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise TfqatError(
            "training_config.tensorboard is true, but the package tensorboard is not installed: pip install "
            "tensorboard, or set it to false."
        )


class EpochEnd(keras.callbacks.Callback):
    """Seeds each epoch, notes its metrics, writes its checkpoint; stops where the loss is not finite."""

    def __init__(self, spec: Any, results: Results, phase: str) -> None:
        super().__init__()
        self.spec, self.results, self.phase = spec, results, phase

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Random layers draw the same numbers in this epoch, whatever ran before."""
        seed_layers(self.model, self.spec.random_seed, epoch)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Stops at the first bad step and not at the end of a long epoch."""
        self._check_finite("loss", (logs or {}).get("loss", 0.0), f"step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Metrics first, then the checkpoint: a run killed in between repeats the epoch and drops the row."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        self._check_finite("val_loss", values["val_loss"], f"the end of epoch {epoch + 1}")
        values["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        add_metrics(self.results, self.phase, epoch + 1, values)
        add_status(self.results, "RUNNING", f"Epoch {epoch + 1} done.", self.phase, epoch + 1, values)
        save_checkpoint(self.model, self.results, self.phase, epoch + 1)

    def _check_finite(self, name: str, value: Any, where: str) -> None:
        if not math.isfinite(float(value)):
            raise TrainingError(
                f"The {name} of the {self.phase} phase is {float(value)} at {where}; expected a finite number. The "
                f"last good checkpoint, if any, is kept in {self.results.checkpoints}. Lower the learning rate "
                "(training_config.optimizer.learning_rate, qat_learning_rate), check the images for NaN, and run "
                "`tfqat train --restart`."
            )


def _callbacks(spec: Any, results: Results, phase: str) -> list[keras.callbacks.Callback]:
    callbacks: list[keras.callbacks.Callback] = [EpochEnd(spec, results, phase)]
    if spec.training.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(log_dir=str(results.tensorboard / phase), profile_batch=0))
    return callbacks
