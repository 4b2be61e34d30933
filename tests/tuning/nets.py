"""Float models with channels of very different ranges, for the post-training methods."""

import keras
import numpy as np
from keras import layers


def chain(*middle, shape=(8, 8, 3), name="chain"):
    """conv -> middle -> a dense output layer, without a ReLU6."""
    x = inputs = keras.Input(shape, name="image")
    for layer in middle:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.GlobalAveragePooling2D(name="pool")(x)), name=name)


def depthwise_chain():
    """conv, depthwise, conv, each with BatchNorm and ReLU: what MobileNets are made of."""
    return chain(
        layers.Conv2D(6, 3, use_bias=False, name="conv"),
        layers.BatchNormalization(name="conv_bn"),
        layers.ReLU(name="relu1"),
        layers.ZeroPadding2D(1, name="pad"),
        layers.DepthwiseConv2D(3, use_bias=False, name="depthwise"),
        layers.BatchNormalization(name="depthwise_bn"),
        layers.ReLU(name="relu2"),
        layers.Conv2D(5, 1, use_bias=False, name="point"),
        layers.BatchNormalization(name="point_bn"),
    )


def residual_net():
    """Two residual blocks: of each, the inner pair may be equalized and nothing else."""
    x = inputs = keras.Input((8, 8, 4), name="image")
    for block in "ab":
        short = x
        for number in "12":
            x = layers.Conv2D(4, 3, padding="same", use_bias=False, name=f"{block}{number}")(x)
            x = layers.BatchNormalization(name=f"{block}{number}_bn")(x)
            x = layers.ReLU(name=f"{block}{number}_relu")(x) if number == "1" else x
        x = layers.ReLU(name=f"{block}_out")(layers.Add(name=f"{block}_add")([short, x]))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten(name="flat")(x)))


def mobilenet():
    """MobileNetV2, alpha 0.35 at 96 px, with ReLU in place of its ReLU6."""
    model = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=10)

    def plain(layer):
        if isinstance(layer, keras.layers.ReLU):
            return keras.layers.ReLU(name=layer.name)
        return type(layer).from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=plain)


def spoil(model, draw):
    """Gives each output channel a scale of ``draw(count)``, and BatchNorms the statistics that they then see."""
    generator = np.random.default_rng(0)
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    for norm in norms:
        count = norm.moving_mean.shape[0]
        if norm.scale:
            norm.gamma.assign(draw(count))
        if norm.center:
            norm.beta.assign(generator.normal(size=count) * draw(count))
        norm.momentum = 0.0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            shape = layer.kernel.shape
            layer.kernel.assign(generator.normal(size=shape) * draw(shape[-1]) / np.sqrt(np.prod(shape[:-1])))
            if layer.use_bias:
                layer.bias.assign(generator.normal(size=shape[-1]))
    if norms:
        model(images(model, 8, seed=1), training=True)
    return model


def images(model, count=4, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *model.input_shape[1:])).astype("float32")
