"""AIMET target: an AIMET-style config read as the Target that it describes.

``defaults`` hold for all ops and parameters, ``params`` for parameters of one name, ``op_type`` for all ops of one
ONNX name, and within it ``params`` again; the more specific one wins. What is stated nowhere is False, as in AIMET:
not quantized, asymmetric, per tensor. Symmetric integers are signed, asymmetric activations uint8, asymmetric kernels
int8. Ops that only move integers share their input's range unless the config quantizes their output by name. Ops
without an INT8 form in tfqat stay float, and so do parameters other than kernels; the Placement says so.

Source: AIMET user guide, "Quantization Simulation Configuration"
(https://quic.github.io/aimet-pages/releases/latest/techniques/quantsim/config.html).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfqat.core.scheme import Scheme
from tfqat.graph.aimet_config_ops import MOVING, NONNEGATIVE, ONNX_NAMES, WEIGHTED, kinds_named
from tfqat.graph.aimet_config_schema import AimetConfig, AimetConfigError, OpSettings, parse, read_document
from tfqat.graph.block import Block, Step
from tfqat.graph.target import Range, Target

GUIDE = "https://quic.github.io/aimet-pages/releases/latest/techniques/quantsim/config.html"
EXPORTERS = ("aimet", "qdq_onnx")
_NORM = "batch_normalization"


def read_target(path: Path) -> Target:
    """The Target that a config file describes, named after the file.

    Raises:
        AimetConfigError: the file cannot be read, does not fit the schema, or asks for what tfqat cannot honor.
    """
    return target_of(read_document(path), path.name, str(path))


def target_of(document: Mapping[str, Any], name: str, source: str | None = None) -> Target:
    """The Target that a config document describes; ``source`` names the document in errors, else ``name`` does.

    Raises:
        AimetConfigError: it does not fit the schema, or asks for what tfqat cannot honor.
    """
    config = parse(document, source or name)
    settings = {kind: _settings(config, kind) for kind in ONNX_NAMES}
    found = [*_problems(config, settings)]
    if found:
        raise AimetConfigError(source or name, list(dict.fromkeys(found)))
    return _target(config, settings, name, document)


@dataclass(frozen=True)
class _Settings:
    """What the config says of one kind, all sections taken together."""

    input: bool
    output: bool
    output_stated: bool
    symmetric: bool
    per_channel: bool
    kernel: bool
    kernel_symmetric: bool
    bias: bool
    range: tuple[float, float | None] | None


def _settings(config: AimetConfig, kind: str) -> _Settings:
    def stated(key: str) -> Any:
        return _first(getattr(op, key) for op in _ops(config, kind))

    def parameter(name: str, key: str) -> Any:
        own = (getattr(op.params[name], key) for op in _ops(config, kind) if name in op.params)
        whole = stated("is_symmetric") if key == "is_symmetric" else None
        general = getattr(config.params[name], key) if name in config.params else None
        return bool(_first([*own, whole, general, getattr(config.defaults.params, key)]))

    ops, output, constraints = config.defaults.ops, stated("is_output_quantized"), stated("encoding_constraints")
    return _Settings(
        input=bool(_first([stated("is_input_quantized"), ops.is_input_quantized])),
        output=bool(_first([output, ops.is_output_quantized])),
        output_stated=output is not None,
        symmetric=bool(_first([stated("is_symmetric"), ops.is_symmetric])),
        per_channel=bool(_first([stated("per_channel_quantization"), config.defaults.per_channel_quantization])),
        kernel=parameter("weight", "is_quantized"),
        kernel_symmetric=parameter("weight", "is_symmetric"),
        bias=parameter("bias", "is_quantized"),
        range=None if constraints is None else (constraints.min, constraints.max),
    )


def _ops(config: AimetConfig, kind: str) -> list[OpSettings]:
    """The op_type entries that speak for a kind, the decisive one first."""
    return [config.op_type[name] for name in ONNX_NAMES[kind] if name in config.op_type]


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _target(config: AimetConfig, settings: Mapping[str, _Settings], name: str, document: Mapping[str, Any]) -> Target:
    weighted = _where(settings, lambda kind, s: kind in WEIGHTED and s.kernel)
    shared = _where(settings, lambda kind, s: kind in MOVING and not (s.output and s.output_stated))
    # Integers of several tensors stand side by side only if one scale means them all.
    shared |= _where(settings, lambda kind, s: kind == "concatenate" and not s.output)
    # A cast may stand on a model input of integers, whose first float tensor is then the input to quantize.
    left = _where(settings, lambda kind, s: not s.output) - shared - {"cast"}
    active = _where(settings, lambda _, s: s.output or s.input)
    strict, activation = config.defaults.strict_symmetric, _activation(config, config.defaults.ops.is_symmetric)
    unsigned = config.defaults.unsigned_symmetric and activation.symmetric
    kernels = {
        kind: Scheme(symmetric=settings[kind].kernel_symmetric, narrow=_narrow(settings[kind], strict))
        for kind in sorted(weighted)
    }
    return Target(
        name=name,
        activation=activation,
        weight=next(iter(kernels.values())),
        weighted=weighted,
        own_range=(active | _heads(config, active)) - WEIGHTED - shared - {_NORM},
        shared_range=shared,
        blocks=_blocks(config, weighted, frozenset(k for k in weighted if _folds_first(settings[k]))),
        exporters=EXPORTERS,
        source=GUIDE,
        per_tensor=_where(settings, lambda kind, s: kind in weighted and not s.per_channel),
        activation_of=_exceptions(config, settings, activation),
        weight_of=kernels,
        nonnegative=Scheme(signed=False) if unsigned else None,
        fixed_range=_fixed_ranges(settings, active - shared),
        int8_weights=True,
        spelled_out=frozenset({"silu"}),
        residual_heads=_residual_heads(config),
        unquantized=left,
        requantized=_where(settings, lambda _, s: s.input),
        float_inputs=False,
        quantized_inputs=bool(config.model_input.is_input_quantized),
        quantized_outputs=config.model_output.is_output_quantized,
        float_outputs=False,
        config=dict(document),
    )


def _where(settings: Mapping[str, _Settings], holds: Callable[[str, _Settings], bool]) -> frozenset[str]:
    return frozenset(kind for kind, found in settings.items() if holds(kind, found))


def _activation(config: AimetConfig, symmetric: bool) -> Scheme:
    if symmetric:
        return Scheme(narrow=config.defaults.strict_symmetric)
    return Scheme(signed=False, symmetric=False)


def _narrow(settings: _Settings, strict: bool) -> bool:
    return settings.kernel_symmetric and strict


def _folds_first(settings: _Settings) -> bool:
    return not (settings.per_channel and settings.kernel_symmetric)


def _exceptions(config: AimetConfig, settings: Mapping[str, _Settings], usual: Scheme) -> dict[str, Scheme]:
    schemes = {kind: _activation(config, found.symmetric) for kind, found in settings.items()}
    return {kind: scheme for kind, scheme in schemes.items() if scheme != usual}


def _fixed_ranges(settings: Mapping[str, _Settings], quantized: frozenset[str]) -> dict[str, Range]:
    found = {kind: settings[kind].range for kind in sorted(quantized) if settings[kind].output}
    return {kind: (bounds[0], bounds[1]) for kind, bounds in found.items() if bounds and bounds[1] is not None}


def _blocks(config: AimetConfig, weighted: frozenset[str], folded: frozenset[str]) -> tuple[Block, ...]:
    """A Block a supergroup. BatchNorm folds into a weighted op, so it may stand behind one in each of them."""
    alone = Block("weighted_bn", (Step(weighted), Step(frozenset({_NORM}))), GUIDE)
    groups = (_block(group.op_list, weighted, folded) for group in config.supergroups)
    return (alone, *(block for block in groups if all(step.kinds for step in block.steps)))


def _block(names: tuple[str, ...], weighted: frozenset[str], folded: frozenset[str]) -> Block:
    steps: list[Step] = []
    for position, name in enumerate(names):
        kinds = kinds_named(name)
        # Where BatchNorm is folded before anything is placed, a group that states it has none to find.
        gone = kinds == {_NORM} and bool(steps) and bool(steps[-1].kinds & folded)
        steps.append(Step(kinds, optional=gone))
        follows = names[position + 1 : position + 2]
        if kinds & weighted and follows and follows != ("BatchNormalization",):
            steps.append(Step(frozenset({_NORM}), optional=True))
    return Block("_".join(names), tuple(steps), GUIDE)


def _heads(config: AimetConfig, active: frozenset[str]) -> frozenset[str]:
    """First ops of supergroups whose output is quantized, whatever is said of the first op alone."""
    groups = (group.op_list for group in config.supergroups)
    return frozenset().union(*(kinds_named(names[0]) for names in groups if kinds_named(names[-1]) & active))


def _residual_heads(config: AimetConfig) -> frozenset[str]:
    heads = (kinds_named(group.op_list[0]) for group in config.supergroups if "Add" in group.op_list[1:])
    return frozenset().union(*heads)


def _problems(config: AimetConfig, settings: Mapping[str, _Settings]) -> Iterator[str]:
    """What the config asks for and tfqat cannot do, each with its place."""
    weighted = {kind: settings[kind] for kind in sorted(WEIGHTED)}
    if not any(found.kernel for found in weighted.values()):
        yield 'defaults.params.is_quantized: no kernel is quantized; expected "True", here or for params.weight'
    biased = sorted({ONNX_NAMES[kind][0] for kind, found in weighted.items() if found.bias})
    if biased:
        yield (
            f"params.bias.is_quantized: the biases of {', '.join(biased)} would be quantized; tfqat keeps biases in "
            'float, as the configs that AIMET ships do: expected "False", also where only defaults.params says "True"'
        )
    for kind, found in weighted.items():
        if not found.kernel and found.output_stated and found.output:
            name = ONNX_NAMES[kind][0]
            yield f'op_type.{name}.is_output_quantized: "True" beside weights in float; tfqat does both in INT8 or none'
    yield from _wrong_kernels(config)
    yield from _wrong_inputs(config, settings)
    yield from _wrong_ranges(config)


def _wrong_kernels(config: AimetConfig) -> Iterator[str]:
    stated = {"defaults": config.defaults.supported_kernels}
    stated |= {f"op_type.{name}": op.supported_kernels for name, op in config.op_type.items() if kinds_named(name)}
    for where, kernels in stated.items():
        if kernels is not None and not any(_is_int8(kernel) for kernel in kernels):
            offered = ", ".join(f"{k.activation.dtype}{k.activation.bitwidth}" for k in kernels)
            yield f"{where}.supported_kernels: tfqat trains for int8 only; received {offered}, expected int8 among them"


def _is_int8(kernel: Any) -> bool:
    sides = [kernel.activation] if kernel.param is None else [kernel.activation, kernel.param]
    return all((side.dtype, side.bitwidth) == ("int", 8) for side in sides)


def _wrong_inputs(config: AimetConfig, settings: Mapping[str, _Settings]) -> Iterator[str]:
    """A tensor has one Quantizer, that of the op which gives it."""
    for name, op in config.op_type.items():
        differing = op.is_symmetric is not None and op.is_symmetric != config.defaults.ops.is_symmetric
        if op.is_input_quantized and differing and kinds_named(name):
            yield (
                f"op_type.{name}.is_symmetric: received {str(op.is_symmetric)!r} beside is_input_quantized, but tfqat "
                f"rounds what an op reads as the op before it gives it; expected {str(not op.is_symmetric)!r}, as in "
                "defaults.ops"
            )


def _wrong_ranges(config: AimetConfig) -> Iterator[str]:
    for name, op in config.op_type.items():
        bounds, kinds = op.encoding_constraints, kinds_named(name)
        where = f"op_type.{name}.encoding_constraints"
        if bounds is None or not kinds:
            continue
        if bounds.max is None and not (bounds.min == 0 and kinds <= NONNEGATIVE):
            yield f"{where}: received min {bounds.min:g} without max; expected both"
        elif (bounds.max is not None and not bounds.min <= 0 <= bounds.max) or bounds.min == bounds.max:
            yield f"{where}: received [{bounds.min:g}, {bounds.max:g}], expected a range that holds 0"
