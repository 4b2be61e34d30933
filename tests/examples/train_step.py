"""A ``train_step`` of one's own, with augmentation and an auxiliary loss, around a prepared model.

Run as ``python tests/examples/train_step.py OUT``: trains on scikit-learn's digits in seconds and exports into OUT.
"""

import sys

import keras
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tfqat


class Trainer(keras.Model):
    """Trains a network on shifted images, and to say the same of an image and its shifted copy."""

    def __init__(self, network, consistency=0.5):
        super().__init__()
        self.network, self.consistency = network, consistency
        self.augment = layers.RandomTranslation(0.1, 0.1, fill_mode="constant", seed=1)
        self.cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def call(self, images, training=False):
        return self.network(images, training=training)

    def train_step(self, data):
        images, labels = data
        with tf.GradientTape() as tape:
            plain = self.network(images, training=True)
            shifted = self.network(self.augment(images, training=True), training=True)
            apart = tf.reduce_mean((tf.nn.softmax(plain) - tf.nn.softmax(shifted)) ** 2)  # the auxiliary loss
            loss = self.cross_entropy(labels, shifted) + self.consistency * apart
        gradients = tape.gradient(loss, self.network.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.network.trainable_variables, strict=True))
        return {"loss": loss, "apart": apart}


def network():
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1")(image)
    y = layers.Conv2D(16, 3, padding="same", name="conv2")(x)
    x = layers.ReLU(name="relu")(layers.Add(name="join")([x, y]))
    x = layers.Flatten(name="flat")(layers.MaxPooling2D(name="pool")(x))
    return keras.Model(image, layers.Dense(10, name="logits")(x))


def main(folder):
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    x, x_test, y, y_test = train_test_split(images, labels, test_size=500, stratify=labels, random_state=0)

    model = tfqat.prepare(network(), target="tensorrt")
    tfqat.calibrate(model, x[:256])
    trainer = Trainer(model)
    trainer.compile(optimizer=keras.optimizers.Adam(0.003))
    trainer.fit(x, y, batch_size=64, epochs=6, verbose=2)
    tfqat.freeze(model)
    trainer.fit(x, y, batch_size=64, epochs=2, verbose=2)

    final = tfqat.finalize(model)
    accuracy = float(tf.reduce_mean(tf.cast(tf.argmax(final(x_test), axis=-1) == y_test, tf.float32)))
    print(f"accuracy of the INT8 model: {accuracy:.1%}")
    return model, accuracy, tfqat.export(final, folder)


if __name__ == "__main__":
    main(sys.argv[1])
