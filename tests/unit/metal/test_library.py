import os
import shutil
import threading
from collections.abc import Callable

import numpy as np
import pytest
from onnx.parser import parse_model

from triune.metal import library
from triune.metal.elementwise import exact_gelu, swiglu, tanh_gelu
from triune.metal.library import Value, exclusive, from_numpy, mx, to_numpy
from triune.metal.lower import lower
from triune.metal.paged_attention import joined


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


@pytest.mark.parametrize(("given", "used"), [(None, "0"), ("1", "1")])
def test_models_start_kernels_without_graphs_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, given: str | None, used: str
) -> None:
    monkeypatch.setenv("MLX_USE_CUDA_GRAPHS", given or "")
    if given is None:
        monkeypatch.delenv("MLX_USE_CUDA_GRAPHS")
    lower(parse_model('<ir_version: 10, opset_import: ["": 21]> g (float[2] x) => (float[2] y) { y = Neg(x) }'))
    assert os.environ["MLX_USE_CUDA_GRAPHS"] == used
    library.start_kernels(in_graphs=True)
    assert os.environ["MLX_USE_CUDA_GRAPHS"] == used


def test_many_shapes_of_convolutions_and_attention_are_no_error_on_cuda() -> None:
    assert os.environ["MLX_ENABLE_CACHE_THRASHING_CHECK"] == "0"


def test_products_of_fp32_are_not_rounded_to_tf32() -> None:
    assert os.environ["MLX_ENABLE_TF32"] == "0"
    # 1 + 2^-20 is 1 in TF32.
    x = np.full((64, 64), 1 + 2**-20, np.float32)
    with exclusive():
        found = to_numpy(from_numpy(x) @ from_numpy(np.eye(64, dtype=np.float32)))
    np.testing.assert_array_equal(found, x)


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX's build for CPUs compiles with g++")
@pytest.mark.parametrize("function", [swiglu, exact_gelu, tanh_gelu, joined])
def test_fused_functions_serve_all_shapes(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Value]) -> None:
    monkeypatch.setattr(library, "is_gpu", lambda: True)
    compiled = library.fused(function)
    assert compiled is not function
    rng = np.random.default_rng(0)
    for tokens, heads in ((3, 2), (1, 2), (5, 4), (1, 1)):
        count = 1 if function in (exact_gelu, tanh_gelu) else 2
        values = [rng.normal(size=(tokens, 1, heads, 8)).astype(np.float32) for _ in range(count)]
        values[-1][0, 0, 0, :2] = np.nan, np.inf
        given = [from_numpy(each).astype(mx.bfloat16) for each in values]
        if function is joined:
            given += [mx.array([[[True]], [[False]]]), mx.array([[[mx.nan]], [[0.0]]], dtype=mx.bfloat16)]
        found, expected = (to_numpy(each(*given).astype(mx.float32)) for each in (compiled, function))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)
