"""Convolutions that are computed as products."""

import numpy as np
import pytest

from triune.metal.conv import pointwise
from triune.metal.library import mx, to_numpy


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_pointwise_convolution_is_that_of_mlx(has_bias: bool) -> None:
    x, weights, bias = mx.random.normal((2, 5, 7, 6)), mx.random.normal((4, 1, 1, 6)), mx.random.normal((4,))
    expected = mx.conv_general(x, weights) + (bias if has_bias else 0)
    assert np.allclose(to_numpy(pointwise(x, weights, bias if has_bias else None)), to_numpy(expected), atol=1e-5)
