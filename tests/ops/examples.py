"""Example: one use of one op of Keras, small and deterministic; the list of all of them.

The table of docs/ops.md and the random models are drawn from it, and a test fails for a layer or activation of Keras
that is in neither EXAMPLES nor LEFT_OUT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import activations, layers, ops

# Shape of a tensor without its batch: what an op is shown on.
SEQUENCE, IMAGE, VOLUME, VECTOR = (8, 4), (8, 8, 4), (4, 4, 4, 4), (8,)
TOKENS = 8  # how many different ones there are
# A tensor of any rank is shown as this.
ANY = IMAGE

Shape = tuple[int, ...]
Call = Callable[..., Any]  # tensors in; a tensor, or several, out


@dataclass(frozen=True)
class Example:
    """One use of one op.

    Attributes:
        name: what it is called in the table; its first word is the name in keras.layers, ``activations.NAME`` or
            ``ops.NAME``.
        section: under which heading.
        shapes: of each tensor that it reads, without the batch.
        make: gives what is to be called on the tensors: a new layer, or a function. Calling it twice shares weights.
        any_rank: whether it takes tensors of any rank from 2 on (``shapes`` is then one of them).
        needs: whether tensors of these shapes will do, beside their rank.
        first: whether it stands right behind a model input.
        dtype: of its inputs.
        random: whether random models draw it.
        onnx: whether a model with it can be exported; where not, export names the op.
    """

    name: str
    section: str
    shapes: tuple[Shape, ...]
    make: Callable[[], Call]
    any_rank: bool = False
    needs: Callable[..., bool] = lambda *shapes: True
    first: bool = False
    dtype: str = "float32"
    random: bool = True
    onnx: bool = True

    def fits(self, *shapes: Shape) -> bool:
        """Whether the op takes tensors of these shapes."""
        same_ranks = len(shapes) == len(self.shapes) and all(
            self.any_rank or len(shape) == len(own) for shape, own in zip(shapes, self.shapes, strict=True)
        )
        return same_ranks and self.needs(*shapes)


def _least(size: int) -> Callable[..., bool]:
    """Whether all axes but the channels are at least this long."""
    return lambda *shapes: all(min(shape[:-1], default=size) >= size for shape in shapes)


def _same(*shapes: Shape) -> bool:
    return len(set(shapes)) == 1


def _same_but_last(*shapes: Shape) -> bool:
    return len({shape[:-1] for shape in shapes}) == 1


def _even(shape: Shape) -> bool:
    return shape[-1] % 2 == 0


def _listed(layer: Call) -> Call:
    """A layer that takes its tensors as one list."""
    return lambda *tensors: layer(list(tensors))


def _steps(layer: Call) -> Call:
    """The layer behind a ReLU and a pooling, so that no convolution stands right before it."""
    return lambda x: layer(layers.MaxPooling2D(1)(x))


def _constant(*shape: int) -> np.ndarray:
    """Numbers that differ, for ops with a constant."""
    return np.linspace(-1, 1, int(np.prod(shape))).reshape(shape).astype("float32")


def _adapted(layer: Any, *shape: int) -> Any:
    """A layer that has seen data."""
    layer.adapt(np.random.default_rng(0).normal(1, 2, (32, *shape)).astype("float32"))
    return layer


def _rows(section: str, shape: Shape | None, rows: dict[str, Any], **common: Any) -> list[Example]:
    """One-tensor ops: name -> what makes its call, or (that, further fields)."""
    found = []
    for name, row in rows.items():
        make, own = row if isinstance(row, tuple) else (row, {})
        fields = {"any_rank": shape is None, **common, **own}
        found.append(Example(name, section, fields.pop("shapes", (shape or ANY,)), make, **fields))
    return found


CONVOLUTIONS = [
    *_rows("Convolutions", SEQUENCE, {
        "Conv1D": lambda: layers.Conv1D(4, 3, padding="same"),
        "Conv1D, strided": (lambda: layers.Conv1D(4, 3, strides=2), {"needs": _least(3)}),
        "Conv1D, causal and dilated": lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2),
        "Conv1D, grouped": (lambda: layers.Conv1D(4, 3, padding="same", groups=2), {"needs": _even}),
        "Conv1DTranspose": lambda: layers.Conv1DTranspose(3, 3, strides=2, padding="same"),
        "DepthwiseConv1D": lambda: layers.DepthwiseConv1D(3, padding="same", depth_multiplier=2),
        "SeparableConv1D": lambda: layers.SeparableConv1D(4, 3, padding="same"),
    }),
    *_rows("Convolutions", IMAGE, {
        "Conv2D": lambda: layers.Conv2D(4, 3, padding="same"),
        "Conv2D, with an activation": lambda: layers.Conv2D(4, 3, padding="same", activation="relu"),
        "Conv2D, strided": (lambda: layers.Conv2D(3, 3, strides=2), {"needs": _least(3)}),
        "Conv2D, strided and padded": lambda: layers.Conv2D(3, 3, strides=2, padding="same", use_bias=False),
        "Conv2D, dilated": lambda: layers.Conv2D(4, 3, padding="same", dilation_rate=2),
        "Conv2D, grouped": (lambda: layers.Conv2D(4, 3, padding="same", groups=2), {"needs": _even}),
        "Conv2DTranspose": lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
        "Conv2DTranspose, unpadded": lambda: layers.Conv2DTranspose(3, 2, strides=2),
        "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(3, padding="same"),
        "DepthwiseConv2D, multiplied": lambda: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
        "DepthwiseConv2D, dilated": lambda: layers.DepthwiseConv2D(3, padding="same", dilation_rate=2),
        "SeparableConv2D": lambda: layers.SeparableConv2D(4, 3, padding="same", activation="relu"),
        "SpectralNormalization of a Conv2D": lambda: layers.SpectralNormalization(layers.Conv2D(4, 3, padding="same")),
    }),
    *_rows("Convolutions", VOLUME, {
        "Conv3D": lambda: layers.Conv3D(4, 3, padding="same"),
        "Conv3D, strided": (lambda: layers.Conv3D(3, 2, strides=2), {"needs": _least(2)}),
        "Conv3DTranspose": lambda: layers.Conv3DTranspose(2, 2, strides=2, padding="same"),
        "TimeDistributed of a Conv2D": lambda: layers.TimeDistributed(layers.Conv2D(4, 3, padding="same")),
    }),
]  # fmt: skip

DENSE = [
    *_rows("Dense, embedding and attention", VECTOR, {
        "Dense": lambda: layers.Dense(8),
        "Dense, with an activation": lambda: layers.Dense(6, activation="gelu"),
    }),
    *_rows("Dense, embedding and attention", SEQUENCE, {
        "Dense on a sequence": lambda: layers.Dense(4),
        "TimeDistributed of a Dense": lambda: layers.TimeDistributed(layers.Dense(4)),
        "EinsumDense": lambda: layers.EinsumDense("...i,io->...o", 4, bias_axes="o"),
        "EinsumDense, into heads": (
            lambda: layers.EinsumDense("bsi,ihd->bshd", (8, 2, 3), bias_axes="hd"), {"needs": lambda s: s[0] == 8}),
        "EinsumDense, along the steps": (
            lambda: layers.EinsumDense("bsi,st->bti", (5, 4)), {"needs": lambda s: s[1] == 4}),
        "EinsumDense, an axis of all three": (
            lambda: layers.EinsumDense("bsi,sio->bso", (8, 4)), {"needs": lambda s: s[0] == 8}),
        "MultiHeadAttention": lambda: _to_itself(layers.MultiHeadAttention(2, 3)),
        "MultiHeadAttention, causal": lambda: _to_itself(layers.MultiHeadAttention(2, 3), use_causal_mask=True),
        "GroupQueryAttention": lambda: _to_itself(layers.GroupQueryAttention(3, 4, 2)),
        "Attention": lambda: _attends(layers.Attention(use_scale=True)),
        "AdditiveAttention": lambda: _attends(layers.AdditiveAttention()),
    }),
    Example("Dense on an image", "Dense, embedding and attention", (IMAGE,), lambda: layers.Dense(4)),
    Example("Dot", "Dense, embedding and attention", (SEQUENCE, SEQUENCE), lambda: _listed(layers.Dot(axes=2)),
            needs=lambda a, b: a[-1] == b[-1]),
    Example("MultiHeadAttention to another sequence", "Dense, embedding and attention", (SEQUENCE, SEQUENCE),
            lambda: layers.MultiHeadAttention(2, 3)),
    Example("ops.matmul", "Dense, embedding and attention", (SEQUENCE, SEQUENCE),
            lambda: lambda a, b: ops.matmul(a, ops.transpose(b, (0, 2, 1))), needs=lambda a, b: a[-1] == b[-1]),
    Example("ops.einsum", "Dense, embedding and attention", (SEQUENCE, SEQUENCE),
            lambda: lambda a, b: ops.einsum("bsc,btc->bst", a, b), needs=lambda a, b: a[-1] == b[-1]),
    Example("ops.dot_product_attention", "Dense, embedding and attention", ((8, 2, 4), (8, 2, 4)),
            lambda: lambda a, b: ops.dot_product_attention(a, b, b), needs=lambda a, b: a[1:] == b[1:]),
    Example("ops.matmul with a constant", "Dense, embedding and attention", (SEQUENCE,),
            lambda: lambda x: ops.matmul(x, _constant(x.shape[-1], 4))),
    Example("ops.tensordot with a constant", "Dense, embedding and attention", (SEQUENCE,),
            lambda: lambda x: ops.tensordot(x, _constant(x.shape[-1], 4), axes=1)),
    *_rows("Dense, embedding and attention", (TOKENS,), {
        "Embedding": lambda: layers.Embedding(TOKENS, 4),
        "ReversibleEmbedding": lambda: layers.ReversibleEmbedding(TOKENS, 4),
    }, first=True, dtype="int32"),
]  # fmt: skip


def _to_itself(layer: Call, **kwargs: Any) -> Call:
    return lambda x: layer(x, x, **kwargs)


def _attends(layer: Call) -> Call:
    return lambda x: layer([x, x])


NORMALIZATION = [
    *_rows("Normalization", IMAGE, {
        "BatchNormalization behind a convolution": lambda: layers.BatchNormalization(),
        "BatchNormalization elsewhere": lambda: _steps(layers.BatchNormalization()),
        "GroupNormalization": (lambda: layers.GroupNormalization(2), {"needs": _even}),
    }),
    *_rows("Normalization", None, {
        "LayerNormalization": lambda: layers.LayerNormalization(),
        "RMSNormalization": lambda: layers.RMSNormalization(),
        "UnitNormalization": lambda: layers.UnitNormalization(),
        "ops.normalize": lambda: lambda x: ops.normalize(x, axis=-1),
    }),
]  # fmt: skip

# Names in keras.activations that layers.Activation takes as they are.
_ACTIVATION_NAMES = (
    "relu relu6 leaky_relu elu selu celu sigmoid hard_sigmoid tanh hard_tanh silu hard_silu gelu softplus softsign "
    "mish exponential log_sigmoid tanh_shrink soft_shrink hard_shrink squareplus sparse_plus sparse_sigmoid softmax "
    "log_softmax sparsemax linear"
).split()
ACTIVATIONS = [
    *_rows("Activations", None, {
        f"activations.{name}": lambda name=name: layers.Activation(name) for name in _ACTIVATION_NAMES
    }),
    *_rows("Activations", None, {
        "activations.glu": (lambda: lambda x: activations.glu(x), {"needs": _even}),
        "activations.threshold": lambda: lambda x: activations.threshold(x, 0.5, 0.0),
        "Activation": (lambda: layers.Activation("relu"), {"random": False}),
        "ReLU": lambda: layers.ReLU(),
        "ReLU, up to 6": lambda: layers.ReLU(6),
        "ReLU, up to 1, with a slope": lambda: layers.ReLU(1.0, negative_slope=0.1),
        "LeakyReLU": lambda: layers.LeakyReLU(),
        "PReLU": lambda: layers.PReLU(),
        "ELU": lambda: layers.ELU(),
        "Softmax": lambda: layers.Softmax(),
        "ops.relu": lambda: ops.relu,
        "ops.silu": lambda: ops.silu,
        "ops.sigmoid": lambda: ops.sigmoid,
    }),
    Example("PReLU, a slope a channel", "Activations", (IMAGE,), lambda: layers.PReLU(shared_axes=[1, 2])),
    Example("Softmax, over the rows", "Activations", (IMAGE,), lambda: layers.Softmax(axis=1)),
]  # fmt: skip


def _pooling(rank: str, shape: Shape) -> dict[str, Any]:
    of = lambda name: getattr(layers, name + rank)  # noqa: E731
    ones = len(shape) - 1
    return {
        f"MaxPooling{rank}": (lambda: of("MaxPooling")(2), {"needs": _least(2)}),
        f"AveragePooling{rank}": (lambda: of("AveragePooling")(2), {"needs": _least(2)}),
        f"AveragePooling{rank}, padded": lambda: of("AveragePooling")(3, 2, padding="same"),
        f"GlobalMaxPooling{rank}": lambda: of("GlobalMaxPooling")(),
        f"GlobalAveragePooling{rank}": lambda: of("GlobalAveragePooling")(keepdims=ones == 2),
        f"AdaptiveMaxPooling{rank}": (lambda: of("AdaptiveMaxPooling")(2), {"needs": _least(2)}),
        f"AdaptiveAveragePooling{rank}": (lambda: of("AdaptiveAveragePooling")(2), {"needs": _least(2)}),
    }


POOLING = [
    *_rows("Pooling", SEQUENCE, _pooling("1D", SEQUENCE)),
    *_rows("Pooling", IMAGE, {
        **_pooling("2D", IMAGE),
        "MaxPooling2D, overlapping": lambda: layers.MaxPooling2D(3, 1, padding="same"),
        "ops.max_pool": (lambda: lambda x: ops.max_pool(x, 2), {"needs": _least(2)}),
        "ops.average_pool": (lambda: lambda x: ops.average_pool(x, 2), {"needs": _least(2)}),
    }),
    *_rows("Pooling", VOLUME, _pooling("3D", VOLUME)),
]  # fmt: skip

SHAPES = [
    *_rows("Shape", SEQUENCE, {
        "Permute": lambda: layers.Permute((2, 1)),
        "ZeroPadding1D": lambda: layers.ZeroPadding1D(1),
        "Cropping1D": (lambda: layers.Cropping1D(1), {"needs": _least(3)}),
        "UpSampling1D": lambda: layers.UpSampling1D(2),
        "ops.swapaxes": lambda: lambda x: ops.swapaxes(x, 1, 2),
    }),
    *_rows("Shape", IMAGE, {
        "Reshape": lambda: lambda x: layers.Reshape((-1, x.shape[-1]))(x),
        "ZeroPadding2D": lambda: layers.ZeroPadding2D(((1, 0), (0, 1))),
        "Cropping2D": (lambda: layers.Cropping2D(((1, 0), (0, 1))), {"needs": _least(2)}),
        "UpSampling2D": lambda: layers.UpSampling2D(2),
        "UpSampling2D, bilinear": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
        "ops.moveaxis": lambda: lambda x: ops.moveaxis(x, 1, 2),
        "ops.pad": lambda: lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))),
        "ops.pad with a constant": lambda: lambda x: ops.pad(
            x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=0.5),
        "ops.pad, reflecting": (lambda: lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), "reflect"),
                                {"needs": _least(2)}),
        "ops.rot90": (lambda: lambda x: ops.rot90(x, axes=(1, 2)), {}),
        "ops.space_to_depth": (lambda: lambda x: ops.space_to_depth(x, 2),
                               {"needs": lambda s: s[0] % 2 == s[1] % 2 == 0}),
        "ops.depth_to_space": (lambda: lambda x: ops.depth_to_space(x, 2), {"needs": lambda s: s[2] % 4 == 0}),
    }),
    *_rows("Shape", VOLUME, {
        "ZeroPadding3D": lambda: layers.ZeroPadding3D(1),
        "Cropping3D": (lambda: layers.Cropping3D(1), {"needs": _least(3)}),
        "UpSampling3D": lambda: layers.UpSampling3D(2),
    }),
    *_rows("Shape", VECTOR, {
        "RepeatVector": lambda: layers.RepeatVector(4),
    }),
    *_rows("Shape", None, {
        "Flatten": lambda: layers.Flatten(),
        "ops.reshape": lambda: lambda x: ops.reshape(x, (-1, int(np.prod(x.shape[1:])))),
        "ops.transpose": lambda: lambda x: ops.transpose(x, (0, *range(2, len(x.shape)), 1)),
        "ops.expand_dims and ops.squeeze": lambda: lambda x: ops.squeeze(ops.expand_dims(x, 1), 1),
        "x[:, 1:]": (lambda: lambda x: x[:, 1:], {"needs": lambda s: s[0] > 1}),
        "x[..., ::2]": (lambda: lambda x: x[..., ::2], {}),
        "x[:, 0]": (lambda: lambda x: x[:, 0], {"needs": lambda s: len(s) > 1}),
        "ops.split": (lambda: lambda x: ops.split(x, 2, axis=-1), {"needs": _even}),
        "ops.unstack": (lambda: lambda x: ops.unstack(x, axis=1)[:2], {"needs": lambda s: len(s) > 1 and 1 < s[0] < 9}),
        "ops.flip": lambda: lambda x: ops.flip(x, axis=1),
        "ops.roll": lambda: lambda x: ops.roll(x, 1, axis=1),
        "ops.repeat": lambda: lambda x: ops.repeat(x, 2, axis=-1),
        "ops.tile": lambda: lambda x: ops.tile(x, (1,) * (len(x.shape) - 1) + (2,)),
        "ops.take": (lambda: lambda x: ops.take(x, [0, 2, 1], axis=1), {"needs": lambda s: s[0] > 2}),
        "ops.slice": (lambda: lambda x: ops.slice(x, (0,) * len(x.shape), (1, 1, *x.shape[2:])), {"random": False}),
        "ops.ravel": (lambda: lambda x: ops.reshape(ops.ravel(x), (-1, *x.shape[1:])), {}),
        "ops.copy": lambda: ops.copy,
        "ops.stop_gradient": lambda: ops.stop_gradient,
    }),
    Example("Concatenate", "Shape", (IMAGE, IMAGE), lambda: _listed(layers.Concatenate()), True, _same_but_last),
    Example("Concatenate, of three", "Shape", (IMAGE,) * 3, lambda: _listed(layers.Concatenate(axis=1)), True,
            lambda *shapes: len({shape[1:] for shape in shapes}) == 1),
    Example("ops.concatenate", "Shape", (IMAGE, IMAGE), lambda: lambda *x: ops.concatenate(x, axis=-1), True,
            _same_but_last),
    Example("ops.stack", "Shape", (IMAGE, IMAGE), lambda: lambda *x: ops.stack(x, axis=1), True, _same),
]  # fmt: skip


def _merge(name: str, make: Callable[[], Call], count: int = 2, **fields: Any) -> Example:
    return Example(name, "Arithmetic", (IMAGE,) * count, make, True, _same, **fields)


# ops.NAME of two tensors; of those marked so also with a constant.
_BINARY = "add subtract multiply maximum minimum"
_UNARY = "abs negative square sign sin cos tanh exp expm1 floor ceil round erf"
ARITHMETIC = [
    *(
        _merge(name, lambda name=name: _listed(getattr(layers, name)()))
        for name in "Add Subtract Multiply Average Maximum Minimum".split()
    ),
    _merge("Add, of three", lambda: _listed(layers.Add()), 3),
    _merge("Average, of three", lambda: _listed(layers.Average()), 3),
    _merge("Multiply, of three", lambda: _listed(layers.Multiply()), 3),
    *(_merge(f"ops.{name}", lambda name=name: getattr(ops, name)) for name in _BINARY.split()),
    _merge("ops.divide", lambda: lambda a, b: a / (ops.abs(b) + 1.0)),
    _merge("ops.power", lambda: lambda a, b: ops.power(ops.abs(a) + 0.5, b), random=False),
    _merge("ops.where", lambda: lambda a, b: ops.where(a > b, a, b * 0.5)),
    _merge("ops.greater", lambda: lambda a, b: ops.cast(ops.greater(a, b), "float32")),
    _merge("ops.logaddexp", lambda: ops.logaddexp),
    Example("Multiply, by one value a channel", "Arithmetic", (IMAGE, (1, 1, 4)), lambda: _listed(layers.Multiply()),
            needs=lambda a, b: b == (1, 1, a[-1])),
    Example("Add, of one value a channel", "Arithmetic", (IMAGE, (1, 1, 4)), lambda: _listed(layers.Add()),
            needs=lambda a, b: b == (1, 1, a[-1])),
    *_rows("Arithmetic", None, {
        "ops.add of a number": lambda: lambda x: x + 0.7,
        "ops.add of a constant": lambda: lambda x: x + _constant(x.shape[-1]),
        "ops.subtract of a number": lambda: lambda x: x - 0.7,
        "ops.subtract from a number": lambda: lambda x: 0.7 - x,
        "ops.multiply by a number": lambda: lambda x: x * 1.7,
        "ops.multiply by a constant": lambda: lambda x: x * _constant(x.shape[-1]),
        "ops.divide by a number": lambda: lambda x: x / 3.0,
        "ops.divide, of a number": lambda: lambda x: 3.0 / (ops.abs(x) + 1.0),
        "ops.maximum with a number": lambda: lambda x: ops.maximum(x, 0.1),
        "ops.minimum with a number": lambda: lambda x: ops.minimum(x, 0.1),
        "ops.power of a number": lambda: lambda x: x**2,
        "ops.clip": lambda: lambda x: ops.clip(x, -0.5, 0.5),
        "ops.sqrt": lambda: lambda x: ops.sqrt(ops.abs(x)),
        "ops.rsqrt": lambda: lambda x: ops.rsqrt(ops.abs(x) + 1.0),
        "ops.log": lambda: lambda x: ops.log(ops.abs(x) + 1.0),
        "ops.reciprocal": lambda: lambda x: ops.reciprocal(ops.abs(x) + 1.0),
        "ops.mod": lambda: lambda x: ops.mod(x, 2.0),
        "ops.floor_divide": lambda: lambda x: ops.floor_divide(x, 0.5),
        "ops.cumsum": lambda: lambda x: ops.cumsum(x, axis=-1),
        "ops.cast": lambda: lambda x: ops.cast(x, "float32"),
        **{f"ops.{name}": lambda name=name: getattr(ops, name) for name in _UNARY.split()},
    }),
]  # fmt: skip

REDUCTIONS = [
    *_rows("Reductions", None, {
        "ops.mean": lambda: lambda x: ops.mean(x, axis=1, keepdims=True),
        "ops.mean over the channels": (lambda: lambda x: ops.mean(x, axis=-1), {"needs": lambda s: len(s) > 1}),
        "ops.sum": lambda: lambda x: ops.sum(x, axis=1, keepdims=True),
        "ops.max": lambda: lambda x: ops.max(x, axis=-1, keepdims=True),
        "ops.min": lambda: lambda x: ops.min(x, axis=-1, keepdims=True),
        "ops.prod": lambda: lambda x: ops.prod(x, axis=-1, keepdims=True),
        "ops.var": lambda: lambda x: ops.var(x, axis=-1, keepdims=True),
        "ops.std": (lambda: lambda x: ops.std(x, axis=-1, keepdims=True), {"random": False}),
        "ops.norm": lambda: lambda x: ops.norm(x, axis=-1, keepdims=True),
        "ops.logsumexp": lambda: lambda x: ops.logsumexp(x, axis=-1, keepdims=True),
        "ops.argmax": lambda: lambda x: ops.cast(ops.argmax(x, axis=-1, keepdims=True), "float32"),
        "ops.top_k": (lambda: lambda x: ops.top_k(x, 2)[0], {"needs": lambda s: s[-1] >= 2}),
    }),
]  # fmt: skip

# Augmentation layers, with what they must be given.
_AUGMENTATION: dict[str, tuple[Any, ...]] = {
    "RandomFlip": (), "RandomRotation": (0.1,), "RandomZoom": (0.1,), "RandomTranslation": (0.1, 0.1),
    "RandomContrast": (0.1,), "RandomBrightness": (0.1,), "RandomSaturation": (0.5,), "RandomHue": (0.1,),
    "RandomSharpness": (0.1,), "RandomGrayscale": (), "RandomInvert": (),
    "RandomPosterization": (4,), "RandomGaussianBlur": (), "RandomPerspective": (), "RandomElasticTransform": (),
    "RandomErasing": (), "RandomColorDegeneration": (0.1,), "RandomColorJitter": (), "AugMix": (), "RandAugment": (),
    "MixUp": (), "CutMix": (), "AutoContrast": (), "Solarization": (),
    "ContrastLimitedAdaptiveHistogramEqualization": (),
}  # fmt: skip
_PHOTO = (8, 8, 3)
PREPROCESSING = [
    *_rows("Preprocessing at the input", _PHOTO, {
        "Rescaling": lambda: layers.Rescaling(1 / 127.5, offset=-1.0),
        "Rescaling, a number a channel": lambda: layers.Rescaling([0.5, 1.0, 2.0], offset=[0.1, 0.0, -0.1]),
        "Normalization": lambda: _adapted(layers.Normalization(), *_PHOTO),
        "Resizing": lambda: layers.Resizing(6, 6),
        "Resizing, nearest": lambda: layers.Resizing(16, 16, interpolation="nearest"),
        "CenterCrop": lambda: layers.CenterCrop(6, 6),
        "RandomCrop": lambda: layers.RandomCrop(8, 8),
        **{name: lambda name=name, given=given: getattr(layers, name)(*given)
           for name, given in _AUGMENTATION.items()},
        "Pipeline": lambda: layers.Pipeline([layers.RandomFlip(), layers.Rescaling(1 / 255)]),
    }, first=True),
    *_rows("Preprocessing at the input", VECTOR, {
        "Discretization": lambda: lambda x: ops.cast(layers.Discretization([-0.5, 0.0, 0.5])(x), "float32"),
    }, first=True, onnx=False),
    *_rows("Preprocessing at the input", (256, 1), {
        "STFTSpectrogram": lambda: layers.STFTSpectrogram(frame_length=32, frame_step=16, fft_length=32),
    }, first=True, needs=lambda s: s[0] >= 64),
    *_rows("Preprocessing at the input", (256,), {
        "MelSpectrogram": lambda: layers.MelSpectrogram(
            fft_length=64, sequence_stride=32, sampling_rate=800, num_mel_bins=8, max_freq=300),
    }, first=True, onnx=False, needs=lambda s: s[0] >= 64),
    *_rows("Preprocessing at the input", (TOKENS,), {
        "CategoryEncoding": lambda: layers.CategoryEncoding(TOKENS, output_mode="multi_hot"),
        "IntegerLookup": (lambda: lambda x: layers.Embedding(TOKENS + 1, 4)(
            layers.IntegerLookup(vocabulary=list(range(TOKENS)))(x)), {"onnx": False}),
    }, first=True, dtype="int32"),
]  # fmt: skip

TRAINING = [
    *_rows("Training only", None, {
        "Dropout": lambda: layers.Dropout(0.2),
        "AlphaDropout": lambda: layers.AlphaDropout(0.2),
        "GaussianDropout": lambda: layers.GaussianDropout(0.2),
        "GaussianNoise": lambda: layers.GaussianNoise(0.2),
        "ActivityRegularization": lambda: layers.ActivityRegularization(0.01),
        "Identity": lambda: layers.Identity(),
    }),
    Example("SpatialDropout1D", "Training only", (SEQUENCE,), lambda: layers.SpatialDropout1D(0.2)),
    Example("SpatialDropout2D", "Training only", (IMAGE,), lambda: layers.SpatialDropout2D(0.2)),
    Example("SpatialDropout3D", "Training only", (VOLUME,), lambda: layers.SpatialDropout3D(0.2)),
]  # fmt: skip

RECURRENT = [
    *_rows("Recurrent", SEQUENCE, {
        "LSTM": lambda: layers.LSTM(4),
        "LSTM, all steps": lambda: layers.LSTM(4, return_sequences=True),
        "GRU": lambda: layers.GRU(4, return_sequences=True),
        "SimpleRNN": lambda: layers.SimpleRNN(4, return_sequences=True),
        "Bidirectional": lambda: layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        "RNN of cells": lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)]),
        "Masking": lambda: layers.Masking(),
    }),
    Example("ConvLSTM1D", "Recurrent", (IMAGE,), lambda: layers.ConvLSTM1D(3, 3, padding="same")),
    Example("ConvLSTM2D", "Recurrent", (VOLUME,), lambda: layers.ConvLSTM2D(3, 3, padding="same")),
    Example("ConvLSTM3D", "Recurrent", ((2, 4, 4, 4, 3),), lambda: layers.ConvLSTM3D(3, 2, padding="same"),
            random=False),
]  # fmt: skip


@keras.saving.register_keras_serializable("tests")
class Doubled(layers.Layer):
    """A custom layer without weights, of keras.ops."""

    def call(self, inputs: Any) -> Any:
        return inputs * 2.0


@keras.saving.register_keras_serializable("tests")
class Scaled(layers.Layer):
    """A custom layer with a weight."""

    def build(self, input_shape: Any) -> None:
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs: Any) -> Any:
        return inputs * self.gamma


@keras.saving.register_keras_serializable("tests")
class Gated(layers.Layer):
    """A custom layer made of Keras layers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate = layers.Dense(4, activation="sigmoid")
        self.value = layers.Dense(4)

    def build(self, input_shape: Any) -> None:
        self.gate.build(input_shape)
        self.value.build(input_shape)

    def call(self, inputs: Any) -> Any:
        return self.gate(inputs) * self.value(inputs)


