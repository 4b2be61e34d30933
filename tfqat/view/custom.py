"""Custom: which layers are Keras' own, which are looked into, and ``quantizable``, by which a user asks for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import keras

from tfqat.errors import TfqatError
from tfqat.view.time_distributed import is_repeated

T = TypeVar("T", bound=Callable[..., Any])

_MARK = "_tfqat_quantizable"
# Keras' own layers that are made of other layers and operations.
_STOCK_COMPOSITES = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)
# Layers that the models of keras.applications bring with them: they compute with a weight, as any user's.
_HELPERS = {
    ("keras.src.applications.convnext", "LayerScale"),
    ("keras.src.applications.inception_resnet_v2", "CustomScaleLayer"),
}
# What a subclass may have of its own and still compute what the class above it computes.
_HARMLESS = frozenset(
    "__init__ __module__ __qualname__ __doc__ __firstlineno__ __static_attributes__ __annotations__ __dict__ "
    "__weakref__ __repr__ __str__ get_config from_config".split()
)


def quantizable(target: T) -> T:
    """Asks tfqat to look inside a custom layer, or inside the function of a Lambda, and quantize what it finds.

    Decorate the class, or the function:

        @tfqat.quantizable
        class Projection(keras.layers.Layer):
            def build(self, shape):
                self.kernel = self.add_weight(shape=(shape[-1], 8))
                self.bias = self.add_weight(shape=(8,), initializer="zeros")

            def call(self, inputs):
                return keras.ops.relu(keras.ops.matmul(inputs, self.kernel) + self.bias)

    ``call`` is run once on symbolic tensors, so it must be made of Keras layers and ``keras.ops``. Then:

    - Weights: a variable of the layer that is the kernel of ``keras.ops.matmul``, ``dot``, ``tensordot``, ``einsum``,
      ``conv``, ``depthwise_conv`` or ``conv_transpose`` is quantized as the kernel of Dense, EinsumDense, Conv,
      DepthwiseConv or ConvTranspose is, per output channel where the target does that: for Dense and Conv the last
      axis of the kernel, for ConvTranspose the last but one, for DepthwiseConv the last two merged. A variable that
      is added right behind, one number a channel, is the bias. Other variables (``x * self.gamma``,
      ``x + self.table``) stay float.
    - Inputs: the tensor that the kernel is applied to is quantized, per tensor, and so is whatever other op inside
      the target runs in INT8 (add, concatenate, pooling), as it would be outside of the layer.
    - Not possible: a kernel that is computed from variables by more than transposing and reshaping (normalized,
      masked, or used twice) is a tensor like any other: its product is quantized as one of two tensors, or stays
      float with the reason. ``keras.ops.separable_conv`` stays float.

    The prepared model holds the layers found, not the class: it loads without it.

    Raises:
        TfqatError: the target is no layer class and no function. When a model is prepared: ``call`` does not run on
            symbolic tensors (the message has its file and line), or does not compute the same by what was found.
    """
    is_layer = inspect.isclass(target) and issubclass(target, keras.layers.Layer)
    if not is_layer and not inspect.isfunction(target):
        raise TfqatError(
            f"tfqat.quantizable decorates a subclass of keras.layers.Layer or the function of a Lambda, received "
            f"{target!r}."
        )
    setattr(target, _MARK, True)
    return target


def is_registered(operation: Any) -> bool:
    """Whether its user asked to look inside."""
    if isinstance(operation, keras.layers.Lambda):
        return getattr(operation.function, _MARK, False)
    return isinstance(operation, keras.layers.Layer) and getattr(type(operation), _MARK, False)


def is_own(cls: type) -> bool:
    """Whether a class is Keras' or tfqat's, whose names say what they compute."""
    return cls.__module__.split(".")[0] in ("keras", "tfqat")


def stock_class(operation: Any) -> type:
    """The class that says what an operation computes: its own, or Keras' where a subclass changes nothing."""
    cls = type(operation)
    for base in cls.__mro__:
        if is_own(base):
            return base
        if not _HARMLESS.issuperset(name for name in vars(base) if name != _MARK):
            return cls
    return cls


def is_helper(operation: Any) -> bool:
    """Whether it is a layer that a model of keras.applications defines for itself."""
    return (type(operation).__module__, type(operation).__name__) in _HELPERS


def is_composite(operation: Any) -> bool:
    """Whether the operation is a layer to look inside of."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    if type(operation) in _STOCK_COMPOSITES or is_repeated(operation) or is_helper(operation):
        return True
    if is_registered(operation):
        return True
    if is_own(stock_class(operation)):
        return stock_class(operation) in _STOCK_COMPOSITES
    return any(layer.weights for layer in operation._flatten_layers(include_self=False))


def needs_proof(operation: Any) -> bool:
    """Whether a trace of it must be compared with the layer: all but Keras' own."""
    return not is_own(stock_class(operation)) or isinstance(operation, keras.layers.Lambda)


def why_whole(operation: Any) -> str:
    """Why an operation that is not Keras' own stays a float island; empty for Keras' own."""
    if isinstance(operation, keras.layers.Lambda):
        return "Lambda: a function that tfqat looks into only where it is decorated with @tfqat.quantizable"
    if is_own(stock_class(operation)):
        return ""
    name = type(operation).__name__
    if isinstance(operation, keras.layers.Layer):
        return f"custom layer {name}: tfqat looks into it only where the class is decorated with @tfqat.quantizable"
    return f"custom operation {name}: tfqat does not know what it computes"
