import os
import threading

import numpy as np

from triune.metal.library import exclusive, from_numpy, mx, to_numpy


def test_arrays_of_one_thread_are_computed_by_another() -> None:
    with exclusive():
        lazy = from_numpy(np.arange(4, dtype=np.float32)) + 1
    found: list[list[float]] = []

    def work() -> None:
        with exclusive():
            found.append(to_numpy(lazy * 2).tolist())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[2, 4, 6, 8]]


def test_one_thread_at_a_time_computes() -> None:
    inside = threading.Event()

    def work() -> None:
        with exclusive():
            inside.set()

    with exclusive():
        thread = threading.Thread(target=work)
        thread.start()
        assert not inside.wait(0.05)
    thread.join()
    assert inside.is_set()


def test_mlx_keeps_no_more_than_a_share_of_the_memory() -> None:
    limit = mx.set_cache_limit(1 << 20)
    try:
        with exclusive():
            mx.eval(from_numpy(np.zeros(1 << 22, np.float32)) + 1)
        assert mx.get_cache_memory() <= 1 << 20
    finally:
        mx.set_cache_limit(limit)
    assert limit == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 16


def test_products_of_fp32_are_not_rounded_to_tf32() -> None:
    assert os.environ["MLX_ENABLE_TF32"] == "0"
    # 1 + 2^-20 is 1 in TF32.
    x = np.full((64, 64), 1 + 2**-20, np.float32)
    with exclusive():
        found = to_numpy(from_numpy(x) @ from_numpy(np.eye(64, dtype=np.float32)))
    np.testing.assert_array_equal(found, x)
