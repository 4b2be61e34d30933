"""Wrapped: one layer of a TFMOT model taken out of its wrapper, and which ranges the wrapper holds for it.

What TFMOT 0.8 quantizes, from its ``quantize_wrapper``, ``quantize_aware_activation``, ``default_8bit`` and
``experimental/default_n_bit``: a kernel by ``<attribute>_min/max``; a fused activation before it (``pre_activation``)
or after it (``post_activation``); the layer's output (``output``). All symmetric and narrow for kernels, asymmetric for
activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tfqat.errors import TfqatError

WRAPPERS = frozenset({"QuantizeWrapper", "QuantizeWrapperV2"})
QUANTIZE_LAYER = "QuantizeLayer"
# Class names that tell a TFMOT model from others.
MARKS = (*WRAPPERS, QUANTIZE_LAYER, "QuantizeAnnotate")
PRE, POST, OUTPUT = "pre_activation", "post_activation", "output"
# Fused activation -> the ranges around it (QuantizeAwareActivation).
_AROUND: Mapping[str, tuple[str, ...]] = {
    "linear": (POST,),
    "relu": (POST,),
    "swish": (POST,),
    "silu": (POST,),
    "gelu": (PRE, POST),
    "softmax": (PRE,),
    "sigmoid": (PRE,),
    "tanh": (PRE,),
    "NoOpActivation": (),
}
# Activation layers whose output is quantized.
_ROUNDED_ACTIVATIONS = frozenset({"relu", "relu6", "swish", "silu", "gelu"})
_SCHEMES = ("Default8Bit", "DefaultNBit")
_OF_LAYERS = frozenset({"QuantizeConfig", "ConvQuantizeConfig", "ConvTransposeQuantizeConfig"})
_OF_ACTIVATIONS, _OF_OUTPUTS, _OF_NOTHING = "ActivationQuantizeConfig", "OutputQuantizeConfig", "NoOpQuantizeConfig"
# Wrappers of other tools, and what to do about them.
_OTHER_WRAPPERS = {
    "QuantizeAnnotate": "only marked for quantization: call tfmot.quantization.keras.quantize_apply, and train",
    "PruneLowMagnitude": "wrapped for pruning: call tfmot.sparsity.keras.strip_pruning before quantizing",
    "ClusterWeights": "wrapped for clustering: call tfmot.clustering.keras.strip_clustering before quantizing",
}


@dataclass(frozen=True)
class Wrapped:
    """One layer, unwrapped.

    Attributes:
        name: of the entry in the TFMOT model, under which its weights are kept.
        class_name, config: of the layer itself, its activation a plain name.
        kernels: attributes of quantized kernels.
        places: which activation ranges there are.
        kernel_bits, bits: of kernels and activations.
        narrow: whether activations leave out the lowest integer.
        fixed: real range (low, high) that is prescribed for the activations; None where it is learned.
    """

    name: str
    class_name: str
    config: Mapping[str, Any]
    kernels: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    kernel_bits: int = 8
    bits: int = 8
    narrow: bool = False
    fixed: tuple[float, float] | None = None

    @property
    def layer_name(self) -> str:
        """The name of the layer itself."""
        return str(self.config.get("name", self.name))


def unwrap(entry: Mapping[str, Any]) -> Wrapped:
    """The layer of one entry of a model's config; an entry without a wrapper has no ranges.

    Raises:
        TfqatError: another wrapper, a QuantizeConfig or an activation that is not TFMOT's own.
    """
    class_name, config = entry["class_name"], entry["config"]
    name = entry.get("name", config.get("name", class_name))
    known = class_name.split(">")[-1]
    if known in _OTHER_WRAPPERS:
        raise TfqatError(f"Layer {name!r} ({class_name}) is {_OTHER_WRAPPERS[known]}.")
    if known not in WRAPPERS:
        return _plain(Wrapped(name, class_name, config))
    inner = config["layer"]
    if inner["class_name"].split(">")[-1] in _OTHER_WRAPPERS:
        return unwrap({**inner, "name": name})
    wrapped = Wrapped(name, inner["class_name"], inner["config"])
    return _plain(_with_ranges(wrapped, config["quantize_config"]))


def _plain(wrapped: Wrapped) -> Wrapped:
    """With the activation as a plain name, where it is one of TFMOT's."""
    if "activation" not in wrapped.config:
        return wrapped
    name = _activation(wrapped)
    return replace(wrapped, config={**wrapped.config, "activation": "linear" if name == "NoOpActivation" else name})


