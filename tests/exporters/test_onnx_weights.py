"""Weights of a plain ONNX that are no kernels: tensors of their own, as ops read them."""

import keras
import numpy as np
import onnx

import tfqat
from tfqat.graph.causes import PRODUCT_WITH_CONSTANT


class SharedKernel(keras.layers.Layer):
    """Uses its kernel, and its bias, in two places: they are tensors of their own, which depend on no input."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")
        self.bias = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="bias")

    def call(self, x):
        hidden = keras.ops.relu(keras.ops.matmul(x, self.kernel) + self.bias)
        return keras.ops.matmul(hidden, keras.ops.transpose(self.kernel)) + self.bias


def test_a_weight_that_is_a_tensor_of_its_own_is_a_float_in_the_file_as_in_training(fresh_names, tmp_path):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(4, 6, 8)).astype("float32")
    i = keras.Input((6, 8), name="words")
    y = tfqat.quantizable(SharedKernel)(name="shared")(keras.layers.Dense(8, name="first")(i))
    qat = tfqat.prepare(keras.Model(i, keras.layers.Dense(2, name="head")(keras.layers.ReLU(name="relu")(y))))
    rows = {row.op: row for row in qat.placement.rows}
    assert (rows["shared/matmul"].state, rows["shared/matmul"].reason) == ("float", PRODUCT_WITH_CONSTANT)
    tfqat.calibrate(qat, [x])
    files = tfqat.export(qat, tmp_path)
    nodes = {node.name: node for node in onnx.load(files["qdq_onnx"]).graph.node}
    products = [node for node in nodes.values() if node.op_type == "MatMul" and node.name.startswith("shared")]
    assert len(products) == 2
    assert not any(product.input[1].endswith("dequantize") for product in products)
    assert tfqat.verify(qat, tmp_path, [x]).passed
