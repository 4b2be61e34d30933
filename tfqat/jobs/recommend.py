"""Recommend: mixed precision for a float model, or for a spec, whose rules go into a new spec."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Collection, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import keras

from tfqat.analysis.analyze import IMAGES, check_arguments
from tfqat.analysis.front import Front
from tfqat.analysis.recommend import Rules, Subject, Wish, front_of
from tfqat.calibration.calibrate import calibrate
from tfqat.core.files import write_text
from tfqat.errors import TfqatError
from tfqat.exporters.registry import FORMATS
from tfqat.exporters.requantization import TOLERATED, worst_of
from tfqat.graph.place import place
from tfqat.graph.rules import rules_from
from tfqat.graph.target import Target
from tfqat.jobs import tfmot_spec
from tfqat.jobs.build import build_model
from tfqat.jobs.phases import quantized_as_asked
from tfqat.rewrite.plan import plan_for, with_activation
from tfqat.rewrite.prepare import prepare
from tfqat.rewrite.relu6 import DEFAULT
from tfqat.spec.schema import Rule, Spec
from tfqat.spec.with_rules import with_rules
from tfqat.targets import load_target
from tfqat.training.checkpoint import restore
from tfqat.training.results import Results
from tfqat.training.seeds import make_deterministic

SPEC = "recommended.yaml"


def recommend(
    model: keras.Model,
    dataset: Any,
    calibration: Any = None,
    target: str = "tensorrt",
    rules: Sequence[Any] = (),
    relu6: Collection[str] = DEFAULT,
    *,
    max_drop: float = 0.5,
    low_bits: int | None = None,
    formats: Sequence[str] | None = None,
    images: int = IMAGES,
    budget: float | None = None,
    activation: str | None = None,
    method: str = "mse",
    batches: int = 8,
    percentile: float = 99.99,
) -> Front:
    """The rules by which a float model, quantized without training, loses no more accuracy than allowed.

    Blocks stay in float (no target has a 16-bit form) where that is needed, as few multiply-accumulates as are found;
    each model is prepared, calibrated and measured. ``prepare`` with ``[*found.rules, *rules]`` makes the chosen one.

    Args:
        model: a float Keras model with one score for each class.
        dataset: batches of (x, integer labels), or ``(x, y)`` of arrays.
        calibration: batches as ``calibrate`` takes them; ``dataset`` where None.
        target, rules, relu6, activation: as of ``prepare``.
        max_drop: points of accuracy that may be lost against the float model.
        low_bits: 2 to 7: kernels may have so few bits, as many as the bound allows; None leaves them.
        formats: in which the model is to be exported; the target's usual one where None.
        images: how many samples are looked at, at most.
        budget: seconds after which no other model is begun.
        method, batches, percentile: as of ``calibrate``.

    Raises:
        TfqatError: data without labels, a wrong argument, or see ``prepare`` and ``calibrate``.
    """
    check_arguments(images, budget)
    accelerator, chosen = load_target(target), rules_from(rules)
    wish = _wish(max_drop, low_bits, formats, accelerator)

    def quantize(more: Rules) -> Any:
        made = prepare(model, target, [*rules_from(more), *chosen], relu6, activation=activation)
        calibrate(made, dataset if calibration is None else calibration, method, batches, percentile)
        return made

    return front_of(_subject(model, target, chosen, relu6, activation, quantize), dataset, wish, images, budget)


def recommend_spec(spec: Spec, data: Any, wish: Wish, images: int, budget: float | None, trust: bool = False) -> Front:
    """The Front of a spec's float model, which its results folder holds, as `tfqat quantize` makes them.

    Raises:
        TfqatError: there is no float model yet, or its checkpoint is one of TFMOT's.
    """
    results = Results(Path(spec.results_dir))
    if tfmot_spec.tfmot_of(spec):
        raise TfqatError(f"{spec.model.checkpoint} was quantized by TFMOT: its ranges are not chosen here.")
    if not results.float_model.exists():
        raise TfqatError(f"No float model at {str(results.float_model)!r}. Run `tfqat quantize` with this spec first.")
    model = build_model(spec, trust)
    restore(model, results.float_model)

    def quantize(more: Rules) -> Any:
        make_deterministic(spec.random_seed)
        with contextlib.redirect_stdout(io.StringIO()):
            return quantized_as_asked(model, data, ruled(spec, more))

    section = spec.quantization
    rules = rules_from([rule.model_dump(exclude_none=True) for rule in section.rules])
    subject = _subject(model, section.target, rules, section.relu6, section.activation, quantize)
    return front_of(subject, data.validation, wish, images, budget)


def wish_of(spec: Spec, max_drop: float, low_bits: int | None) -> Wish:
    """What is asked for, by the formats that the spec exports."""
    return _wish(max_drop, low_bits, spec.export.formats, load_target(spec.quantization.target))


def ruled(spec: Spec, rules: Sequence[Any]) -> Spec:
    """The spec with rules before its own, which they come before in deciding."""
    more = tuple(Rule.model_validate(dict(rule)) for rule in rules)
    section = spec.quantization.model_copy(update={"rules": (*more, *spec.quantization.rules)})
    return spec.model_copy(update={"quantization": section})


def write_spec(spec: Spec, source: Path | None, found: Front, folder: Path) -> Path:
    """Writes the spec with the rules found, for a results folder of its own that begins with this one's float model.

    Args:
        spec: the spec that was analysed.
        source: the file that it was read from, whose comments are kept; None without one.
        found: with rules that keep the bound.
        folder: where to.

    Raises:
        OSError: it cannot be written.
    """
    results = _unused(Path(spec.results_dir) / "recommended")
    new = ruled(spec, found.rules).model_copy(update={"results_dir": str(results)})
    comments = [found.sentence, f"Measured on {found.samples} validation images, quantized without training."]
    text = source.read_text(encoding="utf-8-sig") if source is not None else None
    folder.mkdir(parents=True, exist_ok=True)
    path = write_text(folder / SPEC, with_rules(text, new, list(found.rules), list(found.reasons), comments))
    results.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Results(Path(spec.results_dir)).float_model, Results(results).float_model)
    return path


def _unused(folder: Path) -> Path:
    """The folder, or one with a number where it holds a run already, which is not this spec's."""
    numbered = (folder.with_name(f"{folder.name}_{number}") for number in count(2))
    return next(found for found in chain([folder], numbered) if not Results(found).spec.exists())


