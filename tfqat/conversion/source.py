"""Source: what the inputs of a conversion say together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from tfqat.core.encoding import Encodings
from tfqat.errors import TfqatError

ENCODINGS, CACHE, QDQ, AIMET = "encodings", "cache", "qdq_onnx", "aimet"
ONNX, PRECISIONS = "onnx", "layer_precisions"
TEXTS = {
    ENCODINGS: "encodings.json of tfqat",
    CACHE: "a TensorRT calibration cache",
    QDQ: "a Q/DQ ONNX",
    AIMET: "AIMET encodings",
    ONNX: "a float ONNX",
    PRECISIONS: "layer precisions",
}
# What each of the files that hold scales may stand beside.
COMPANIONS: Mapping[str, frozenset[str]] = {
    ENCODINGS: frozenset({ONNX}),
    CACHE: frozenset({ONNX, PRECISIONS}),
    QDQ: frozenset(),
    AIMET: frozenset({ONNX}),
}


class ConvertError(TfqatError):
    """Files that cannot be converted into what was asked for."""


@dataclass(frozen=True)
class Source:
    """What the inputs of a conversion say.

    Attributes:
        kind: which of the formats the scales come from.
        encodings: in names of ``model``, where there is one.
        model: the float ONNX.
        remade: whether ``model`` is not one of the inputs, so that it has to be written.
        notes: what the encodings do not hold of the inputs.
    """

    kind: str
    encodings: Encodings
    model: onnx.ModelProto | None = None
    remade: bool = False
    notes: tuple[str, ...] = ()