def _with_ranges(wrapped: Wrapped, given: Mapping[str, Any]) -> Wrapped:
    class_name, config = given["class_name"].split(">")[-1], given.get("config") or {}
    if class_name == "OutputOnlyConfig":
        return replace(_with_ranges(wrapped, config["quantize_config"]), kernels=())
    if class_name == "FixedQuantizeConfig":
        fixed = (float(config["init_min"]), float(config["init_max"]))
        inner = _with_ranges(wrapped, config["config"])
        # Its quantizer passes num_bits on to nobody (FixedQuantize): it is always 8.
        return replace(inner, fixed=fixed, bits=8, narrow=bool(config["narrow_range"]))
    if class_name == _OF_NOTHING:
        return wrapped
    kind = _kind_of(class_name, wrapped)
    bits, kernel_bits = config.get("num_bits_activation", 8), config.get("num_bits_weight", 8)
    kernels, places = _held(kind, config, wrapped)
    return replace(wrapped, kernels=kernels, places=places, bits=bits, kernel_bits=kernel_bits)


def _kind_of(class_name: str, wrapped: Wrapped) -> str:
    for scheme in _SCHEMES:
        kind = class_name.removeprefix(scheme)
        if kind != class_name and kind in (*_OF_LAYERS, _OF_ACTIVATIONS, _OF_OUTPUTS):
            return kind
    raise TfqatError(
        f"Layer {wrapped.name!r} ({wrapped.class_name}) is quantized by a {class_name}, which is none of TFMOT's "
        "default schemes (8 bits, n bits); its ranges cannot be read. Quantize the layer by the default scheme."
    )


def _held(kind: str, config: Mapping[str, Any], wrapped: Wrapped) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The kernels and the places that a QuantizeConfig gives ranges to."""
    output = (OUTPUT,) if config.get("quantize_output", True) else ()
    if kind == _OF_OUTPUTS:
        return (), output
    if kind == _OF_ACTIVATIONS:
        return (), output if _activation(wrapped) in _ROUNDED_ACTIVATIONS else ()
    attributes = tuple(config["activation_attrs"])
    if attributes not in ((), ("activation",)):
        raise TfqatError(f"Layer {wrapped.name!r}: quantized activations {attributes}; expected 'activation' alone.")
    around = _around(wrapped) if attributes else ()
    return tuple(config["weight_attrs"]), (*around, *output)


def _around(wrapped: Wrapped) -> tuple[str, ...]:
    name = _activation(wrapped)
    if name not in _AROUND:
        raise TfqatError(
            f"Layer {wrapped.name!r} ({wrapped.class_name}) has the activation {name!r} inside TFMOT's quantization; "
            f"expected one of {', '.join(_AROUND)}."
        )
    return _AROUND[name]


def _activation(wrapped: Wrapped) -> Any:
    """The activation's name; what TFMOT has put around it is taken off."""
    activation = wrapped.config.get("activation")
    while isinstance(activation, Mapping):
        kind = activation.get("class_name")
        if kind == "NoOpActivation":
            return kind
        if kind != "QuantizeAwareActivation":
            raise TfqatError(
                f"Layer {wrapped.name!r} ({wrapped.class_name}) has a custom activation "
                f"{activation.get('config') or kind!r}; expected a stock one."
            )
        activation = activation["config"]["activation"]
    return "linear" if activation is None else activation