def _subject(model: Any, target: str, rules: Any, relu6: Any, activation: str | None, quantize: Any) -> Subject:
    base = plan_for(model, target, rules, relu6, activation)
    accelerator = with_activation(load_target(target), activation)
    return Subject(
        model, base.graph, lambda more: place(base.graph, accelerator, (*rules_from(more), *rules)), quantize
    )


def _wish(max_drop: float, low_bits: int | None, formats: Sequence[str] | None, target: Target) -> Wish:
    chosen = target.exporters[:1] if formats is None else formats
    known = [name for name in chosen if name in FORMATS]
    cached = next((name for name in known if "cache" in FORMATS[name].files), None)
    wish = Wish(max_drop, low_bits, next((name for name in known if FORMATS[name].integers_only), None))
    if cached is not None and low_bits is not None and worst_of(low_bits) > TOLERATED:
        most = max(bits for bits in range(2, 8) if worst_of(bits) <= TOLERATED)
        raise TfqatError(
            f"low_bits: received {low_bits}, expected 2 to {most}: the format {cached} has a cache, beside which "
            f"TensorRT quantizes kernels anew, and those of {low_bits} bits would move by up to "
            f"{worst_of(low_bits):.2g} steps. Other formats hold them (qdq_onnx)."
        )
    return wish
