"""AIMET-style config: the JSON document that says which ops a device quantizes, and how; read by a closed schema.

Its booleans are the texts ``"True"`` and ``"False"``. Source: AIMET user guide, "Quantization Simulation
Configuration", and the configs that AIMET ships.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from tfqat.errors import TfqatError
from tfqat.graph.aimet_config_ops import AIMET_OPS, ONNX_OPS, PASSES, nearest, nearest_op

# What AIMET's own configs name; only weight and bias belong to ops with an INT8 form.
_PARAMETERS = ("weight", "bias", "running_mean", "running_var", "mean", "var", "scale", "prelu", "C")


class AimetConfigError(TfqatError):
    """A config that cannot be read or cannot be honored; its text names every mistake."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in problems)]))
        self.problems = tuple(problems)


def _wrong(message: str, **context: Any) -> PydanticCustomError:
    return PydanticCustomError("tfqat", message, context)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value not in ("True", "False"):
        raise _wrong('expected "True" or "False"')
    return bool(value == "True")


def _op(name: str) -> str:
    if name not in ONNX_OPS | AIMET_OPS:
        near = nearest_op(name)
        raise _wrong("unknown op, expected the name of an ONNX op" + (f"; did you mean {near!r}?" if near else ""))
    return name


def _parameter(name: str) -> str:
    if name not in _PARAMETERS and not re.fullmatch(r"(weight|bias)_\w+", name):
        near = nearest(name, _PARAMETERS)
        raise _wrong("unknown parameter, expected weight or bias" + (f"; did you mean {near!r}?" if near else ""))
    return name


def _pass(name: str) -> str:
    if name not in PASSES:
        near = nearest(name, PASSES)
        hint = f"; did you mean {near!r}?" if near else ""
        raise _wrong(f"unknown supergroup pass, expected one of: {', '.join(PASSES)}{hint}")
    return name


