"""GPTQ and AWQ on inputs that are known."""

import numpy as np
import pytest

from support.compressible import matrix
from triune.compression.awq import awq
from triune.compression.gptq import gptq
from triune.compression.integers import quantized
from triune.compression.moments import Moments


def moments_of(rows: np.ndarray) -> Moments:
    found = Moments(rows.shape[1])
    found.add(rows[: len(rows) // 2])
    found.add(rows[len(rows) // 2 :])
    return found


@pytest.mark.parametrize("is_symmetric", [True, False])
@pytest.mark.parametrize("group", [None, 32])
def test_errors_of_products_are_smaller(group: int | None, is_symmetric: bool) -> None:
    """Inputs that go together: what one weight loses another makes up for. Also on inputs that were not seen."""
    mixing = matrix(8, 64, 1)
    seen, others = matrix(512, 8, 2) @ mixing, matrix(512, 8, 3) @ mixing
    seen += 0.1 * matrix(512, 64, 4)
    weight = matrix(48, 64)
    near = quantized(weight, 4, axis=None, block_axis=1, block=group or 64, is_symmetric=is_symmetric)
    found = gptq(weight, moments_of(seen), 4, group, is_symmetric=is_symmetric)
    assert np.array_equal(found.scale, near.scale)
    errors = [float(np.square(others @ (each.whole() - weight).T).mean()) for each in (near, found)]
    assert errors[1] < 0.5 * errors[0]


def test_the_error_of_moments_is_that_of_outputs() -> None:
    rows, difference = matrix(100, 16), matrix(8, 16, 1)
    assert moments_of(rows).error(difference) == pytest.approx(np.square(rows @ difference.T).sum(), rel=1e-4)
    scales = np.linspace(0.5, 2, 16).astype(np.float32)
    divided = moments_of(rows).divided(scales)
    assert divided.error(difference) == pytest.approx(np.square((rows / scales) @ difference.T).sum(), rel=1e-4)


def test_inputs_that_say_nothing() -> None:
    weight = matrix(16, 32)
    near = quantized(weight, 4, axis=None, block_axis=1, block=32)
    for rows in (np.zeros((0, 32), np.float32), np.zeros((8, 32), np.float32), np.full((8, 32), np.inf, np.float32)):
        with np.errstate(invalid="ignore"):
            found = gptq(weight, moments_of(rows), 4, None, is_symmetric=True)
        assert np.array_equal(found.data, near.data)
    # Of 32 channels two vary, and one row was seen.
    rows = np.zeros((1, 32), np.float32)
    rows[0, :2] = 1, -2
    found = gptq(weight, moments_of(rows), 4, None, is_symmetric=True)
    assert np.isfinite(found.whole()).all()
    assert moments_of(rows).error(found.whole() - weight) <= moments_of(rows).error(near.whole() - weight)


def test_awq_keeps_channels_that_matter() -> None:
    rows = matrix(256, 64)
    rows[:, :3] *= 30
    weight = matrix(32, 64, 1)

    def rounded(each: np.ndarray) -> np.ndarray:
        return quantized(each, 4, axis=None, block_axis=1, block=64).whole()

    found = awq([weight], moments_of(rows), rounded)
    assert found.exponent > 0
    assert found.after < 0.6 * found.before
    assert found.scales[:3].min() > found.scales[3:].max()
    # Inputs that are all alike leave nothing to scale.
    none = awq([weight], moments_of(np.zeros((4, 64), np.float32)), rounded)
    assert none.exponent == 0
    assert (none.scales == 1).all()
