"""Reading a TFMOT model: its layers out of their wrappers, its weights, and the ranges that the wrappers hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from tfqat.errors import TfqatError
from tfqat.models.keras2.layers import keras3_layer, keras3_name
from tfqat.models.keras2.model import Keras2Model
from tfqat.models.keras2.wiring import Call, Wiring, entry_name, wire, wiring_of
from tfqat.models.tfmot.kept import kept_tfmot
from tfqat.models.tfmot.model import KernelRange, TensorRange, Tfmot
from tfqat.models.tfmot.parts import Parts
from tfqat.models.tfmot.wrappers import PRE, QUANTIZE_LAYER, Wrapped, unwrap
from tfqat.view.view import view

# Quantizer class -> the range that it starts with.
_STARTS = {"AllValuesQuantizer": (0.0, 0.0), "MovingAverageQuantizer": (-6.0, 6.0), "LastValueQuantizer": (-6.0, 6.0)}
_ACTIVATIONS_START, _KERNELS_START = _STARTS["MovingAverageQuantizer"], _STARTS["LastValueQuantizer"]
# Quantized attribute -> which weighted part of its layer the kernel is.
_PARTS = {"kernel": 0, "depthwise_kernel": 0, "pointwise_kernel": 1}
_HAS_KERNEL = "a Dense layer, a Conv2D, DepthwiseConv2D, SeparableConv2D or Conv2DTranspose"


def read_tfmot(model_or_path: Any) -> Tfmot:
    """The model in an `.h5` file that TFMOT's quantized model was saved to, or such a live tf_keras model.

    Raises:
        TfqatError: another kind of file or model, nothing quantized, a layer or a wrapper that cannot be read, weights
            that are missing; the message names layer and class.
    """
    kept = kept_tfmot(model_or_path)
    try:
        return _Reader(kept).read()
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise TfqatError(
            f"{kept.source}: its config is not as TFMOT 0.8 writes it ({type(error).__name__}: {error}); it is "
            "damaged, or of another version."
        ) from error


class _Reader:
    """The state of one reading: the entries of the config, and the layers made from them."""

    def __init__(self, kept: Keras2Model) -> None:
        self.kept = kept
        self.entries = {str(entry.get("name", entry["config"].get("name"))): entry for entry in kept.config["layers"]}
        self.rounders = {
            name for name, entry in self.entries.items() if entry["class_name"].split(">")[-1] == QUANTIZE_LAYER
        }
        self.wrapped = {name: unwrap(entry) for name, entry in self.entries.items() if name not in self.rounders}
        self.layers: dict[str, Any] = {}

    def read(self) -> Tfmot:
        if not self.rounders and not any(layer.kernels or layer.places for layer in self.wrapped.values()):
            raise TfqatError(
                f"{self.kept.source} has no layer quantized by TFMOT; expected what "
                "tfmot.quantization.keras.quantize_model returned. A float model is prepared by tfqat.prepare."
            )
        _check_flat(self.kept.config)
        wiring = wiring_of(self.kept.class_name, self.kept.config)
        model = wire(wiring, self._apply)
        for name, layer in self.layers.items():
            self._set_weights(name, layer)
        parts = Parts(view(model), self.layers)
        return Tfmot(self.kept.source, model, self._activations(parts, wiring), dict(self._kernels(parts)))

    def _apply(self, call: Call, first: Any, arguments: dict[str, Any]) -> Any:
        """What the call gives; a QuantizeLayer gives what it reads."""
        if call.first is None:
            return self._layer(call.layer)
        if call.layer in self.rounders:
            return first[0] if isinstance(first, list) else first
        others = {key: value for key, value in arguments.items() if key != "training"}
        if others:
            raise TfqatError(
                f"Layer {call.layer!r} is called with {others}; expected no arguments besides tensors and training."
            )
        return self._layer(call.layer)(first, **arguments)

    def _layer(self, name: str) -> Any:
        """The layer, made on its first call; the tensor of an input."""
        if name not in self.layers:
            wrapped = self.wrapped[name]
            free = _free_name(keras3_name(wrapped.layer_name), {layer.name for layer in self.layers.values()})
            self.layers[name] = _made(wrapped, free)
        return self.layers[name]

    def _set_weights(self, name: str, layer: Any) -> None:
        found = self._own_weights(name)
        for variable in getattr(layer, "weights", ()):
            value = _take(found, variable.name)
            if value is None or tuple(value.shape) != tuple(variable.shape):
                what = "missing" if value is None else f"of shape {tuple(value.shape)}"
                raise TfqatError(
                    f"{self.kept.source}: layer {name!r} ({type(layer).__name__}): weight {variable.name!r} is {what}; "
                    f"expected shape {tuple(variable.shape)}, found the weights {self._listed(name)}."
                )
            variable.assign(value)
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()

    def _own_weights(self, name: str) -> list[tuple[str, np.ndarray]]:
        """The weights of the layer itself, without the wrapper's."""
        wrapped = self.wrapped[name]
        ranges = {f"{key}_{end}" for key in (*wrapped.kernels, *wrapped.places) for end in ("min", "max")}
        wrappers = {"optimizer_step", *ranges}
        return [(own, value) for own, value in self.kept.weights.get((name,), ()) if own not in wrappers]

    def _kernels(self, parts: Parts) -> Iterator[tuple[str, KernelRange]]:
        for name, wrapped in self.wrapped.items():
            for attribute in wrapped.kernels:
                ops = parts.weighted(name)
                if _PARTS.get(attribute, len(ops)) >= len(ops):
                    raise TfqatError(
                        f"Layer {name!r} ({wrapped.class_name}): its {attribute!r} is quantized; expected the "
                        f"kernel of {_HAS_KERNEL}."
                    )
                found = self._kernel_range(name, attribute, wrapped.kernel_bits)
                yield from ((op.name, found) for op in ops[_PARTS[attribute]])

    def _kernel_range(self, name: str, attribute: str, bits: int) -> KernelRange:
        low, high = self._bounds(name, attribute)
        if not np.array_equal(low, -high):
            raise TfqatError(f"Layer {name!r}: the range of its {attribute!r} is not symmetric, from {low} to {high}.")
        return KernelRange(high, bits, not (high == _KERNELS_START[1]).all())

    def _activations(self, parts: Parts, wiring: Wiring) -> dict[str, TensorRange]:
        found: dict[str, TensorRange] = {}
        owners: dict[str, str] = {}
        for name, tensor, bounds in (*self._rounded(parts, wiring), *self._around(parts)):
            if tensor in found:
                raise TfqatError(
                    f"Layers {owners[tensor]!r} and {name!r} both quantize the tensor {tensor!r}; expected one "
                    "quantizer for each tensor."
                )
            found[tensor], owners[tensor] = bounds, name
        return found

    def _rounded(self, parts: Parts, wiring: Wiring) -> Iterator[tuple[str, str, TensorRange]]:
        """What QuantizeLayers hold: ranges of the tensors that they read."""
        for call in wiring.calls:
            quantizer = self.entries[call.layer]["config"].get("quantizer") if call.layer in self.rounders else None
            if quantizer is None:
                continue
            others = [reader.layer for reader in wiring.calls if call.reads[0] in reader.reads and reader is not call]
            if others:
                raise TfqatError(
                    f"QuantizeLayer {call.layer!r} quantizes what {others[0]!r} reads unquantized; expected all "
                    "readers of a tensor to read it quantized."
                )
            yield call.layer, self._read_by(call, parts), self._quantizer_range(call.layer, quantizer)

    def _read_by(self, call: Call, parts: Parts) -> str:
        name, number, index = call.reads[0]
        if name in self.rounders or index:
            raise TfqatError(
                f"QuantizeLayer {call.layer!r} quantizes what {name!r} gives; expected a layer's only output."
            )
        return parts.outputs(name)[number]

    def _quantizer_range(self, name: str, quantizer: Mapping[str, Any]) -> TensorRange:
        class_name, config = quantizer["class_name"].split(">")[-1], quantizer["config"]
        if class_name == "FixedQuantizer":
            return TensorRange(float(config["init_min"]), float(config["init_max"]), 8, bool(config["narrow_range"]))
        if class_name not in _STARTS or config["per_axis"]:
            raise TfqatError(
                f"QuantizeLayer {name!r} has a {class_name}{' per axis' * (class_name in _STARTS)}; expected one range "
                f"for the tensor, kept by one of {', '.join(_STARTS)}, FixedQuantizer."
            )
        bounds = self._bounds(name, None)
        return _tensor_range(*bounds, config["num_bits"], bool(config["narrow_range"]), _STARTS[class_name])

    def _around(self, parts: Parts) -> Iterator[tuple[str, str, TensorRange]]:
        """What wrappers hold: ranges around activations and of outputs."""
        for name, wrapped in self.wrapped.items():
            for place in wrapped.places:
                found = self._place_range(name, wrapped, place)
                tensors = parts.before_activation(name) if place == PRE else parts.outputs(name)
                yield from ((name, tensor, found) for tensor in tensors)

    def _place_range(self, name: str, wrapped: Wrapped, place: str) -> TensorRange:
        if wrapped.fixed:
            return TensorRange(*wrapped.fixed, wrapped.bits, wrapped.narrow)
        return _tensor_range(*self._bounds(name, place), wrapped.bits, wrapped.narrow, _ACTIVATIONS_START)

    def _bounds(self, name: str, key: str | None) -> tuple[np.ndarray, np.ndarray]:
        """The weights ``<key>_min`` and ``<key>_max`` of a layer; without a key, those that end so."""
        low, high = (self._bound(name, key, end) for end in ("min", "max"))
        if low is None or high is None:
            raise TfqatError(
                f"{self.kept.source}: layer {name!r} has no weights {key or name}_min and {key or name}_max; found "
                f"{self._listed(name)}. Save the whole quantized model, after training: model.save('model.h5')."
            )
        if not (np.isfinite(low).all() and np.isfinite(high).all()) or (low > high).any():
            raise TfqatError(f"{self.kept.source}: layer {name!r} has a range {key or ''} from {low} to {high}.")
        return low, high

    def _bound(self, name: str, key: str | None, end: str) -> np.ndarray | None:
        for own, value in self.kept.weights.get((name,), ()):
            if own == f"{key}_{end}" or (key is None and own.endswith(f"_{end}")):
                return np.asarray(value, np.float32)
        return None

    def _listed(self, name: str) -> str:
        return ", ".join(own for own, _ in self.kept.weights.get((name,), ())) or "none"


