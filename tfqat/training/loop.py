"""Loop: one phase of training (float or qat), continued where an earlier run of it broke off."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import keras

from tfqat.errors import TfqatError
from tfqat.training.average import averaged, take_average
from tfqat.training.checkpoint import (
    best_path,
    has_checkpoint,
    latest_epoch,
    restore,
    restore_latest,
    save_checkpoint,
    save_model,
)
from tfqat.training.criterion import Criterion
from tfqat.training.freezing import freeze_due
from tfqat.training.journal import add_metrics, add_status, forget_after, read_metrics, read_statuses
from tfqat.training.optimizer import make_optimizer, with_loss_scale
from tfqat.training.oscillation import calm
from tfqat.training.regularization import regularize
from tfqat.training.results import Results
from tfqat.training.seeds import seed_layers

# In the numbers of a line of status.jsonl: the how-manieth recovery of the phase it tells of.
RECOVERY = "recovery"


class TrainingError(TfqatError):
    """Training that cannot go on."""


class DivergedError(TrainingError):
    """A loss that is not finite."""


def compile_phase(
    model: keras.Model, criterion: Criterion, data: Any, spec: Any, phase: str, recovered: int = 0
) -> None:
    """Compiles ``model`` with the phase's optimizer, whose state is made at once, so that a checkpoint has it all."""
    steps, warmup = epochs_of(spec, phase) * data.steps, round(spec.training.optimizer.warmup_epochs * data.steps)
    optimizer = with_loss_scale(make_optimizer(spec.training, phase, steps, warmup, recovered), model)
    optimizer.build(model.trainable_variables)
    if phase == "qat" and spec.training.oscillation is not None:
        calm(model, optimizer, steps, **spec.training.oscillation.model_dump())
    regularize(model, spec.training.l2)
    criterion.compile(model, optimizer)


def epochs_of(spec: Any, phase: str) -> int:
    """How many epochs the spec gives to the phase (float or qat)."""
    return spec.training.float_epochs if phase == "float" else spec.training.num_epochs


def train_phase(model: keras.Model, criterion: Criterion, data: Any, spec: Any, results: Results, phase: str) -> None:
    """Trains ``model``, as ``compile_phase`` left it, to the end of ``phase``: from its newest checkpoint, if any.

    An epoch is a function of the checkpoint before it, the seed, its number and the recoveries noted before it, so it
    does not matter in how many runs the phase was trained.

    Raises:
        DivergedError: the loss is not finite, once more than there may be recoveries; the last checkpoint is of the
            epoch before.
    """
    epochs = epochs_of(spec, phase)
    if epochs and spec.training.recoveries and not has_checkpoint(results, phase):
        save_checkpoint(model, results, phase, 0)
    done = _restored(model, criterion, data, spec, results, phase)
    while done < epochs:
        try:
            _fit(model, criterion, data, spec, results, phase, done)
            done = epochs
        except DivergedError as error:
            if recoveries_of(results, phase) >= spec.training.recoveries:
                raise
            _note_recovery(results, phase, error)
            done = _restored(model, criterion, data, spec, results, phase)
    take_average(model)
    best = best_path(results, phase)
    if spec.training.keep == "best" and best.exists():
        restore(model, best)


def _restored(model: keras.Model, criterion: Criterion, data: Any, spec: Any, results: Results, phase: str) -> int:
    """Brings the newest checkpoint back, and the rate that belongs to it; returns its epoch."""
    done = restore_latest(model, results, phase)
    forget_after(results, phase, done)
    recovered = recoveries_of(results, phase)
    if recovered:
        compile_phase(model, criterion, data, spec, phase, recovered)
        done = restore_latest(model, results, phase)
    return done


def _fit(
    model: keras.Model, criterion: Criterion, data: Any, spec: Any, results: Results, phase: str, done: int
) -> None:
    epochs = epochs_of(spec, phase)
    if done:
        print(f"Continuing the {phase} phase after epoch {done} of {epochs}.")
    model.fit(
        criterion.batches(data.train_from(done)),
        initial_epoch=done,
        epochs=epochs,
        steps_per_epoch=data.steps,
        callbacks=_callbacks(criterion, data, spec, results, phase),
        shuffle=False,  # the data is shuffled, by seed and epoch
        verbose=1 if sys.stdout.isatty() else 2,
    )


