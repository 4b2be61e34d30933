"""Small models of tf_keras (Keras 2), each saved in its three file formats with what it computes.

Run as a program of its own, so that no test process has tf_keras in it: ``python keras2_factory.py FOLDER``. Weights
and BatchNorm statistics are random, so that no two of them can be mixed up.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import Model, Sequential, layers

K = tf_keras.backend


def image(size=8, channels=3, name="image"):
    return layers.Input((size, size, channels), name=name)


def convolutions():
    x = i = image()
    x = layers.Conv2D(4, 3, padding="same", kernel_regularizer="l2", name="conv")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(x)
    x = layers.LeakyReLU(0.2, name="leaky")(x)
    x = layers.SeparableConv2D(6, 3, activation="swish", name="separable")(x)
    x = layers.PReLU(shared_axes=[1, 2], name="prelu")(x)
    x = layers.Conv2DTranspose(6, 2, strides=2, output_padding=0, activation="hard_sigmoid", name="up")(x)
    x = layers.Conv2D(6, 3, dilation_rate=2, groups=2, kernel_constraint="max_norm", name="grouped")(x)
    x = layers.ThresholdedReLU(0.1, name="threshold")(x)
    x = layers.UpSampling2D(interpolation="bilinear", name="resize")(x)
    x = layers.ReLU(max_value=4.0, negative_slope=0.1, threshold=0.2, name="relu")(x)
    x = layers.experimental.SyncBatchNormalization(name="sync")(x)
    x = layers.GlobalMaxPooling2D(keepdims=True, name="max")(x)
    x = layers.Activation("hard_sigmoid", name="hard")(layers.Flatten()(x))
    return Model(i, layers.Dense(3, activation="softmax", name="scores")(x))


def functions():
    """TensorFlow functions and operators on Keras tensors."""
    i = image(6, 4)
    x = i + 1.0
    x = tf.nn.relu(2.0 - x) * x / 3.0
    x = tf.concat([x, -x, tf.abs(x)], axis=-1)[:, 1:, ..., :6]
    x = tf.nn.relu6(x + 3.0) * (1.0 / 6.0)
    x = tf.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0]])
    y = tf.reduce_mean(x, axis=[1, 2], keepdims=True)
    x = tf.math.square(x - y) + tf.nn.gelu(x) + tf.nn.leaky_relu(x) + tf.nn.silu(x)
    x = tf.nn.max_pool2d(x, 2, 1, "SAME") + tf.nn.avg_pool2d(x, 2, 1, "SAME")
    x = tf.image.resize(x, [8, 8])
    x = tf.nn.depth_to_space(tf.nn.space_to_depth(x, 2), 2)
    a, b, c = tf.split(x, 3, axis=-1)
    x = tf.stack([a, b, c], axis=1)
    x = tf.transpose(x, [0, 2, 3, 1, 4])
    x = tf.reshape(x, [tf.shape(x)[0], -1, x.shape[-1]])
    z = tf.matmul(x, x, transpose_b=True)
    z = tf.nn.softmax(z / tf.math.sqrt(2.0), axis=-1)
    x = tf.linalg.matmul(z, x)
    x = tf.squeeze(tf.expand_dims(x, 1), [1])
    x = tf.clip_by_value(x, -2.0, 2.0) ** 2.0
    x = tf.math.l2_normalize(x, axis=-1) + tf.math.exp(-x) + tf.math.maximum(x, 0.5) - tf.minimum(x, [0.1, 0.2])
    x = tf.gather(x, [0, 5, 7], axis=1)
    x = tf.cast(x > 0.5, tf.float32) * x + tf.where(x < 0.2, x, 0.3)
    x = tf.tile(x, [1, 1, 2])
    x = tf.reshape(x, (-1, 12))
    return Model(i, {"all": layers.Dense(2)(x), "sum": tf.math.add_n([x, x]), "norm": tf.reduce_sum(x, 1)})


def shapes():
    """Sizes taken from tensors, and constants among the tensors."""
    x = i = image(6, 4)
    batch, height, width, channels = tf.unstack(tf.shape(x))
    x = tf.reshape(x, tf.stack([batch, height * width, channels]))
    x = tf.reshape(x, [batch * height, width, channels])
    x = tf.reshape(x, tf.concat([tf.shape(i)[:1], [-1, 4]], 0))
    x = tf.matmul(x, tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]))
    x = tf.image.flip_up_down(tf.image.flip_left_right(tf.reshape(x, [-1, 6, 6, 2])))
    low = tf.cast(layers.Dense(3, dtype="bfloat16", name="low")(x), "float32")
    bins = layers.IntegerLookup(vocabulary=[0, 1, 2], name="bins")(tf.cast(i, "int64"))
    sums = [tf.norm(x, axis=-1), tf.norm(x, ord=1, axis=1), tf.math.reduce_euclidean_norm(x, [1, 2])]
    return Model(i, [low, bins, *sums, tf.math.atan(x)])


def nested():
    """Models in models: Sequential in functional and the reverse, two levels deep, shared, frozen in part."""
    inner = x = layers.Input((6, 6, 4), name="inner_image")
    x = layers.Conv2D(4, 1, name="inner_conv")(x)
    x = layers.BatchNormalization(name="inner_bn")(x)
    inner = Model(inner, layers.Add(name="inner_add")([x, inner]), name="inner")
    outer = Sequential([layers.Conv2D(4, 3, name="stem"), inner, layers.BatchNormalization(name="last")], name="outer")
    head = Sequential([layers.Dense(3, name="hidden"), Sequential([layers.Dense(3)], name="deep")], name="head")
    inner.get_layer("inner_conv").trainable = False
    outer.layers[-1].trainable = False
    one, two = image(name="one"), image(name="two")
    first, second = outer(one), outer(two)
    mean = layers.GlobalAveragePooling2D(name="mean")
    pair = layers.Dot(axes=1, normalize=True, name="pair")([mean(first), mean(second)])
    frozen = Sequential([layers.Dense(2, name="a"), layers.BatchNormalization(name="b")], name="frozen")
    frozen.trainable = False
    return Model([one, two], [pair, head(mean(first)), frozen(mean(second)), inner(first)], name="siamese")


def structures():
    """Dictionaries in and out, of the model and of a model inside it."""
    inputs = {"b": layers.Input((4,), name="b"), "a": layers.Input((3,), name="a")}
    inner_inputs = {"q": layers.Input((4,), name="q"), "p": layers.Input((3,), name="p")}
    x = layers.Concatenate()([inner_inputs["q"], inner_inputs["p"]])
    inner = Model(inner_inputs, {"y": layers.Dense(2)(x), "x": layers.Dense(3)(x)}, name="inner")
    given = inner({"q": inputs["b"], "p": inputs["a"]})
    return Model(inputs, {"sum": layers.Dense(1)(given["x"]), "both": [given["y"], given["x"] * 2.0]})


def recurrent():
    i = layers.Input((5, 4), name="sequence")
    x = layers.Masking(0.0)(i)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True, recurrent_activation="hard_sigmoid"), name="bi")(x)
    x, *states = layers.LSTM(4, return_sequences=True, return_state=True, name="encoder")(x)
    y = layers.LSTM(4, return_sequences=True, name="decoder")(x, initial_state=states)
    y = layers.GRU(3, reset_after=False, return_sequences=True, name="gru")(y)
    y = layers.GRU(3, return_sequences=True, activation="relu", go_backwards=True, name="gru_after")(y)
    y = layers.SimpleRNN(4, return_sequences=True, activation="hard_sigmoid", name="simple")(y)
    cells = layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(2)])
    y = layers.RNN(cells, return_sequences=True, name="stacked")(y)
    z = layers.TimeDistributed(Sequential([layers.Dense(3), layers.BatchNormalization()], name="td"), name="each")(y)
    z = layers.TimeDistributed(layers.Dense(4), name="each_dense")(z)
    z = layers.Conv1D(4, 2, padding="causal", name="conv1d")(z)
    return Model(i, [z, states[0]])


def attention():
    tokens = layers.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 8, name="embedding")(tokens)
    mask = tf.cast(tf.not_equal(tokens, 0), "int32")[:, tf.newaxis, :]
    y = layers.MultiHeadAttention(2, 4, value_dim=3, name="mha")(x, x, attention_mask=mask)
    x = layers.LayerNormalization(epsilon=1e-6, name="norm")(x + y)
    y = layers.Dense(16, activation=tf.nn.gelu, name="mlp")(x)
    x = layers.LayerNormalization(axis=[1, 2], name="norm2")(layers.Dense(8, name="mlp2")(y) + x)
    x = layers.Attention(use_scale=True, name="attention")([x, x])
    x = layers.AdditiveAttention(name="additive")([x, x])
    x = layers.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d", name="einsum")(x)
    x = layers.GroupNormalization(groups=5, name="group")(x)
    return Model(tokens, layers.UnitNormalization()(x))


def preprocessing():
    x = i = image(12)
    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = layers.Normalization(name="norm")(x)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0], name="given")(x)
    x = layers.RandomFlip()(layers.RandomRotation(0.1)(layers.RandomZoom(0.2)(layers.RandomContrast(0.1)(x))))
    x = layers.RandomTranslation(0.1, 0.1)(x)
    x = layers.GaussianNoise(0.1)(layers.SpatialDropout2D(0.2)(layers.AlphaDropout(0.1)(x)))
    x = layers.CenterCrop(10, 10)(x)
    x = layers.Resizing(7, 7)(layers.Resizing(14, 14, interpolation="nearest")(x))
    x = layers.ZeroPadding2D(((1, 0), (2, 1)))(layers.Cropping2D(1)(x))
    return Model(i, layers.Conv2D(2, 3)(x))


def volumes():
    x = i = layers.Input((5, 6, 6, 2))
    x = layers.Conv3D(3, 2, padding="same")(x)
    x = layers.Conv3DTranspose(2, 2)(layers.AveragePooling3D(2)(x))
    y = layers.ConvLSTM2D(2, 2, padding="same")(x)
    z = layers.SeparableConv1D(3, 2)(layers.Reshape((-1, 2))(y))
    z = layers.Conv1DTranspose(2, 2)(layers.DepthwiseConv1D(2)(z))
    return Model(i, layers.Permute((2, 1))(z))


def inverted_residual():
    """As keras.applications' MobileNetV3 has them: hard-swish of TensorFlow functions, squeeze and excite."""
    x = i = image()
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="expand")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Multiply(name="swish")([x, layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)])
    y = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    y = layers.ReLU(6.0)(layers.Conv2D(8, 1, name="excite")(y) + 3.0) * (1.0 / 6.0)
    x = layers.Multiply(name="scale")([x, y])
    return Model(i, layers.Dense(3, name="scores")(layers.Flatten(name="flatten")(x)))


