"""Matrices as codes with scales and offsets."""

import numpy as np
import pytest

from support.compressible import matrix
from triune.compression.moments import Moments
from triune.compression.options import WeightForm
from triune.engine.compressing.stored import Codes, stored


def in_codes(weight: np.ndarray, form: WeightForm, group: int, rows: np.ndarray | None = None) -> Codes:
    moments = None
    if rows is not None:
        moments = Moments(weight.shape[1])
        moments.add(rows)
    found = stored(weight, form, group, moments, is_symmetric=False)
    assert isinstance(found, Codes)
    return found


@pytest.mark.parametrize("is_calibrated", [False, True])
def test_weights_that_have_4_bits_lose_nothing(is_calibrated: bool) -> None:
    """As GGUF's Q4_1 has them: in each block the smallest weight is code 0, the largest code 15."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (24, 4, 32))
    codes[:, :, 3], codes[:, :, 9] = 0, 15
    scales = rng.uniform(0.001, 0.1, (24, 4, 1)).astype(np.float16).astype(np.float32)
    # All weights of some blocks are above 0: those of others lie around it.
    lows = rng.uniform(-1, 0.5, (24, 4, 1)).astype(np.float16).astype(np.float32)
    weight = (codes * scales + lows).astype(np.float32).reshape(24, 128)
    found = in_codes(weight, WeightForm.INT4, 32, matrix(256, 128, 1) if is_calibrated else None)
    assert np.array_equal(found.codes.reshape(codes.shape), codes)
    np.testing.assert_allclose(found.whole(), weight, rtol=0, atol=1e-6)


def test_gptq_makes_errors_of_products_smaller() -> None:
    rows = matrix(512, 8, 2) @ matrix(8, 64, 1) + 0.1 * matrix(512, 64, 4)
    weight = matrix(48, 64)
    near, found = in_codes(weight, WeightForm.INT4, 32), in_codes(weight, WeightForm.INT4, 32, rows)
    assert np.array_equal(found.offsets, near.offsets)
    errors = [float(np.square(rows @ (each.whole() - weight).T).mean()) for each in (near, found)]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("form", [WeightForm.INT4, WeightForm.INT8])
@pytest.mark.parametrize("value", [0.0, -0.75, 1e-7, 6e4, 1e6])
def test_groups_of_equal_weights(form: WeightForm, value: float) -> None:
    """Also of weights that fp16 does not hold."""
    weight = np.full((4, 64), value, np.float32)
    found = in_codes(weight, form, 32).whole()
    assert np.isfinite(found).all()
    if abs(value) < 6.5e4:
        np.testing.assert_allclose(found, weight, rtol=1e-3, atol=1e-7)


def test_rows_are_divided_without_other_codes() -> None:
    """GPTQ's codes are not the nearest ones: rounded again, they would be lost."""
    rows = matrix(512, 8, 2) @ matrix(8, 64, 1) + 0.1 * matrix(512, 64, 4)
    found = in_codes(matrix(48, 64), WeightForm.INT4, 32, rows)
    factors = np.linspace(0.2, 4, 48, dtype=np.float32)
    divided = found.divided(factors)
    assert np.array_equal(divided.codes, found.codes)
    np.testing.assert_allclose(divided.whole(), found.whole() / factors[:, np.newaxis], rtol=0, atol=0.02)