Flag = Annotated[bool, BeforeValidator(_flag)]
OpName = Annotated[str, AfterValidator(_op)]
Parameter = Annotated[str, AfterValidator(_parameter)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Precision(_Section):
    """Integers or floats of so many bits."""

    bitwidth: Literal[4, 8, 16, 32]
    dtype: Literal["int", "float"]


class Kernel(_Section):
    """A pair of precisions that the device has a kernel for; an op without parameters states no ``param``."""

    activation: Precision
    param: Precision | None = None


class ParamSettings(_Section):
    """Of a parameter; None leaves it to a more general section."""

    is_quantized: Flag | None = None
    is_symmetric: Flag | None = None


class OpDefaults(_Section):
    """Of all activations."""

    is_input_quantized: Flag = False
    is_output_quantized: Flag = False
    is_symmetric: Flag = False


Kernels = Annotated[tuple[Kernel, ...], Field(strict=False, min_length=1)]


class Defaults(_Section):
    """What holds where no other section says otherwise."""

    ops: OpDefaults
    params: ParamSettings
    strict_symmetric: Flag = False
    unsigned_symmetric: Flag = False
    per_channel_quantization: Flag = False
    hw_version: str | None = None
    supported_kernels: Kernels | None = None


class Constraints(_Section):
    """Bounds of an op's output."""

    min: float
    max: float | None = None


class OpSettings(_Section):
    """Of all ops of one ONNX name; None leaves it to the defaults."""

    is_input_quantized: Flag | None = None
    is_output_quantized: Flag | None = None
    is_symmetric: Flag | None = None
    per_channel_quantization: Flag | None = None
    params: Mapping[Parameter, ParamSettings] = {}
    encoding_constraints: Constraints | None = None
    supported_kernels: Kernels | None = None


class Supergroup(_Section):
    """Ops in a row between which nothing is quantized."""

    op_list: Annotated[tuple[OpName, ...], Field(strict=False, min_length=2)]


class ModelInput(_Section):
    """Of the model's inputs."""

    is_input_quantized: Flag | None = None


class ModelOutput(_Section):
    """Of the model's outputs; None leaves it to the op that gives it."""

    is_output_quantized: Flag | None = None


class AimetConfig(_Section):
    """The whole document."""

    defaults: Defaults
    params: Mapping[Parameter, ParamSettings]
    op_type: Mapping[OpName, OpSettings]
    supergroups: Annotated[tuple[Supergroup, ...], Field(strict=False)]
    model_input: ModelInput
    model_output: ModelOutput
    supergroup_pass_list: Annotated[tuple[Annotated[str, AfterValidator(_pass)], ...], Field(strict=False)] = ()


def read_document(path: Path) -> dict[str, Any]:
    """The JSON document in a file.

    Raises:
        AimetConfigError: there is no such file, or it holds no JSON object, or a key twice with different values.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_conflicts)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AimetConfigError(str(path), [f"there is no such file{_neighbor(path)}"]) from error
    except UnicodeDecodeError as error:
        raise AimetConfigError(str(path), [f"not UTF-8 text: {error}"]) from error
    except json.JSONDecodeError as error:
        raise AimetConfigError(
            str(path), [f"no JSON: line {error.lineno}, column {error.colno}: {error.msg}"]
        ) from error
    except (OSError, _Conflict, RecursionError) as error:
        raise AimetConfigError(str(path), [f"cannot be read: {error}"]) from error
    if not isinstance(document, dict):
        raise AimetConfigError(str(path), [f"expected a JSON object, received {type(document).__name__}"])
    return document


def parse(document: Mapping[str, Any], source: str) -> AimetConfig:
    """The config in a JSON document; ``source`` names it in errors.

    Raises:
        AimetConfigError: names everything that does not fit the schema, and where it stands.
    """
    try:
        return AimetConfig.model_validate(document)
    except ValidationError as error:
        raise AimetConfigError(source, [_problem(entry) for entry in _distinct(error)]) from error


class _Conflict(ValueError):
    pass


def _without_conflicts(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Published configs repeat a key with the same value.
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made and made[key] != value:
            raise _Conflict(f"the key {key!r} stands twice in one object, with different values")
        made[key] = value
    return made


def _neighbor(path: Path) -> str:
    try:
        files = [file.name for file in path.parent.iterdir() if file.suffix == ".json"]
    except OSError:
        return f", nor a folder {path.parent}"
    near = nearest(path.name, files)
    return f"; did you mean {path.parent / near}?" if near else ""


_EXPECTED = {
    "missing": "is missing",
    "model_type": "expected an object",
    "mapping_type": "expected an object",
    "dict_type": "expected an object",
    "tuple_type": "expected a list",
    "string_type": "expected a text",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "too_short": "expected at least {min_length} entries",
    "literal_error": "expected {expected}",
}
_NO_VALUE = {"missing", "extra_forbidden"}


def _distinct(error: ValidationError) -> list[Any]:
    """The mistakes; a list that is too short only by its wrong entries is none of its own."""
    found = error.errors(include_url=False)
    inside = {entry["loc"][:length] for entry in found for length in range(1, len(entry["loc"]))}
    return [entry for entry in found if entry["type"] != "too_short" or entry["loc"] not in inside]


def _problem(entry: Any) -> str:
    kind, context = entry["type"], entry.get("ctx", {})
    where = ".".join(str(part) for part in entry["loc"] if part != "[key]")
    message = _EXPECTED[kind].format(**context) if kind in _EXPECTED else entry["msg"]
    if kind == "extra_forbidden":
        near = nearest(str(entry["loc"][-1]), _KEYS)
        message = "unknown key" + (f"; did you mean {near!r}?" if near else "")
    shown = json.dumps(entry["input"], default=str)
    received = "" if kind in _NO_VALUE or "[key]" in entry["loc"] or len(shown) > 60 else f", received {shown}"
    return f"{where}: {message}{received}"


_SECTIONS: tuple[type[BaseModel], ...] = (
    *(AimetConfig, Defaults, OpDefaults, ParamSettings, OpSettings, Constraints),
    *(Kernel, Precision, Supergroup, ModelInput, ModelOutput),
)
_KEYS = frozenset(name for section in _SECTIONS for name in section.model_fields)