def foreign():
    """What TensorFlow and users put into a stock model: initializers, preprocessing functions, constants."""
    i = image()
    x = tf_keras.applications.densenet.preprocess_input(i)
    x = layers.Conv2D(4, 3, kernel_initializer=Ones(), bias_initializer=tf.constant_initializer(2.0), name="conv")(x)
    x = tf.tensordot(x, tf.constant([[0.5, 1.0], [-1.0, 0.2], [0.3, 0.4], [2.0, 0.1]]), 1)
    x = x + tf.cast(tf.range(tf.shape(x)[2])[:, tf.newaxis], "float32") + tf.math.asinh(x)
    y = layers.TimeDistributed(layers.Dense(3, activation="hard_sigmoid"), name="each")(x)
    y = layers.TimeDistributed(layers.Activation("hard_sigmoid"), name="each_hard")(y)
    return Model(i, [y, layers.LSTM(2, name="lstm")(layers.Reshape((36, 2))(x), training=True)])


class Ones(tf_keras.initializers.Initializer):
    """An initializer of the user's own."""

    def __call__(self, shape, dtype=None, **kwargs):
        return tf.ones(shape, dtype)

    def get_config(self):
        return {}


def op_nodes():
    """Raw ops, as TensorFlow 2.0 to 2.3 put them into functional models."""
    from tf_keras.src.engine.base_layer import TensorFlowOpLayer

    def node(name, op, inputs, constants=None, **attributes):
        node_def = tf.compat.v1.NodeDef(name=name, op=op, input=[f"in{n}" for n in range(inputs)])
        for key, value in {"T": tf.float32.as_datatype_enum, **attributes}.items():
            if key in ("T", "Tidx", "Index", "Tshape"):
                node_def.attr[key].type = value
            elif isinstance(value, list):
                node_def.attr[key].list.i.extend(value)
            elif isinstance(value, bool):
                node_def.attr[key].b = value
            else:
                node_def.attr[key].i = value
        return TensorFlowOpLayer(node_def.SerializeToString(), name, constants=constants)

    integer = tf.int32.as_datatype_enum
    masks = {"begin_mask": 1, "end_mask": 1, "ellipsis_mask": 0, "new_axis_mask": 0, "shrink_axis_mask": 2}
    x = i = layers.Input((4, 6), name="rows")
    x = node("add", "AddV2", 2, {1: np.float32(1.5)})(x)
    x = node("mul", "Mul", 2)([x, i])
    x = node("relu", "Relu", 1)(x)
    y = node("mean", "Mean", 2, {1: np.array([1], np.int32)}, keep_dims=True, Tidx=integer)(x)
    x = node("sub", "Sub", 2)([x, y])
    x = node("concat", "ConcatV2", 3, {2: np.int32(-1)}, N=2, Tidx=integer)([x, x])
    ends = {n: np.array(v, np.int32) for n, v in {1: [0, 1], 2: [0, 2], 3: [1, 1]}.items()}
    x = node("row", "StridedSlice", 4, ends, Index=integer, **masks)(x)
    x = node("reshape", "Reshape", 2, {1: np.array([-1, 3, 4], np.int32)}, Tshape=integer)(x)
    x = node("squeeze", "Squeeze", 1, squeeze_dims=[2])(node("expand", "ExpandDims", 2, {1: np.int32(2)})(x))
    return Model(i, node("matmul", "BatchMatMulV2", 2, adj_x=False, adj_y=True)([x, x]))


