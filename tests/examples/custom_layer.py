"""A custom layer and a subclassed model, in INT8.

Run as ``python tests/examples/custom_layer.py``: prints what becomes of each op.
"""

import keras
from keras import layers, ops

import tfqat


@tfqat.quantizable  # without this line it stays one float op, and the table says so
class Gate(layers.Layer):
    """Scales each channel by what all of them say (squeeze and excite)."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")
        self.bias = self.add_weight(shape=(shape[-1],), initializer="zeros", name="bias")

    def call(self, images):
        means = ops.mean(images, axis=(1, 2), keepdims=True)
        return images * ops.sigmoid(ops.matmul(means, self.kernel) + self.bias)


class Network(keras.Model):
    """A subclassed model: its ``call`` is run once on symbolic tensors."""

    def __init__(self):
        super().__init__(name="network")
        self.stem = layers.Conv2D(16, 3, strides=2, activation="relu", name="stem")
        self.gate = Gate(name="gate")
        self.pool = layers.GlobalAveragePooling2D(name="pool")
        self.head = layers.Dense(10, name="head")

    def call(self, images):
        return self.head(self.pool(self.gate(self.stem(images))))


def main():
    model = Network()
    model.build((None, 32, 32, 3))
    plan = tfqat.placement(model)
    print(plan)
    return plan


if __name__ == "__main__":
    main()