def _check_flat(config: Mapping[str, Any]) -> None:
    for entry in config["layers"]:
        if "layers" in entry["config"]:
            raise TfqatError(
                f"Layer {entry_name(entry)!r} ({entry['class_name']}) is a model inside the model, which TFMOT does "
                "not quantize. Give the quantized model itself, or build the model of its layers (call them one by "
                "one) before quantizing it."
            )


def _made(wrapped: Wrapped, name: str) -> Any:
    config = wrapped.config
    if wrapped.class_name != "InputLayer":
        return keras3_layer(wrapped.class_name, config, name)
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    if shape is None:
        raise TfqatError(f"Input {name!r} has no shape; expected batch_input_shape in its config.")
    return keras.Input(batch_shape=tuple(shape), dtype=config.get("dtype"), name=name)


def _free_name(wanted: str, used: set[str]) -> str:
    name, number = wanted, 1
    while name in used:
        name, number = f"{wanted}_{number}", number + 1
    return name


def _take(found: list[tuple[str, np.ndarray]], name: str) -> np.ndarray | None:
    """Takes the first weight of that name out of the list; Keras 2 puts ``depthwise_`` before some."""
    for index, (own, _) in enumerate(found):
        if own in (name, f"depthwise_{name}"):
            return found.pop(index)[1]
    return None


def _tensor_range(low: Any, high: Any, bits: int, narrow: bool, start: tuple[float, float]) -> TensorRange:
    bounds = float(low), float(high)
    return TensorRange(min(bounds[0], 0.0), max(bounds[1], 0.0), bits, narrow, bounds != start)