MODELS = {
    f.__name__: f
    for f in (
        convolutions,
        functions,
        shapes,
        nested,
        structures,
        recurrent,
        attention,
        preprocessing,
        volumes,
        inverted_residual,
        foreign,
        op_nodes,
    )
}


TRACED = ("nested", "attention")


def train(model, seed):
    """Weights and statistics that no initializer gives."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.dtype.is_floating:
            low = 0.5 if "variance" in weight.name else -0.6
            weight.assign(random.uniform(low, 1.0, weight.shape))
    for layer in model.layers:
        if isinstance(layer, layers.Normalization) and layer.weights:
            layer.finalize_state()


def inputs_of(model, count=4):
    random = np.random.default_rng(7)

    def values(tensor):
        shape = (count, *tensor.shape[1:])
        return (
            random.integers(0, 9, shape) if tensor.dtype.is_integer else random.normal(0.3, 1, shape).astype("float32")
        )

    return {tensor.name: values(tensor) for tensor in model.inputs}


def save(model, folder, name):
    """Saves the model in each format, and its inputs and outputs."""
    model.save(folder / f"{name}.h5")
    # Traces take long to write and are not read; with them, layers list their variables otherwise.
    model.save(folder / name, save_traces=name in TRACED)
    try:
        model.save(folder / f"{name}.keras")
    except TypeError as error:  # an Ellipsis in a slice, which tf_keras cannot write there
        print(name, error)
    inputs = inputs_of(model)
    by_name = isinstance(model.input, dict)
    outputs = tf.nest.flatten(model(inputs if by_name else list(inputs.values()), training=False))
    arrays = {f"x_{key}": value for key, value in inputs.items()}
    np.savez(folder / f"{name}.npz", **arrays, **{f"y{index}": value for index, value in enumerate(outputs)})


def save_whole_only(folder):
    """Files that are read in part or not at all."""
    x = layers.Input((3,), name="x")
    model = Model(x, layers.Dense(2, name="dense")(x))
    model.compile("adam", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    model.save(folder / "compiled.h5")
    Model(x, layers.Lambda(lambda t: t * 2.0, name="double")(x)).save(folder / "lambda.h5")
    defaults = layers.Lambda(lambda t, by=3.0, plus=(1.0,): t * by + plus[0], name="defaults")
    Model(x, defaults(x)).save(folder / "lambda_defaults.h5")
    pixels = layers.Input((8, 6, 3), name="pixels")
    Model(pixels, layers.RandomCrop(4, 4, name="crop")(pixels)).save(folder / "crop.h5")
    Model(x, layers.Dropout(0.5, name="always")(x, training=True)).save(folder / "always.h5")
    positions = layers.Embedding(3, 3, name="positions")(tf.range(tf.shape(x)[1]))
    Model(x, x + positions).save(folder / "positions.h5")
    tiled = tf.tile(tf.constant([[1.0, 2.0, 3.0]]), [tf.shape(x)[0], 1])
    Model(x, tf.concat([x, tiled], 1)).save(folder / "tiled.h5")
    Model(x, layers.BatchNormalization(axis=[1, 2], name="both")(layers.Reshape((3, 1))(x))).save(folder / "axes.h5")
    text = layers.Input((1,), dtype="string", name="text")
    words = layers.StringLookup(name="words")
    words.adapt([["a"], ["b"]])
    Model(text, layers.Embedding(3, 2)(words(text))).save(folder / "adapted.keras")
    Model(x, layers.LocallyConnected1D(2, 2, name="local")(layers.Reshape((3, 1))(x))).save(folder / "local.h5")
    Model(x, tf.math.lgamma(x)).save(folder / "unknown_function.h5")

    class Own(Model):
        def call(self, inputs):
            return inputs * 2.0

    own = Own()
    own(np.ones((1, 3)))
    own.save(folder / "subclassed")
    tf.saved_model.save(tf.Module(), str(folder / "plain_saved_model"))


def load_live(model, folder):
    """What a live model becomes, in the process that has tf_keras in it."""
    import keras

    import tfqat

    outputs = tfqat.load_model(model)(list(inputs_of(model).values()))
    np.savez(folder / "live.npz", *map(np.asarray, keras.tree.flatten(outputs)))


def main(folder, names):
    for seed, name in enumerate(names or MODELS):
        tf_keras.backend.clear_session()
        tf_keras.utils.set_random_seed(seed)
        model = MODELS[name]()
        train(model, seed)
        save(model, folder, name)
        if name == "nested":
            live = model
            model.save_weights(folder / "nested_weights.h5")
            model.save_weights(folder / "checkpoint/ckpt")
    if not names:
        save_whole_only(folder)
        load_live(live, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