OWN = [
    *_rows("Own code", None, {
        "Lambda": (lambda: layers.Lambda(lambda x: x * 2), {"random": False}),
        "A custom layer": lambda: Doubled(),
        "A custom layer with a weight": lambda: Scaled(),
        "A custom layer of Keras layers": lambda: Gated(),
    }),
]  # fmt: skip

EXAMPLES: tuple[Example, ...] = (
    *CONVOLUTIONS, *DENSE, *NORMALIZATION, *ACTIVATIONS, *POOLING, *SHAPES, *ARITHMETIC, *REDUCTIONS, *PREPROCESSING,
    *TRAINING, *RECURRENT, *OWN,
)  # fmt: skip

# Names in keras.layers and keras.activations that are no op of a model -> why.
LEFT_OUT: dict[str, str] = {
    **dict.fromkeys("Layer Wrapper".split(), "a base class"),
    **dict.fromkeys("InputLayer InputSpec".split(), "no op"),
    **dict.fromkeys("LSTMCell GRUCell SimpleRNNCell StackedRNNCells".split(), "one step of a recurrent layer"),
    **dict.fromkeys("FlaxLayer JaxLayer TorchModuleWrapper TFSMLayer".split(), "a program of another framework"),
    **dict.fromkeys("Hashing HashedCrossing StringLookup TextVectorization".split(), "strings, not tensors"),
    "RandomShear": "Keras cannot make it again from its own config, so it cannot be copied or loaded either",
    "Equalization": "Keras' own cannot stand in a functional model: its symbolic output is its input",
    "MaxNumBoundingBoxes": "takes bounding boxes, for the data pipeline",
    **dict.fromkeys("get serialize deserialize".split(), "no activation"),
    **dict.fromkeys("swish hard_swish".split(), "another name of silu, hard_silu"),
}
