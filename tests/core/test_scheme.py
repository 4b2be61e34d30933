"""Numbers: against ONNX's own QuantizeLinear, and against the formulas written out."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx.reference import ReferenceEvaluator

from tfqat.core.scheme import SCALE_FLOOR, Scheme, dequantize, quantize, scale_and_zero_point, to_channels

FLOATS = st.floats(-1e4, 1e4, width=32)
SCHEMES = {
    "tensorrt activation": Scheme(),
    "tensorrt weight": Scheme(narrow=True),
    "unsigned asymmetric": Scheme(signed=False, symmetric=False),
    "4 bits": Scheme(bits=4),
}


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (Scheme(), (-128, 127)),
        (Scheme(narrow=True), (-127, 127)),
        (Scheme(signed=False), (0, 255)),
        (Scheme(signed=False, narrow=True), (1, 255)),
        (Scheme(bits=4, narrow=True), (-7, 7)),
    ],
)
def test_the_integers_in_use(scheme, expected):
    assert (scheme.qmin, scheme.qmax) == expected


@pytest.mark.parametrize("fields", [{"bits": 1}, {"bits": 17}, {"axis": (0,)}])
def test_an_impossible_scheme_is_refused(fields):
    with pytest.raises(ValueError, match="Scheme"):
        Scheme(**fields)


def test_tensorrt_scale_is_amax_over_127():
    scale, zero_point = scale_and_zero_point(Scheme(), np.float32(-3.0), np.float32(2.0))
    assert scale == np.float32(3.0) / np.float32(127)
    assert scale.dtype == np.float32
    assert zero_point == 0


@pytest.mark.parametrize("scheme", [Scheme(), Scheme(symmetric=False)])
def test_a_dead_tensor_gets_the_floor_which_is_a_normal_float(scheme):
    scale, _ = scale_and_zero_point(scheme, np.float32(0), np.float32(0))
    assert scale == SCALE_FLOOR > np.finfo(np.float32).tiny


@pytest.mark.parametrize(("low", "high"), [(np.nan, 1), (0, np.inf), (2, 1)])
def test_a_range_that_is_none_is_refused(low, high):
    with pytest.raises(ValueError, match="finite with low <= high"):
        scale_and_zero_point(Scheme(), np.float32(low), np.float32(high))


@given(low=st.floats(-1e4, 0, width=32), high=st.floats(0, 1e4, width=32))
def test_zero_is_exact_in_every_scheme(low, high):
    for scheme in SCHEMES.values():
        scale, zero_point = scale_and_zero_point(scheme, np.float32(low), np.float32(high))
        zero = np.zeros(1, np.float32)
        assert dequantize(quantize(zero, scheme, scale, zero_point), scheme, scale, zero_point) == 0


@given(values=arrays(np.float32, 16, elements=FLOATS))
def test_rounding_is_within_half_a_step_inside_the_range(values):
    for scheme in SCHEMES.values():
        scale, zero_point = scale_and_zero_point(scheme, values.min(), values.max())
        back = dequantize(quantize(values, scheme, scale, zero_point), scheme, scale, zero_point)
        # An asymmetric zero point is rounded too, which moves the range by up to half a step.
        steps = 0.5 if scheme.symmetric else 1.0
        assert np.abs(back - values).max() <= scale * (steps + 1e-3) + 1e-6 * np.abs(values).max()


@pytest.mark.parametrize("axis", [(), (-1,), (-2,)])
@given(values=arrays(np.float32, (2, 3, 4), elements=FLOATS))
def test_integers_are_those_of_onnx(axis, values):
    scheme = Scheme(axis=axis)
    matrix = to_channels(values, axis)
    amax = np.abs(matrix).max(axis=0)
    scale, zero_point = scale_and_zero_point(scheme, -amax, amax)
    if not axis:
        scale, zero_point = scale[0], zero_point[0]
    ours = quantize(values, scheme, scale, zero_point)
    assert np.array_equal(ours, _onnx_quantize(values, scale, axis))


def test_depthwise_channels_are_merged_in_order():
    kernel = np.arange(2 * 2 * 3 * 2).reshape(2, 2, 3, 2)
    channels = to_channels(kernel, (-2, -1))
    assert channels.shape == (4, 6)
    assert np.array_equal(channels[:, 5], kernel[:, :, 2, 1].ravel())


def _onnx_quantize(values, scale, axis):
    attributes = {"axis": values.ndim + axis[0]} if axis else {}
    node = onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes)
    kinds = {"x": onnx.TensorProto.FLOAT, "s": onnx.TensorProto.FLOAT, "z": onnx.TensorProto.INT8}
    inputs = [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    output = onnx.helper.make_tensor_value_info("q", onnx.TensorProto.INT8, None)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", inputs, [output]))
    feeds = {"x": values, "s": np.asarray(scale), "z": np.zeros(np.shape(scale), np.int8)}
    return ReferenceEvaluator(model).run(None, feeds)[0]
