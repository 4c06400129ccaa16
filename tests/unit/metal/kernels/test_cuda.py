"""Our kernels against numpy and MLX's own operations. They run on NVIDIA's GPUs alone."""

import ctypes
from typing import Any

import numpy as np
import pytest

from triune.graph.paged_attention import paged_attention
from triune.metal.kernels.add_norm import add_layer_norm, add_norm
from triune.metal.kernels.attention import Angles, Heads, attend
from triune.metal.kernels.depthwise import depthwise, fits
from triune.metal.library import exclusive, from_numpy, kind_of, mx, to_numpy
from triune.metal.nvidia import Download, does_copy, driver_copy, is_nvidia

pytestmark = pytest.mark.skipif(not is_nvidia(), reason="MLX computes on no GPU of NVIDIA here")

BLOCK = 16


def turned(x: np.ndarray, cosines: np.ndarray, sines: np.ndarray, *, is_interleaved: bool) -> np.ndarray:
    """Heads [rows, heads, size] turned by angles [rows, pairs]."""
    pairs = cosines.shape[1]
    cosines, sines = cosines[:, None], sines[:, None]
    found = x.copy()
    places = np.arange(pairs)
    ones, others = (2 * places, 2 * places + 1) if is_interleaved else (places, places + pairs)
    found[..., ones] = x[..., ones] * cosines - x[..., others] * sines
    found[..., others] = x[..., ones] * sines + x[..., others] * cosines
    return found


@pytest.mark.parametrize(
    ("heads", "lengths", "pairs", "dtype", "tolerance"),
    [
        (Heads(9, 3, 64, 0.125, 0, 0.0), [0, 1, 15, 16, 17, 100], 32, "float32", 1e-5),
        (Heads(9, 3, 64, 0.125, 0, 0.0), [40, 3, 77], 32, "bfloat16", 0.03),
        (Heads(32, 4, 128, 0.1, 0, 0.0), [130, 5], 64, "float16", 0.01),
        # Long texts of few sequences are shared by several blocks of threads.
        (Heads(4, 4, 64, 0.125, 0, 0.0), [3000], 16, "float32", 1e-5),
        (Heads(8, 1, 256, 0.0625, 0, 0.0), [1500, 2, 700], 0, "float32", 1e-5),
        (Heads(16, 2, 64, 0.125, 900, 0.0), [2000, 10, 950], 32, "float32", 1e-5),
        (Heads(4, 2, 16, 0.25, 6, 2.0), [0, 4, 5, 6, 33], 8, "float32", 1e-5),
        (Heads(71, 1, 64, 0.125, 0, 0.0), [20, 200], 32, "float32", 1e-5),
        (Heads(4, 2, 8, 0.3, 0, 0.0), [7, 64], 2, "float32", 1e-5),
    ],
)
@pytest.mark.parametrize("is_interleaved", [False, True])
def test_attention_of_one_token_is_that_of_the_operator(
    heads: Heads, lengths: list[int], pairs: int, dtype: str, tolerance: float, is_interleaved: bool
) -> None:
    rng = np.random.default_rng(5)
    held = [-(-(length + 1) // BLOCK) for length in lengths]
    num_blocks = sum(held) + 3
    order = rng.permutation(num_blocks)[: sum(held)].astype(np.int32)
    columns = max(held) + 2
    # Two rows without a sequence follow.
    table = np.zeros((len(lengths) + 2, columns), np.int32)
    for row, blocks in zip(table, np.split(order, np.cumsum(held)[:-1]), strict=False):
        row[: len(blocks)] = blocks
    kind: Any = kind_of(np.float32) if dtype == "float32" else getattr(mx, dtype)
    with exclusive():
        numbers = from_numpy(rng.normal(size=(num_blocks, 2, heads.num_kv, BLOCK, heads.size))).astype(kind)
        qkv = from_numpy(rng.normal(size=(len(lengths) + 2, (heads.num + 2 * heads.num_kv) * heads.size))).astype(kind)
        cache, given = (to_numpy(each.astype(mx.float32)) for each in (numbers, qkv))
    angles = rng.uniform(0, 6, (num_blocks * BLOCK, pairs))
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    positions = np.array([*lengths, 0, 0], np.int32)
    with exclusive():
        rows = numbers.reshape((-1, heads.size))
        mx.eval(rows)
        turn = Angles(from_numpy(cosines), from_numpy(sines), from_numpy(positions), is_interleaved=is_interleaved)
        past = from_numpy(np.array([*lengths, -1, -1], np.int32))
        found = attend(heads, qkv, rows, BLOCK, past, from_numpy(table), turn if pairs else None)
        found, after = (to_numpy(each.astype(mx.float32)) for each in (found, rows))
    count = len(lengths)
    split = given[:count].reshape(count, -1, heads.size)
    query, key, value = np.split(split, [heads.num, heads.num + heads.num_kv], axis=1)
    if pairs:
        own = cosines[lengths], sines[lengths]
        query, key = (turned(each, *own, is_interleaved=is_interleaved) for each in (query, key))
    wanted, keys, values = paged_attention(
        *(each.reshape(count, -1) for each in (query, key, value)),
        np.ascontiguousarray(cache[:, 0]),
        np.ascontiguousarray(cache[:, 1]),
        np.array(lengths, np.int32),
        np.arange(count + 1, dtype=np.int32),
        order,
        np.cumsum([0, *held]).astype(np.int32),
        num_heads=heads.num,
        num_kv_heads=heads.num_kv,
        scale=heads.scale,
        sliding_window=heads.window,
        softcap=heads.cap,
    )
    np.testing.assert_allclose(found[:count], wanted, rtol=tolerance, atol=tolerance)
    assert not found[count:].any()
    # Nothing else is written.
    np.testing.assert_allclose(after.reshape(cache.shape), np.stack([keys, values], axis=1), rtol=0.01, atol=tolerance)


def test_a_value_that_is_no_number_harms_no_other_sequence() -> None:
    heads = Heads(2, 1, 8, 1.0, 0, 0.0)
    qkv = np.ones((2, 32), np.float32)
    qkv[0, 30] = np.nan
    with exclusive():
        rows = mx.zeros((2 * 2 * BLOCK, 8))
        table = from_numpy(np.array([[0], [1]], np.int32))
        found = to_numpy(
            attend(heads, from_numpy(qkv), rows, BLOCK, from_numpy(np.array([3, 3], np.int32)), table, None)
        )
        after = to_numpy(rows).reshape(2, 2, BLOCK, 8)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
    # The value becomes 0, and its key no number, so that only the sequence itself fails.
    assert np.isfinite(after[:, 1]).all()
    assert np.isnan(after[0, 0, 3]).tolist() == [False] * 6 + [True, False]
    assert after[0, 1, 3].tolist() == [1] * 6 + [0, 1]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 576), (33, 32), (5, 4096), (2, 5000)])
