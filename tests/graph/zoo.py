"""Small models, one for each way in which a graph can be built."""

import keras
import numpy as np
from keras import layers, ops


def conv_net():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1")(x)
    x = layers.BatchNormalization(name="bn1")(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x), name="conv_net")


def residual():
    x = inputs = keras.Input((8, 8, 4), name="image")
    x = short = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    x = layers.Conv2D(4, 3, padding="same", name="conv_a")(x)
    x = layers.BatchNormalization(name="bn_a")(x)
    x = layers.Add(name="join")([short, x])
    x = layers.ReLU(name="out_relu")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def two_branches():
    x = inputs = keras.Input((8, 8, 4), name="image")
    short = layers.Conv2D(6, 1, name="short")(x)
    x = layers.Conv2D(6, 3, padding="same", name="long_a", activation="relu")(x)
    x = layers.Conv2D(6, 3, padding="same", name="long_b")(x)
    x = layers.Add(name="join")([short, x])
    x = layers.ReLU(name="act")(x)
    return keras.Model(inputs, layers.Conv2D(2, 1, name="head")(x))


def concat():
    x = inputs = keras.Input((8, 8, 4), name="image")
    a = layers.Conv2D(2, 1, activation="relu", name="a")(x)
    b = layers.MaxPooling2D(3, 1, padding="same", name="b")(a)
    c = layers.Conv2D(2, 1, activation="relu", name="c")(x)
    x = layers.Concatenate(name="cat")([a, b, c])
    return keras.Model(inputs, layers.Conv2D(2, 1, name="head")(x))


def squeeze_excite():
    x = inputs = keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="swish", name="stem")(x)
    s = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    s = layers.Conv2D(4, 1, activation="sigmoid", name="excite")(s)
    x = layers.Multiply(name="scale")([x, s])
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D(name="pool")(x)))


def nested():
    inner_in = keras.Input((8, 8, 4))
    inner = keras.Model(inner_in, layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(inner_in))
    block = keras.Sequential([keras.Input((8, 8, 4)), inner, layers.ReLU(name="act")], name="block")
    inner.name = "inner"
    x = inputs = keras.Input((8, 8, 4), name="image")
    x = block(x)
    x = block(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten(name="flat")(x)))


def separable():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, strides=2, activation="relu", name="sep")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, name="up")(x)
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.UpSampling2D(2, name="double")(x)
    x = layers.Conv2D(2, 1, name="head")(x)
    return keras.Model(inputs, x)


def bare_ops():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = x / 127.5 - 1.0
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = ops.relu(x)
    x = ops.reshape(x, (-1, 144))
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def many_inputs():
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    shared = layers.Dense(8, activation="relu", name="shared")
    x = layers.Add(name="sum")([shared(a), shared(b), a])
    return keras.Model({"a": a, "b": b}, {"y": layers.Dense(2, name="y")(x), "z": layers.Dense(1, name="z")(x)})


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.conv = layers.Conv2D(4, 3, activation="relu", name="conv")
        self.head = layers.Dense(2, name="head")

    def call(self, inputs):
        return self.head(ops.mean(self.conv(inputs), axis=(1, 2)))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8, 8, 3), "float32"))
    return model


def unfoldable():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="conv1")(x)
    y = layers.BatchNormalization(name="bn")(layers.Concatenate(name="cat")([x, x]))
    y = layers.ReLU(name="act")(y)
    x = layers.Conv2D(2, 1, name="conv2")(y)
    x = layers.Dropout(0.5, name="drop")(layers.ReLU(name="act2")(x))
    return keras.Model(inputs, layers.Dense(2, activation="sigmoid", name="head")(x))


MODELS = {
    f.__name__: f
    for f in (
        conv_net,
        residual,
        two_branches,
        concat,
        squeeze_excite,
        nested,
        separable,
        bare_ops,
        many_inputs,
        subclassed,
        unfoldable,
    )
}


def data(model, count=6, seed=0):
    """Inputs for a model, in the structure that it takes."""
    generator = np.random.default_rng(seed)
    if isinstance(model, Subclassed):
        return generator.normal(size=(count, 8, 8, 3)).astype("float32")
    draw = lambda tensor: generator.normal(size=(count, *tensor.shape[1:])).astype("float32")  # noqa: E731
    return keras.tree.map_structure(draw, model._inputs_struct)
