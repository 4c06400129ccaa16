"""Palettes and zeros."""

import numpy as np
import pytest

from support.compressible import matrix
from triune.compression.palettes import k_means, palettized
from triune.compression.zeros import pruned, pruned_n_of_m


def test_two_centers_are_the_means_of_two_heaps() -> None:
    centers = k_means(np.array([0.0, 1.0, 2.0, 10.0, 11.0, 12.0], np.float32), 2)
    assert centers.tolist() == [1.0, 11.0]


def test_few_values_are_their_own_palette() -> None:
    weight = np.array([[1.5, -2.0], [-2.0, 3.0]], np.float32)
    found = palettized(weight, 2)
    assert found.tables.tolist() == [[-2.0, 1.5, 3.0, 3.0]]
    assert found.starts is None
    assert np.array_equal(found.whole(), weight)


def test_each_group_of_channels_has_a_palette() -> None:
    weight = np.repeat(np.array([[1.0], [2.0], [3.0]], np.float32), 8, axis=1)
    weight[:, 4:] *= -1
    found = palettized(weight, 1, axis=0, rows=2)
    # The first group has the values -2, -1, 1 and 2; the last has one channel.
    assert found.tables.tolist() == [[-1.5, 1.5], [-3.0, 3.0]]
    assert found.starts is not None
    assert found.starts.reshape(-1).tolist() == [0, 0, 2]
    assert np.array_equal(found.whole()[2], weight[2])


@pytest.mark.parametrize("bits", range(1, 9))
def test_each_weight_has_the_nearest_value_of_its_palette(bits: int) -> None:
    weight = matrix(16, 64)
    found = palettized(weight, bits, axis=1, rows=24)
    whole = found.whole()
    assert found.indices.max() < 1 << bits
    for number in range(3):
        part = weight[:, 24 * number : 24 * (number + 1)]
        nearest = np.abs(part[..., np.newaxis] - found.tables[number]).min(axis=-1)
        assert np.allclose(np.abs(whole[:, 24 * number : 24 * (number + 1)] - part), nearest, atol=1e-6)


def test_palettes_are_better_than_even_steps() -> None:
    weight = matrix(32, 64)
    step = 2 * np.abs(weight).max() / 15
    even = np.rint(weight / step) * step
    assert np.square(palettized(weight, 4).whole() - weight).mean() < 0.8 * np.square(even - weight).mean()


def test_many_equal_weights_leave_a_palette_for_the_others() -> None:
    weight = np.zeros((1, 1024), np.float32)
    weight[0, :10] = np.arange(1, 11)
    found = palettized(weight, 2)
    assert len(np.unique(found.tables)) == 4
    # The 1 is nearest to the many zeros, and moves their mean a little.
    assert abs(found.whole()[0, 500]) < 0.01


def test_half_of_the_weights_become_zero() -> None:
    weight = np.array([[3.0, -1.0], [0.5, -4.0]], np.float32)
    assert pruned(weight, 0.5).tolist() == [[3.0, 0.0], [0.0, -4.0]]
    assert weight[0, 1] == -1.0


def test_of_each_four_two_stay() -> None:
    weight = np.array([[1.0, -5.0, 3.0, 2.0, 0.1, 0.2, -0.3, 0.0]], np.float32)
    expected = [[0.0, -5.0, 3.0, 0.0, 0.0, np.float32(0.2), np.float32(-0.3), 0.0]]
    assert pruned_n_of_m(weight, 2, 4, 1).tolist() == expected
    assert pruned_n_of_m(np.ascontiguousarray(weight.T), 2, 4, 0).T.tolist() == expected


def test_a_last_group_that_is_shorter_keeps_as_many() -> None:
    weight = np.array([[1.0, -5.0, 3.0, 2.0, 0.5, 0.25, -0.75]], np.float32)
    expected = [[0.0, -5.0, 3.0, 0.0, 0.5, 0.0, -0.75]]
    assert pruned_n_of_m(weight, 2, 4, 1).tolist() == expected
    assert pruned_n_of_m(weight.T, 2, 4, 0).T.tolist() == expected
    assert pruned_n_of_m(weight[:, :6], 2, 4, 1).tolist() == [[0.0, -5.0, 3.0, 0.0, 0.5, 0.25]]
    assert weight[0, 0] == 1.0
