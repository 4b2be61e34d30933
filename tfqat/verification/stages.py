"""Stage: a way in which some program runs files of an export; the table of all, which `verify` goes through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx

from tfqat.core.encoding import Encodings
from tfqat.exporters import aimet, onnx_qdq
from tfqat.verification.blocks import BlockScore, judge_blocks, judged_tensors
from tfqat.verification.files import Files
from tfqat.verification.keras_values import KerasValues
from tfqat.verification.runner import Runner
from tfqat.verification.simulation import simulate
from tfqat.verification.tflite_blocks import allowances, approximate, judge_tflite_blocks, judged_tflite_tensors
from tfqat.verification.tflite_runner import TfliteRunner

# What the finalized model computes, and the inputs by their names in the file -> a score a block.
Judge = Callable[[KerasValues, Mapping[str, np.ndarray]], list[BlockScore]]


class Runs(Protocol):
    """What runs one file."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Input name -> float array in, output name -> float array out."""
        ...


@dataclass(frozen=True)
class Opened:
    """Files opened by the program that reads them.

    Attributes:
        runner: runs them.
        judge: compares their blocks with the trained model's.
        tensors: those of the trained model that it looks at.
        note: what is to be said of them.
        exact: whether the outputs can agree to rounding noise, too: not where an operator is coarser than float32, or
            the device rounds what training did not.
    """

    runner: Runs
    judge: Judge
    tensors: Collection[str]
    note: str = ""
    exact: bool = True


@dataclass(frozen=True)
class Stage:
    """One way to run exported files.

    Attributes:
        name: the row's.
        run_by: the program.
        roles: the files that it takes; the stage is there where all of them are.
        open: opens them.
    """

    name: str
    run_by: str
    roles: tuple[str, ...]
    open: Callable[[Files], Opened]


def stages_of(files: Files) -> list[Stage]:
    """The stages that an export's files allow."""
    return [stage for stage in STAGES if files.has(*stage.roles)]


def _open_qdq(files: Files) -> Opened:
    return _opened_onnx(files.qdq, files.qdq, files)


def _open_cache(files: Files) -> Opened:
    simulation = simulate(files.model, files.cache, files.kept_float)
    note = f"Cache: {simulation.coverage}."
    untrained = sorted(set(onnx_qdq.scales_of(simulation.model)) - set(onnx_qdq.trained(files.encodings)))
    moved = files.manifest.report.get("requantization_steps", {})
    as_trained = simulation.model
    if untrained or moved:
        # What was never rounded in training, or is rounded otherwise by the device, cannot give the same integers.
        as_trained = simulate(files.model, files.cache, files.kept_float, unrounded=untrained, unmoved=moved).model
        note += (
            f" Blocks are judged without what the device does besides: it rounds {len(untrained)} tensors inside "
            f"blocks by calibrated scales, and quantizes {len(moved)} kernels anew. End to end has both."
        )
    return _opened_onnx(simulation.model, as_trained, files, note)


def _open_aimet(files: Files) -> Opened:
    told: Encodings = aimet.read(files.paths["aimet"], files.model)
    model = onnx_qdq.insert(files.model, told, clip=True)
    return _opened_onnx(model, model, files)


def _opened_onnx(model: onnx.ModelProto, as_trained: onnx.ModelProto, files: Files, note: str = "") -> Opened:
    """Runs ``model`` end to end; judges the blocks of ``as_trained``, which is another where the device is."""
    judge = lambda values, inputs: judge_blocks(as_trained, values, inputs, files.renamed)  # noqa: E731
    return Opened(Runner(model), judge, judged_tensors(as_trained, files.renamed), note, exact=as_trained is model)


def _open_tflite(files: Files) -> Opened:
    data = files.paths["tflite"].read_bytes()
    slack = "; ".join(f"{operator}: {reason}" for operator, reason in allowances(data).items())
    note = f"Operators that LiteRT computes coarser than float32, given some slack at ties: {slack}." if slack else ""
    coarse = approximate(data)
    if coarse:
        note += f" End to end is judged by classes, not by noise, for {', '.join(coarse)}."
    judge = lambda values, inputs: judge_tflite_blocks(data, values, inputs)  # noqa: E731
    return Opened(TfliteRunner(data), judge, judged_tflite_tensors(data), note, exact=not coarse)


QDQ, CACHE = "Q/DQ ONNX", "float ONNX + cache"
AIMET, TFLITE = "float ONNX + AIMET encodings", "int8 TFLite"
STAGES = (
    Stage(QDQ, "onnxruntime", ("qdq_onnx",), _open_qdq),
    Stage(CACHE, "onnxruntime", ("onnx", "cache", "layer_precisions"), _open_cache),
    Stage(AIMET, "onnxruntime", ("onnx", "aimet"), _open_aimet),
    Stage(TFLITE, "LiteRT", ("tflite",), _open_tflite),
)