def test_a_sum_and_its_norm_are_those_of_mlx(dtype: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    with exclusive():
        x, y, weight = (
            from_numpy(rng.normal(size=each)).astype(getattr(mx, dtype)) for each in (shape, shape, shape[1:])
        )
        found = [to_numpy(each.astype(mx.float32)) for each in add_norm(x, y, weight, 1e-5)]
        wanted = [to_numpy(each.astype(mx.float32)) for each in (x + y, mx.fast.rms_norm(x + y, weight, 1e-5))]
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5 if dtype == "float32" else 0.02, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "keeps_sum", "has_bias"),
    [
        ((1, 768), "bfloat16", False, True),
        ((2, 33, 384), "bfloat16", True, True),
        ((3, 577), "bfloat16", True, False),
        ((5, 4096), "float16", False, False),
        ((2, 5001), "float16", True, True),
        ((33, 768), "float32", True, True),
        ((4, 577), "float32", False, False),
        ((2, 16384), "float32", False, True),
    ],
)
def test_a_sum_and_its_layer_norm_are_those_in_fp64(
    shape: tuple[int, ...], dtype: str, keeps_sum: bool, has_bias: bool
) -> None:
    rng = np.random.default_rng(4)
    with exclusive():
        # A mean far from zero, which a variance by sums of squares would not survive.
        x, y, weight, bias = (
            from_numpy(rng.normal(size=each) + 20).astype(getattr(mx, dtype))
            for each in (shape, shape, shape[-1:], shape[-1:])
        )
        # A view whose first element is not aligned, as a kernel that reads vectors wants it.
        shifted = mx.concatenate([x.reshape(-1)[:1], x.reshape(-1)])[1:].reshape(shape)
        total, normed = add_layer_norm(shifted, y, weight, bias if has_bias else None, 1e-5, keeps_sum=keeps_sum)
        found = to_numpy(normed.astype(mx.float32))
        assert (total is not None) == keeps_sum
        if total is not None:
            np.testing.assert_array_equal(to_numpy(total.astype(mx.float32)), to_numpy((x + y).astype(mx.float32)))
        sums, weights, biases = (to_numpy(each.astype(mx.float32)).astype(np.float64) for each in (x + y, weight, bias))
    centered = sums - sums.mean(-1, keepdims=True)
    wanted = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) * weights + (biases if has_bias else 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-4 if dtype == "float32" else 0.01, atol=2e-3)


