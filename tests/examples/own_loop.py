"""A GradientTape loop of one's own around a prepared model.

Run as ``python tests/examples/own_loop.py OUT``: trains on scikit-learn's digits in seconds and exports into OUT.
"""

import sys

import keras
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tfqat

EPOCHS, FROZEN_EPOCHS = 8, 2


def network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def digits():
    """Training batches and held-out (images, labels)."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    x, x_test, y, y_test = train_test_split(images, labels, test_size=500, stratify=labels, random_state=0)
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(2000, seed=0).batch(64, drop_remainder=True), (
        x_test,
        y_test,
    )


def main(folder):
    keras.utils.set_random_seed(0)
    batches, (x_test, y_test) = digits()
    model = tfqat.prepare(network(), target="tensorrt")
    tfqat.calibrate(model, batches, batches=4)
    optimizer = keras.optimizers.Adam(0.003)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = cross_entropy(labels, model(images, training=True))  # training=True lets the ranges follow
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    for epoch in range(EPOCHS):
        if epoch == EPOCHS - FROZEN_EPOCHS:
            tfqat.freeze(model)  # ranges and BatchNorm statistics stay, weights go on learning
        for images, labels in batches:
            loss = step(images, labels)
        print(f"epoch {epoch + 1}: loss {float(loss):.3f}")

    final = tfqat.finalize(model)
    accuracy = float(tf.reduce_mean(tf.cast(tf.argmax(final(x_test), axis=-1) == y_test, tf.float32)))
    print(f"accuracy of the INT8 model: {accuracy:.1%}")
    return model, accuracy, tfqat.export(final, folder)


if __name__ == "__main__":
    main(sys.argv[1])
