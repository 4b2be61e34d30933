"""AIMET encodings: scales and offsets as JSON in names of a float ONNX, for Qualcomm's tools.

Source: AIMET documentation, "Encoding Format Specification". In versions 0.6.1 and 1.0.0 ``real = scale * (q +
offset)`` with ``q`` unsigned and ``offset <= 0``, so symmetric int8 has offset -128; 2.0.0 is ONNX' QuantizeLinear:
``real = y_scale * (q - y_zero_point)`` with ``q`` of ``output_dtype``. A channel axis is that of the ONNX initializer;
0.6.1 and 1.0.0 leave it out, since it is that of the output channels. Biases are not quantized.

What the model was never rounded with in training (Encodings of origin ``calibrated``) gets no entry. A symmetric int8
activation that leaves out its lowest integer is AIMET's strictly symmetric grid, of offset -127 and 254 steps, in 0.6.1
and 1.0.0; of a kernel the initializer says it.

A signed grid with a zero point looks like an unsigned one in 0.6.1 and 1.0.0; the key
``signed_asymmetric``, which other readers pass over, names such tensors, where there are any.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from tfqat.core.encoding import Encoding, Encodings
from tfqat.core.files import write_text
from tfqat.core.listing import some
from tfqat.core.scheme import Scheme
from tfqat.exporters import onnx_file
from tfqat.exporters.aimet_read import EXCLUDED, SIGNED, VERSIONS, AimetError, Read, is_aimet, parse, read
from tfqat.exporters.onnx_qdq import QdqError, check_axes, on_grid, trained, weights_of
from tfqat.exporters.onnx_tidy import tensor_names

if TYPE_CHECKING:
    from tfqat.exporters.exportable import Written
    from tfqat.exporters.options import Options

__all__ = [
    "EXCLUDED",
    "VERSIONS",
    "AimetError",
    "Read",
    "check",
    "check_version",
    "is_aimet",
    "not_held",
    "parse",
    "read",
    "render",
    "write",
]
DEFAULT_VERSION = "1.0.0"
FILE, MODEL = "model.encodings", "model.onnx"
_SCHEME = "post_training_tf"  # AIMET's word for ranges from the minimum to the maximum


def check(options: Options) -> None:
    """Refuses options before anything is computed.

    Raises:
        TfqatError: an unknown version of the format.
    """
    check_version(options.aimet_version)


def check_version(version: str) -> None:
    """Refuses a version of the format that cannot be written."""
    if version not in VERSIONS:
        raise AimetError(f"aimet_version must be one of {', '.join(VERSIONS)}, received {version!r}.")


def write(exportable: Any, folder: Path, options: Options) -> Written:
    """Writes ``model.onnx`` and ``model.encodings`` into ``folder``.

    Raises:
        TfqatError: what a file cannot hold.
    """
    from tfqat.exporters.exportable import Written

    told, model, version = exportable.told, exportable.onnx, options.aimet_version
    text = render(told, model, version)
    onnx_file.save(model, folder / MODEL)
    write_text(folder / FILE, text)
    reader = "Qualcomm's converters (qairt-converter --quantization_overrides) and AIMET"
    files = {
        "onnx": (MODEL, f"{reader}, with {FILE}"),
        "aimet": (FILE, f"{reader}; AIMET encodings {version}, beside {MODEL}"),
    }
    counts = f"{len(trained(told))} tensors and {len(told.weights)} kernels"
    floats = [f"  float: {node} ({reason})" for node, reason in told.float_ops.items()]
    unheld = not_held(told, version)
    lines = [f"  not held: {len(names)} {text}: {some(names)}" for text, names in unheld.items()]
    message = "\n".join([f"{FILE}: AIMET encodings {version} of {counts}.", *floats, *lines])
    report = {"tensors": exportable.renamed, **({"aimet_not_held": unheld} if unheld else {})}
    return Written(files, report, message, told)


def not_held(encodings: Encodings, version: str) -> dict[str, list[str]]:
    """What a file of ``version`` does not say of its tensors and kernels: text -> their names."""
    activations = trained(encodings)
    found = {
        "scales inside a fused block, or of what does not run in INT8, have no entry": [
            name for name in encodings.activations if name not in activations
        ],
        "activations use the lowest integer then": [
            name for name, e in activations.items() if e.scheme.narrow and (version == "2.0.0" or not _strict(e))
        ],
        "are called symmetric by their zero points alone": [
            name
            for name, e in (*activations.items(), *encodings.weights.items())
            if version == "2.0.0" and e.scheme.symmetric != (e.scheme.signed and not e.zero_point.any())
        ],
    }
    return {text: names for text, names in found.items() if names}


def _strict(encoding: Encoding) -> bool:
    """Whether AIMET calls the grid strictly symmetric."""
    return encoding.scheme.narrow and encoding.scheme.signed and encoding.scheme.symmetric


def render(encodings: Encodings, model: onnx.ModelProto | None, version: str = DEFAULT_VERSION) -> str:
    """The text of the file.

    Args:
        encodings: in names of ``model``.
        model: the float ONNX; None will do where no kernel is quantized.
        version: one of VERSIONS.

    Raises:
        AimetError: an unknown version, a kernel without a model, one that the model lacks, or one that has other
            channels or is not on its grid.
    """
    check_version(version)
    params = _params(encodings, model)
    encodings = replace(encodings, activations=trained(encodings))
    return json.dumps(_RENDERERS[version](encodings, params), indent=2) + "\n"


@dataclass(frozen=True)
class _Param:
    """One kernel: its initializer, the axis of its channels there, its Encoding."""

    name: str
    axis: int
    encoding: Encoding


def _params(encodings: Encodings, model: onnx.ModelProto | None) -> list[_Param]:
    if model is None:
        if encodings.weights:
            raise AimetError(
                f"AIMET encodings name kernels by their ONNX initializers: give the float ONNX, too (for "
                f"{some(encodings.weights)})."
            )
        return []
    weights, nodes = weights_of(model), {node.name: node for node in model.graph.node}
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    missing = [name for name in encodings.weights if name not in weights]
    missing += [name for name in encodings.activations if name not in set(tensor_names(model))]
    if missing:
        raise AimetError(f"{len(missing)} encoded tensors or kernels are not in the ONNX model: {some(missing)}.")
    found: dict[str, _Param] = {}
    for node, encoding in encodings.weights.items():
        weight = weights[node]
        kernel = numpy_helper.to_array(arrays[weight.initializer])
        try:
            check_axes(nodes[node], kernel.shape, encoding)
            on_grid(weight, kernel, encoding)
        except QdqError as error:
            raise AimetError(str(error)) from error
        found.setdefault(weight.initializer, _Param(weight.initializer, weight.axis, encoding))
    return list(found.values())


def _render_0_6_1(encodings: Encodings, params: list[_Param]) -> dict[str, Any]:
    return {
        "version": "0.6.1",
        "activation_encodings": {
            name: _rows_0_6_1(encoding, _strict(encoding)) for name, encoding in encodings.activations.items()
        },
        "param_encodings": {param.name: _rows_0_6_1(param.encoding, False) for param in params},
        "quantizer_args": {
            key: str(value) if isinstance(value, bool) else value
            for key, value in _quantizer_args(encodings, params).items()
        },
        **_signed_asymmetric(encodings, params),
    }


def _render_1_0_0(encodings: Encodings, params: list[_Param]) -> dict[str, Any]:
    return {
        "version": "1.0.0",
        "activation_encodings": [
            _row_1_0_0(name, encoding, _strict(encoding)) for name, encoding in encodings.activations.items()
        ],
        "param_encodings": [_row_1_0_0(param.name, param.encoding, False) for param in params],
        "quantizer_args": _quantizer_args(encodings, params),
        "excluded_layers": list(encodings.float_ops),
        **_signed_asymmetric(encodings, params),
    }


def _render_2_0_0(encodings: Encodings, params: list[_Param]) -> dict[str, Any]:
    rows = [_row_2_0_0(name, encoding, None) for name, encoding in encodings.activations.items()]
    rows += [_row_2_0_0(param.name, param.encoding, param.axis) for param in params]
    return {"version": "2.0.0", "encodings": rows}


_RENDERERS: Mapping[str, Callable[[Encodings, list[_Param]], dict[str, Any]]] = {
    "0.6.1": _render_0_6_1,
    "1.0.0": _render_1_0_0,
    "2.0.0": _render_2_0_0,
}


def _rows_0_6_1(encoding: Encoding, strict: bool) -> list[dict[str, Any]]:
    steps = 2**encoding.scheme.bits - 1 - strict
    return [
        {
            "bitwidth": encoding.scheme.bits,
            "dtype": "int",
            "is_symmetric": str(encoding.scheme.symmetric),
            "max": scale * (steps + offset),
            "min": scale * offset,
            "offset": offset,
            "scale": scale,
        }
        for scale, offset in zip(_scales(encoding), _offsets(encoding, strict), strict=True)
    ]


def _row_1_0_0(name: str, encoding: Encoding, strict: bool) -> dict[str, Any]:
    return {
        "name": name,
        "enc_type": "PER_CHANNEL" if encoding.scheme.per_channel else "PER_TENSOR",
        "dtype": "INT",
        "bw": encoding.scheme.bits,
        "is_sym": encoding.scheme.symmetric,
        "scale": _scales(encoding),
        "offset": _offsets(encoding, strict),
    }


def _row_2_0_0(name: str, encoding: Encoding, axis: int | None) -> dict[str, Any]:
    scheme = encoding.scheme
    row: dict[str, Any] = {
        "name": name,
        "output_dtype": f"{'' if scheme.signed else 'u'}int{scheme.bits}",
        "y_scale": encoding.scale.astype(float).tolist(),
    }
    if encoding.zero_point.any():
        row["y_zero_point"] = encoding.zero_point.tolist()
    if scheme.per_channel:
        row["axis"] = axis
    return row


def _scales(encoding: Encoding) -> list[float]:
    return np.atleast_1d(encoding.scale).astype(float).tolist()


def _offsets(encoding: Encoding, strict: bool) -> list[int]:
    """``-zero_point`` of the same grid with unsigned integers, which begin at the lowest in use where ``strict``."""
    shift = 2 ** (encoding.scheme.bits - 1) - strict if encoding.scheme.signed else 0
    return (-(np.atleast_1d(encoding.zero_point) + shift)).tolist()


def _quantizer_args(encodings: Encodings, params: list[_Param]) -> dict[str, Any]:
    kernels = [param.encoding.scheme for param in params]
    return {
        "activation_bitwidth": _usual_bits(encoding.scheme for encoding in encodings.activations.values()),
        "dtype": "int",
        "is_symmetric": all(scheme.symmetric for scheme in kernels),
        "param_bitwidth": _usual_bits(kernels),
        "per_channel_quantization": any(scheme.per_channel for scheme in kernels),
        "quant_scheme": _SCHEME,
    }


def _usual_bits(schemes: Iterable[Scheme]) -> int:
    counted = Counter(scheme.bits for scheme in schemes)
    return counted.most_common(1)[0][0] if counted else 8


def _signed_asymmetric(encodings: Encodings, params: list[_Param]) -> dict[str, list[str]]:
    rows = [*encodings.activations.items(), *((param.name, param.encoding) for param in params)]
    names = [name for name, encoding in rows if encoding.scheme.signed and not encoding.scheme.symmetric]
    return {SIGNED: names} if names else {}
