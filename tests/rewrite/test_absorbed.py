"""ReLU6 absorbed by its Quantizer: where, where not, and that nothing else notices."""

import keras
import numpy as np
from keras import layers

import tfqat
from tfqat.rewrite.absorbed import AbsorbedReLU6
from tfqat.rewrite.model import range_layers


def absorbed(model):
    return {layer.name for layer in model.layers if isinstance(layer, AbsorbedReLU6)}


def test_a_relu6_that_only_its_quantizer_reads_is_absorbed(zoo):
    qat = tfqat.prepare(zoo.conv_net())
    assert absorbed(qat) == {"relu1"}
    assert [layer.name for layer in range_layers(qat) if getattr(layer, "absorbs_relu6", False)] == ["relu1>quantizer"]


def test_tied_ranges_absorb_none(zoo):
    assert not absorbed(tfqat.prepare(zoo.concat()))


def test_the_finalized_model_has_stock_relu6(zoo):
    model = zoo.conv_net()
    qat = tfqat.prepare(model)
    tfqat.calibrate(qat, [zoo.data(model)])
    relu = tfqat.finalize(qat).get_layer("relu1")
    assert type(relu) is layers.ReLU
    assert relu.max_value == 6


def test_calibration_sees_what_relu6_gives():
    inputs = keras.Input((4, 4, 2), name="image")
    x = layers.ReLU(name="act")(layers.Conv2D(2, 1, name="conv", kernel_initializer="ones")(inputs))
    model = keras.Model(inputs, layers.Dense(1, name="head")(layers.GlobalAveragePooling2D(name="pool")(x)))
    report = tfqat.calibrate(tfqat.prepare(model), [np.full((2, 4, 4, 2), 50.0, "float32")], method="minmax")
    seen = {item.tensor: item.seen_max for item in report.ranges}
    assert seen == {"image": 50.0, "act": 6.0, "pool": 6.0}


def test_a_learned_range_that_absorbs_relu6_ends_at_6(zoo):
    model = zoo.conv_net()
    qat, x = tfqat.prepare(model, ranges="learned"), zoo.data(model)
    tfqat.calibrate(qat, [x])
    layer = next(layer for layer in range_layers(qat) if layer.absorbs_relu6)
    layer.extent.assign([7.0])  # as an optimizer may
    assert layer.encoding().scale == np.float32(6) / np.float32(127)
    assert np.allclose(qat(x), tfqat.finalize(qat)(x), atol=1e-4)


def test_training_and_evaluation_agree_with_the_two_layers_apart(zoo):
    model = zoo.conv_net()
    qat, x = tfqat.prepare(model, ranges="fixed"), zoo.data(model)
    tfqat.calibrate(qat, [x])
    apart = tfqat.finalize(qat)
    assert np.allclose(qat(x), apart(x), atol=1e-4)
    batch_norm = qat.get_layer("bn1")
    batch_norm.freeze()
    assert np.allclose(qat(x, training=True), apart(x), atol=0.02)