def recoveries_of(results: Results, phase: str) -> int:
    """How often the phase has gone back with half the rate."""
    return sum(line["phase"] == phase and RECOVERY in line["kpi"] for line in read_statuses(results))


def _note_recovery(results: Results, phase: str, error: Exception) -> None:
    """Notes it before it is done, so that a run that breaks off in between goes on with the same rate."""
    count, epoch = recoveries_of(results, phase) + 1, latest_epoch(results, phase)
    message = f"{str(error).split(';')[0]}. Going back to epoch {epoch}, with half the learning rate."
    print(message)
    add_status(results, "RUNNING", message, phase, epoch, {RECOVERY: count})


def check_tensorboard(spec: Any) -> None:
    """Raises TfqatError where TensorBoard is asked for and not installed."""
    if spec.training.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise TfqatError(
            "training_config.tensorboard is true, but the package tensorboard is not installed: pip install "
            "tensorboard, or set it to false."
        )


class EpochEnd(keras.callbacks.Callback):
    """Seeds each epoch, validates, notes its metrics, writes its checkpoint; stops where the loss is not finite."""

    def __init__(self, criterion: Criterion, data: Any, spec: Any, results: Results, phase: str) -> None:
        super().__init__()
        self.criterion, self.data, self.spec, self.results, self.phase = criterion, data, spec, results, phase

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Random layers draw the same numbers in this epoch, whatever ran before; what is due is frozen."""
        seed_layers(self.model, self.spec.random_seed, epoch)
        if self.phase == "qat":
            freeze_due(self.model, self.spec.training, epoch)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Stops at the first bad step and not at the end of a long epoch."""
        self._check_finite("loss", (logs or {}).get("loss", 0.0), f"step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: MutableMapping[str, Any] | None = None) -> None:
        """Metrics first, then the checkpoint: a run killed in between repeats the epoch and drops the row."""
        logs = {} if logs is None else logs
        with averaged(self.model):
            found = self.criterion.evaluate(self.model, self.data.validation)
        logs.update({f"val_{name}": value for name, value in found.items()})  # Keras shows them
        values = {name: float(value) for name, value in logs.items()}
        self._check_finite("val_loss", values["val_loss"], f"the end of epoch {epoch + 1}")
        self._keep_best(values[f"val_{self.criterion.figure}"])
        values["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        add_metrics(self.results, self.phase, epoch + 1, values)
        add_status(self.results, "RUNNING", f"Epoch {epoch + 1} done.", self.phase, epoch + 1, values)
        save_checkpoint(self.model, self.results, self.phase, epoch + 1)

    def _keep_best(self, figure: float) -> None:
        """Saves what was validated, where no epoch before was as good."""
        if self.spec.training.keep != "best":
            return
        name = f"val_{self.criterion.figure}"
        before = [float(row[name]) for row in read_metrics(self.results) if row["phase"] == self.phase]
        if not before or figure > max(before):
            with averaged(self.model):
                save_model(self.model, best_path(self.results, self.phase))

    def _check_finite(self, name: str, value: Any, where: str) -> None:
        if not math.isfinite(float(value)):
            raise DivergedError(
                f"The {name} of the {self.phase} phase is {float(value)} at {where}; expected a finite number. The "
                f"last good checkpoint, if any, is kept in {self.results.checkpoints}. Lower the learning rate "
                "(training_config.optimizer.learning_rate, qat_learning_rate), let training go back and halve it "
                "(training_config.recoveries), check the images for NaN, and run "
                "`tfqat train --restart`."
            )


def _callbacks(
    criterion: Criterion, data: Any, spec: Any, results: Results, phase: str
) -> list[keras.callbacks.Callback]:
    callbacks: list[keras.callbacks.Callback] = [EpochEnd(criterion, data, spec, results, phase)]
    if spec.training.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(log_dir=str(results.tensorboard / phase), profile_batch=0))
    return callbacks
