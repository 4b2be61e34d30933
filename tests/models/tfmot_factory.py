"""Small models quantized by TFMOT itself, each saved with what it computes.

Run as a program of its own, since importing TFMOT turns tf.keras into tf_keras for the whole process:
``python tfmot_factory.py FOLDER``. Each model gets ranges and BatchNorm statistics as training would leave them:
kernels that exceed their range, activations that exceed theirs, zero points that are no middle.
"""

import os
import sys
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras.experimental.default_n_bit import (
    default_n_bit_quantize_scheme,
)
from tf_keras import layers

QUANTIZE = tfmot.quantization.keras


def conv_block(x, channels, name, **options):
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=name, **options)(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def chain():
    """One of each layer that TFMOT quantizes, one after the other."""
    image = x = layers.Input((8, 8, 3), name="image")
    x = layers.ReLU(6.0, name="relu6")(conv_block(x, 4, "conv1"))
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu", name="wide")(x)
    x = layers.SeparableConv2D(4, 3, padding="same", activation="relu", name="separable")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2DTranspose(5, 2, strides=2, activation="relu", name="up_conv")(x)
    x = layers.ZeroPadding2D(name="pad")(x)
    x = layers.Conv2D(4, 3, name="plain")(x)
    x = layers.AveragePooling2D(name="average")(x)
    x = layers.UpSampling2D(name="nearest")(x)
    x = layers.UpSampling2D(interpolation="bilinear", name="bilinear")(x)
    x = layers.LeakyReLU(name="leaky")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dropout(0.1, name="dropout")(x)
    x = layers.Reshape((2, 2), name="reshape")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(6, activation="relu", name="hidden")(x)
    return tf_keras.Model(image, layers.Dense(3, activation="softmax", name="scores")(x), name="chain")


def sequential():
    return tf_keras.Sequential(
        [
            layers.Input((8, 8, 1), name="image"),
            layers.Conv2D(4, 3, activation="relu", kernel_regularizer=tf_keras.regularizers.L2(1e-4), name="conv1"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(6, 3, use_bias=False, name="conv2"),
            layers.BatchNormalization(name="bn"),
            layers.Activation("relu", name="relu"),
            layers.Flatten(name="flatten"),
            layers.Dense(8, use_bias=False, name="hidden"),
            layers.BatchNormalization(name="hidden_bn"),
            layers.ReLU(name="hidden_relu"),
            layers.Dense(3, name="logits"),
        ],
        name="sequential",
    )


def branches():
    """Residuals and concatenations, two inputs, two outputs."""
    image, other = layers.Input((8, 8, 3), name="image"), layers.Input((8, 8, 4), name="other")
    x = layers.ReLU(name="stem_relu")(conv_block(image, 4, "stem"))
    y = layers.Add(name="add")([x, conv_block(x, 4, "branch")])
    y = layers.ReLU(name="add_relu")(y)
    z = layers.Add(name="plain_add")([y, layers.Conv2D(4, 1, name="project")(other)])
    one = layers.ReLU(name="one_relu")(conv_block(z, 3, "one"))
    two = layers.ReLU(name="two_relu")(conv_block(z, 5, "two", strides=1))
    x = layers.Concatenate(name="join")([one, two, layers.Conv2D(2, 1, activation="relu", name="three")(z)])
    x = layers.Conv2D(4, 1, activation="relu", name="mix")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    first, second = layers.Dense(3, name="first")(x), layers.Dense(2, activation="sigmoid", name="second")(x)
    return tf_keras.Model([image, other], [first, second], name="branches")


def activations():
    """Fused activations of all kinds, and as layers."""
    image = x = layers.Input((6, 6, 2), name="image")
    for name in ("swish", "gelu", "tanh", "sigmoid"):
        x = layers.Conv2D(3, 3, padding="same", activation=name, name=f"conv_{name}")(x)
    x = layers.Activation("swish", name="swish")(conv_block(x, 4, "last"))
    x = layers.Flatten(name="flatten")(x)
    return tf_keras.Model(image, layers.Dense(3, name="logits")(x), name="activations")


def unbatched():
    """A convolution with a ReLU layer behind it and no BatchNorm: TFMOT leaves its kernel in float."""
    image = layers.Input((6, 6, 2), name="image")
    x = layers.ReLU(name="relu")(layers.Conv2D(4, 3, name="conv")(image))
    x = layers.Conv2D(4, 3, activation="relu", name="conv2")(x)
    return tf_keras.Model(image, layers.Dense(3, name="logits")(layers.Flatten(name="flatten")(x)), name="unbatched")


def shared():
    """A layer that is called twice."""
    one, two = layers.Input((6, 6, 2), name="one"), layers.Input((6, 6, 2), name="two")
    conv = layers.Conv2D(3, 3, activation="relu", name="conv")
    x = layers.Add(name="add")([conv(one), conv(two)])
    return tf_keras.Model([one, two], layers.Dense(3, name="logits")(layers.Flatten(name="flatten")(x)), name="shared")


def partial():
    """Only the convolutions marked for quantization."""
    mark = QUANTIZE.quantize_annotate_layer
    image = x = layers.Input((8, 8, 2), name="image")
    x = layers.Rescaling(1 / 4, name="rescale")(x)
    x = mark(layers.Conv2D(4, 3, activation="relu", name="conv1"))(x)
    x = mark(layers.Conv2D(4, 3, activation="relu", name="conv2"))(x)
    x = layers.ELU(name="elu")(x)
    x = layers.Flatten(name="flatten")(x)
    return tf_keras.Model(image, layers.Dense(3, name="logits")(x), name="partial")


def four_bits(model):
    with QUANTIZE.quantize_scope():
        return QUANTIZE.quantize_apply(
            QUANTIZE.quantize_annotate_model(model),
            default_n_bit_quantize_scheme.DefaultNBitQuantizeScheme(num_bits_weight=4, num_bits_activation=6),
        )


MODELS = {
    "chain": (chain, QUANTIZE.quantize_model),
    "sequential": (sequential, QUANTIZE.quantize_model),
    "branches": (branches, QUANTIZE.quantize_model),
    "activations": (activations, QUANTIZE.quantize_model),
    "unbatched": (unbatched, QUANTIZE.quantize_model),
    "prefix": (unbatched, lambda model: QUANTIZE.quantize_model(model, quantized_layer_name_prefix="q_")),
    "shared": (shared, QUANTIZE.quantize_model),
    "partial": (partial, QUANTIZE.quantize_apply),
    "four_bits": (sequential, four_bits),
    "untrained": (unbatched, QUANTIZE.quantize_model),
}


def train(model, seed):
    """Ranges, statistics and weights as training leaves them."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        for weight in layer.weights:
            name, value = weight.name.split("/")[-1].split(":")[0], weight.numpy()
            if name.endswith("kernel"):
                weight.assign(value * 1.5)
                high = [w for w in layer.weights if w.name.split("/")[-1].split(":")[0] == f"{name}_max"]
                for bound in high:
                    axes = tuple(range(value.ndim - 1)) if bound.shape.rank else None
                    # Of the step before the last: some weights have outgrown it.
                    bound.assign(np.abs(value * 1.5).max(axis=axes) * random.uniform(0.7, 1.0))
            elif name == "bias":
                weight.assign(random.normal(0, 0.1, value.shape))
            elif name in ("gamma", "moving_variance"):
                weight.assign(random.uniform(0.5, 1.5, value.shape))
            elif name in ("beta", "moving_mean"):
                weight.assign(random.normal(0, 0.2, value.shape))
        set_ranges(layer, random)


def set_ranges(layer, random):
    weights = {weight.name.split("/")[-1].split(":")[0]: weight for weight in layer.weights}
    for name, weight in weights.items():
        if name.endswith("kernel_min"):
            weight.assign(-weights[name.replace("_min", "_max")].numpy())
        elif name.endswith("_min"):
            weight.assign(-random.uniform(0.1, 2.0))
        elif name.endswith("_max") and not name.endswith("kernel_max"):
            weight.assign(random.uniform(0.5, 3.0))


def inputs_of(model, count=32):
    random = np.random.default_rng(7)
    return [random.normal(0.3, 1.0, (count, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]


def main(folder):
    for seed, (name, (build, quantize)) in enumerate(MODELS.items()):
        tf_keras.utils.set_random_seed(seed)
        model = quantize(build())
        if name != "untrained":
            train(model, seed)
        model.save(folder / f"{name}.h5")
        values = inputs_of(model)
        outputs = model.predict(values, verbose=0)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        named = {f"x{index}": value for index, value in enumerate(values)}
        np.savez(folder / f"{name}.npz", **named, **{f"y{index}": value for index, value in enumerate(outputs)})
    import_live(model, folder)


def import_live(model, folder):
    """The last model as it lives, imported in the process that has TFMOT in it."""
    import tfqat

    np.savez(folder / "live.npz", y=tfqat.from_tfmot(model).predict(inputs_of(model)[0], verbose=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