def test_results_in_page_locked_memory_are_used_again() -> None:
    with exclusive():
        numbers = mx.arange(1 << 20).reshape((1024, -1)).astype(mx.float32)
        downloads = [Download(numbers + each) for each in range(3)]
        mx.eval([each.arrays for each in downloads])
        first, second = (each.result() for each in downloads[:2])
        assert isinstance(first.base, memoryview)
        places = {each.ctypes.data for each in (first, second)}
        kept = second[5:7]
        del first, second
        third = downloads[2].result()
        # The memory of the first result is free; a view of the second one is still in use.
        assert third.ctypes.data in places
        assert third.ctypes.data != kept.ctypes.data - 5 * 1024 * 4
        assert kept[0, 0] == 5 * 1024 + 1
        assert np.array_equal(third, np.arange(1 << 20, dtype=np.float32).reshape(1024, -1) + 2)


def test_the_driver_copies_to_the_gpu_and_back() -> None:
    copy = driver_copy(ctypes.CDLL("libcuda.so.1"))
    assert copy is not None
    with exclusive():
        assert does_copy(copy)


def convolved(x: np.ndarray, weights: np.ndarray, strides: list[int], pads: list[tuple[int, int]]) -> np.ndarray:
    """Each channel of (batch, height, width, channels) with its kernel of (channels, height, width)."""
    padded = np.pad(x.astype(np.float64), [(0, 0), *pads, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[1:], axis=(1, 2))
    return np.einsum("nhwcij,cij->nhwc", windows[:, :: strides[0], :: strides[1]], weights.astype(np.float64))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 2e-2)])
@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "pads"),
    [
        ((2, 9, 11, 4), (3, 3), [1, 1], [(1, 1), (1, 1)]),
        ((3, 14, 15, 36), (5, 5), [2, 2], [(1, 2), (2, 1)]),
        ((1, 7, 7, 132), (5, 3), [1, 2], [(2, 2), (0, 1)]),
        ((1, 1, 30, 8), (1, 7), [1, 1], [(0, 0), (3, 3)]),
        ((40, 28, 28, 260), (3, 3), [2, 1], [(0, 1), (1, 1)]),
        ((2, 20, 20, 16), (7, 7), [2, 2], [(3, 3), (3, 3)]),
    ],
)
def test_a_convolution_of_each_channel_alone_is_its_sum(
    dtype: str,
    tolerance: float,
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    strides: list[int],
    pads: list[tuple[int, int]],
) -> None:
    rng = np.random.default_rng(7)
    with exclusive():
        x = from_numpy(rng.normal(size=shape)).astype(getattr(mx, dtype))
        weights = from_numpy(rng.normal(size=(shape[3], *kernel, 1))).astype(getattr(mx, dtype))
        assert fits(x, weights, [1, 1], shape[3])
        found, *given = (
            to_numpy(each.astype(mx.float32)) for each in (depthwise(x, weights, strides, pads), x, weights)
        )
    wanted = convolved(given[0], given[1][..., 0], strides, pads)
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def test_the_kernel_for_each_channel_alone_refuses_what_it_cannot_compute() -> None:
    with exclusive():
        x, weights = mx.zeros((1, 8, 8, 16)), mx.zeros((16, 3, 3, 1))
    assert fits(x, weights, [1, 1], 16)
    assert not fits(x, weights, [2, 2], 16)
    assert not fits(x, mx.zeros((16, 3, 3, 2)), [1, 1], 8)
    assert not fits(x, mx.zeros((32, 3, 3, 1)), [1, 1], 16)
    assert not fits(x, mx.zeros((16, 9, 9, 1)), [1, 1], 16)
    assert not fits(x, weights.astype(mx.float16), [1, 1], 16)
    assert not fits(x[..., :6], weights[:6], [1, 1], 6)
    assert not fits(x[:, :1, :1], weights, [1, 1], 16)
