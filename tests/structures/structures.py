"""Models in each structure that users bring; the golden placements are written from them, too."""

import keras
import numpy as np
from keras import layers, ops

import tfqat


class Subclassed(keras.Model):
    """A block with a shortcut, a scale of its own, and a dropout that is told of training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")
        self.norm = layers.BatchNormalization(name="norm")
        self.body = [layers.Conv2D(8, 3, padding="same", activation="relu", name=f"body{i}") for i in range(2)]
        self.drop = layers.Dropout(0.1, name="drop")
        self.head = layers.Dense(3, name="head")
        self.gain = self.add_weight(shape=(8,), initializer="ones", name="gain")

    def call(self, inputs, training=None, mask=None):
        x = short = ops.relu(self.norm(self.stem(inputs), training=training))
        for layer in self.body:
            x = layer(x)
        x = ops.mean(x * self.gain + short, axis=(1, 2))
        return self.head(self.drop(x, training=training))


def subclassed():
    model = Subclassed(name="subclassed")
    model.build((None, 16, 16, 3))
    return model


def nested():
    """A frozen keras.applications backbone in a feature extractor in the user's model."""
    whole = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)
    backbone = keras.Model(whole.inputs, whole.get_layer("block_2_add").output, name="backbone")
    backbone.trainable = False
    x = inputs = keras.Input((32, 32, 3), name="extractor_image")
    x = layers.Rescaling(1 / 127.5, -1, name="scale")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(backbone(x))
    extractor = keras.Model(inputs, x, name="extractor")
    inputs = keras.Input((32, 32, 3), name="image")
    neck = [layers.Dense(16, activation="relu", name="hidden"), layers.Dropout(0.1, name="drop")]
    x = keras.Sequential(neck, name="neck")(extractor(inputs))
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="nested")


def unet():
    x = inputs = keras.Input((16, 16, 3), name="image")
    skips = []
    for depth in range(2):
        x = layers.Conv2D(8 << depth, 3, padding="same", activation="relu", name=f"down{depth}")(x)
        skips.append(x)
        x = layers.MaxPooling2D(name=f"pool{depth}")(x)
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="bottom")(x)
    for depth in (1, 0):
        x = layers.Conv2DTranspose(8 << depth, 2, strides=2, name=f"up{depth}")(x)
        x = layers.Concatenate(name=f"join{depth}")([x, skips[depth]])
        x = layers.Conv2D(8 << depth, 3, padding="same", activation="relu", name=f"out{depth}")(x)
    return keras.Model(inputs, layers.Conv2D(2, 1, activation="sigmoid", name="mask")(x), name="unet")


def siamese():
    """One encoder for two images; the distance of what it makes of them."""
    encoder = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(8, 3, strides=2, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flat"),
            layers.Dense(8, name="embed"),
        ],
        name="encoder",
    )
    left, right = keras.Input((16, 16, 3), name="left"), keras.Input((16, 16, 3), name="right")
    distance = layers.Subtract(name="difference")([encoder(left), encoder(right)])
    distance = layers.Multiply(name="square")([distance, distance])
    return keras.Model([left, right], layers.Dense(1, name="score")(distance), name="siamese")


def two_inputs_three_outputs():
    image, numbers = keras.Input((16, 16, 3), name="image"), keras.Input((6,), name="numbers")
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(image)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    y = layers.Dense(8, activation="relu", name="table")(numbers)
    both = layers.Concatenate(name="both")([x, y])
    both = layers.Dense(8, activation="relu", name="trunk")(both)
    outputs = {
        "class": layers.Dense(3, activation="softmax", name="class")(both),
        "box": [layers.Dense(4, name="box")(both), layers.Dense(1, activation="sigmoid", name="objectness")(x)],
    }
    return keras.Model({"image": image, "numbers": numbers}, outputs, name="two_inputs_three_outputs")


@tfqat.quantizable
class Gated(layers.Layer):
    """A layer of the user's with a kernel, a bias and a gate of its own."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 16), name="kernel")
        self.bias = self.add_weight(shape=(16,), initializer="zeros", name="bias")
        self.gate = self.add_weight(shape=(16,), initializer="ones", name="gate")

    def call(self, inputs):
        return ops.relu(ops.matmul(inputs, self.kernel) + self.bias) * self.gate


class Encoder(layers.Layer):
    """A transformer block of the user's."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 8, dropout=0.1)
        self.norms = [layers.LayerNormalization() for _ in range(2)]
        self.hidden, self.back = layers.Dense(32, activation="gelu"), layers.Dense(16)

    def build(self, input_shape):
        self.attention.build(input_shape, input_shape)
        self.norms[0].build(input_shape)
        self.norms[1].build(input_shape)
        self.hidden.build(input_shape)
        self.back.build((*input_shape[:-1], 32))

    def call(self, inputs, training=None):
        x = self.norms[0](inputs + self.attention(inputs, inputs, training=training))
        return self.norms[1](x + self.back(self.hidden(x)))


def custom_layers():
    x = inputs = keras.Input((12, 6), name="series")
    x = Gated(name="gated")(x)
    x = Encoder(name="encoder")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten(name="flat")(x)), name="custom_layers")


MODELS = {f.__name__: f for f in (subclassed, nested, unet, siamese, two_inputs_three_outputs, custom_layers)}


def data(model, count=8, seed=0):
    """Inputs for a model, in the structure that it takes."""
    generator = np.random.default_rng(seed)
    if isinstance(model, Subclassed):
        return generator.normal(size=(count, 16, 16, 3)).astype("float32")
    draw = lambda tensor: generator.normal(size=(count, *tensor.shape[1:])).astype("float32")  # noqa: E731
    return keras.tree.map_structure(draw, model._inputs_struct)
