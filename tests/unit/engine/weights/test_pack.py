from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from triune.engine.weights import PackedTensor
from triune.engine.weights.affine import Affine
from triune.engine.weights.pack import Inexact, make_tensor
from triune.engine.weights.tensors import Bits


def _affine(offset: float, *, spread: float = 0.0, seed: int = 0, scale: float = 0.02) -> Affine:
    """Rows of codes of four bits whose offsets are `offset` steps, and up to `spread` more."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 16, (8, 64), np.uint8)
    scales = (rng.uniform(0.5, 1, (8, 2)) * scale).astype(np.float16)
    steps = offset + rng.uniform(0, spread, (8, 2))
    return Affine(codes, 4, scales, (scales.astype(np.float32) * steps).astype(np.float32), 32)


def _packed(affine: Affine, inexact: Inexact) -> PackedTensor:
    def parts() -> Iterator[Affine]:
        # In two parts of three and five rows.
        for rows in (slice(0, 3), slice(3, 8)):
            offsets = affine.offsets
            yield Affine(affine.codes[rows], 4, affine.scales[rows], offsets[rows] if offsets is not None else None, 32)

    tensor = make_tensor(parts(), (8, 64), "test", inexact, "w")
    assert isinstance(tensor, PackedTensor)
    return tensor


def _relative(tensor: PackedTensor, truth: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean((tensor.dequantize() - truth) ** 2) / np.mean(truth**2)))


@pytest.mark.parametrize("inexact", ["regroup", "widen", "offsets"])
@pytest.mark.parametrize("steps", [0, -7, -15])
def test_offsets_of_whole_steps_cost_nothing(steps: int, inexact: Inexact) -> None:
    affine = _affine(steps)
    tensor = _packed(affine, inexact)
    truth = affine.dequantize()
    assert _relative(tensor, truth) < (1e-7 if inexact == "widen" else 1e-12)
    if inexact == "regroup":
        assert tensor.regrouped is None
        assert tensor.zero_points is not None
        assert (tensor.zero_points == -steps).all()


@pytest.mark.parametrize(("inexact", "bits", "limit"), [("regroup", 4, 0.09), ("widen", 8, 0.006)])
def test_other_offsets_cost_what_is_told(inexact: Inexact, bits: Bits, limit: float) -> None:
    affine = _affine(-8, spread=1)
    tensor = _packed(affine, inexact)
    truth = affine.dequantize()
    assert tensor.bits == bits
    assert tensor.regrouped is not None
    assert tensor.regrouped.relative_rms == pytest.approx(_relative(tensor, truth), rel=1e-4)
    assert tensor.regrouped.largest == pytest.approx(np.abs(tensor.dequantize() - truth).max(), rel=1e-4)
    assert tensor.regrouped.relative_rms < limit
    assert str(tensor.regrouped).startswith("test regrouped: largest error 0.0")


@pytest.mark.parametrize("offset", [40, -60])
def test_blocks_far_from_zero(offset: int) -> None:
    affine = _affine(offset, spread=1)
    truth = affine.dequantize()
    assert _relative(_packed(affine, "regroup"), truth) < 0.04
    assert _relative(_packed(affine, "widen"), truth) < 0.002


def test_blocks_without_a_scale() -> None:
    affine = _affine(-8, scale=0)
    assert not _packed(affine, "regroup").dequantize().any()
    constant = Affine(affine.codes, 4, affine.scales, np.full((8, 2), -0.25, np.float32), 32)
    np.testing.assert_allclose(_packed(constant, "regroup").dequantize(), -0.25, rtol=1e-3)


def test_negative_scales_as_mlx_has_them() -> None:
    affine = _affine(-9)
    assert affine.offsets is not None
    turned = Affine(affine.codes, 4, -affine.scales, -affine.offsets, 32)
    tensor = _packed(turned, "regroup")
    np.testing.assert_allclose(tensor.dequantize(), turned.dequantize(), atol=1e-6)


def test_a_tensor_shows_itself_shortly() -> None:
    assert len(repr(_packed(_affine(-8, spread=1), "regroup"))) < 250
