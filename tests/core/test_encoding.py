"""Encodings: what they hold, and what they refuse."""

import numpy as np
import pytest

from tfqat.core.encoding import Encoding, encoding_of_range, encoding_of_values
from tfqat.core.scheme import SCALE_FLOOR, Scheme


def test_min_and_max_are_those_of_the_integers():
    encoding = encoding_of_range(Scheme(), -2.0, 1.0)
    assert encoding.scale == np.float32(2.0 / 127)
    assert encoding.min == pytest.approx(-128 * 2.0 / 127)
    assert encoding.max == pytest.approx(2.0)


def test_per_channel_scales_come_from_each_channel():
    kernel = np.zeros((1, 1, 2, 3), np.float32)
    kernel[..., 0], kernel[..., 1] = 1.27, -2.54
    encoding = encoding_of_values(Scheme(narrow=True, axis=(-1,)), kernel)
    assert encoding.scale == pytest.approx([0.01, 0.02, SCALE_FLOOR])
    assert np.array_equal(encoding.quantize(kernel)[0, 0, 0], [127, -127, 0])


def test_dead_means_zero_everywhere():
    assert encoding_of_range(Scheme(), 0.0, 0.0).dead
    assert not encoding_of_range(Scheme(), 0.0, 1e-6).dead


@pytest.mark.parametrize(
    ("scale", "zero_point", "reason"),
    [
        (np.zeros(()), np.zeros((), int), "positive and normal"),
        (np.asarray(np.inf), np.zeros((), int), "finite"),
        (np.asarray(1e-40), np.zeros((), int), "normal"),
        (np.ones(3), np.zeros(3, int), "no axis"),
    ],
)
def test_an_unusable_scale_is_refused(scale, zero_point, reason):
    with pytest.raises(ValueError, match=reason):
        Encoding(Scheme(), scale, zero_point)


def test_an_unknown_origin_is_refused():
    with pytest.raises(ValueError, match="guessed"):
        Encoding(Scheme(), np.ones(()), np.zeros((), int), "guessed")
