"""What is read from tables of rotary embeddings."""

import numpy as np
import pytest

from triune.engine.weights.config.rope import LinearScaling, Rope, YarnScaling
from triune.metal.attention import wavelengths


@pytest.mark.parametrize("num_positions", [2, 64, 8192])
@pytest.mark.parametrize("scaling", [None, LinearScaling(4.0)])
def test_angles_are_found_again(num_positions: int, scaling: LinearScaling | None) -> None:
    rope = Rope(500000.0, 64, scaling)
    found = wavelengths(*rope.tables(num_positions))
    assert found is not None
    angles, _ = rope.frequencies(num_positions)
    np.testing.assert_allclose(1 / found, angles, rtol=1e-6 if num_positions > 2 else 1e-4)


def test_tables_of_another_kind_are_left_alone() -> None:
    cosines, sines = Rope(10000.0, 16).tables(50)
    # With a factor, as YaRN's have.
    assert wavelengths(*Rope(10000.0, 16, YarnScaling(4.0, 16, 1.3)).tables(50)) is None
    assert wavelengths(np.roll(cosines, 1, axis=0), np.roll(sines, 1, axis=0)) is None
    assert wavelengths(cosines[:1], sines[:1]) is None
    assert wavelengths(cosines, -sines) is None
