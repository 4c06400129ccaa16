"""Who owns the arrays, and what may happen at the same time."""

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from contract.runtimes.conftest import Bench
from contract.runtimes.models import add_sub, dense, identity, matmul, model, node, sample, tensor
from triune.core.datatypes import Array, DataType


def at_byte(array: Array, offset: int) -> Array:
    """A read-only view of a received buffer in which `array` starts at byte `offset`, as front ends hand over."""
    buffer = b"\xaa" * offset + array.tobytes()
    view = np.frombuffer(buffer, array.dtype, offset=offset).reshape(array.shape)
    assert not view.flags.writeable
    return view


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 5, 7])
@pytest.mark.parametrize("datatype", [DataType.FP32, DataType.INT64, DataType.FP16, DataType.BF16, DataType.BOOL])
def test_read_only_views_at_any_byte(bench: Bench, datatype: DataType, offset: int) -> None:
    given = sample(datatype, (3, 7))
    found = bench.load(identity(datatype, ("a", "b"))).run({"x": at_byte(given, offset)}, ["y"])["y"]
    assert found.tobytes() == given.tobytes()


def test_a_large_unaligned_matrix(bench: Bench) -> None:
    random = np.random.default_rng(0)
    a = random.integers(-4, 5, (65, 130)).astype(np.float32)
    b = random.integers(-4, 5, (130, 33)).astype(np.float32)
    found = bench.load(matmul()).run({"a": at_byte(a, 3), "b": at_byte(b, 1)}, ["c"])["c"]
    np.testing.assert_array_equal(found, a @ b)


def test_arrays_that_are_not_contiguous(bench: Bench) -> None:
    executable = bench.load(identity(shape=("a", "b")))
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    broadcast = np.broadcast_to(np.float32(3), (2, 3))
    for given in (base.T, base[::-1], base[:, ::2], base[1:3, 2:4], np.asfortranarray(base), broadcast):
        np.testing.assert_array_equal(executable.run({"x": given}, ["y"])["y"], given)


@pytest.mark.parametrize("datatype", [DataType.FP32, DataType.BF16, DataType.INT32])
def test_no_later_call_writes_to_an_output(bench: Bench, datatype: DataType) -> None:
    executable = bench.load(identity(datatype, ("n",)))
    first = executable.run({"x": np.full(64, 1).astype(datatype.dtype)}, ["y"])["y"]
    second = executable.run({"x": np.full(64, 2).astype(datatype.dtype)}, ["y"])["y"]
    third = executable.run({"x": np.full(8, 3).astype(datatype.dtype)}, ["y"])["y"]
    assert set(first.tolist()) == {1}
    assert set(second.tolist()) == {2}
    assert set(third.tolist()) == {3}
    assert not np.shares_memory(first, second)


def test_outputs_outlive_the_executable(bench: Bench) -> None:
    built = add_sub(DataType.FP32)
    executable = bench.runtime.load(bench.save(built), unit=bench.unit, num_threads=1, options=bench.options(built))
    ones = np.ones((8, 16), np.float32)
    found = executable.run({"INPUT0": ones, "INPUT1": ones}, ["OUTPUT0"])["OUTPUT0"]
    executable.close()
    del executable
    gc.collect()
    assert set(found.ravel().tolist()) == {2.0}


def test_closed_again_it_does_nothing(bench: Bench) -> None:
    executable = bench.load(identity())
    assert executable.run({"x": np.ones(3, np.float32)}, ["y"])["y"].tolist() == [1, 1, 1]
    executable.close()
    executable.close()


def test_inputs_and_outputs_are_apart(bench: Bench) -> None:
    # Identity, and an output that is an input itself: the graphs in which a runtime may hand memory through.
    built = model([node("Identity", "x", "y")], [tensor("x", ("n",))], [tensor("y", ("n",)), tensor("x", ("n",))])
    executable = bench.load(built)
    given = np.arange(16, dtype=np.float32)
    before = given.copy()
    found = executable.run({"x": given}, ["y", "x"])
    for array in found.values():
        assert array.flags.writeable
        array[:] = -1
    np.testing.assert_array_equal(given, before)
    found = executable.run({"x": given}, ["y", "x"])
    given[:] = -2
    for array in found.values():
        np.testing.assert_array_equal(array, before)


def test_two_outputs_of_one_value_are_apart(bench: Bench) -> None:
    built = model(
        [node("Neg", "x", "h"), node("Identity", "h", "y"), node("Identity", "h", "z")],
        [tensor("x", ("n",))],
        [tensor("y", ("n",)), tensor("z", ("n",))],
    )
    found = bench.load(built).run({"x": np.ones(4, np.float32)}, ["y", "z"])
    found["y"][:] = 7
    assert set(found["z"].tolist()) == {-1.0}


def test_inputs_are_not_changed(bench: Bench) -> None:
    # A runtime that computes in place would write the ReLU into x.
    executable = bench.load(model([node("Relu", "x", "y")], [tensor("x", ("n",))], [tensor("y", ("n",))]))
    given = np.array([-1, 2, -3], np.float32)
    assert executable.run({"x": given}, ["y"])["y"].tolist() == [0, 2, 0]
    assert given.tolist() == [-1, 2, -3]


def test_inputs_are_not_kept(bench: Bench) -> None:
    executable = bench.load(identity())
    given = np.ones(1000, np.float32)
    alive = weakref.ref(given)
    executable.run({"x": given}, ["y"])
    del given
    gc.collect()
    assert alive() is None
    assert executable.run({"x": np.full(3, 2, np.float32)}, ["y"])["y"].tolist() == [2, 2, 2]


def test_executables_run_side_by_side(bench: Bench) -> None:
    path = bench.save(dense(64, num_layers=3))
    executables = [bench.load(path) for _ in range(4)]

    def work(index: int) -> list[float]:
        x = np.full((index + 1, 64), index, np.float32)
        return [float(executables[index].run({"x": x}, ["y"])["y"].max()) for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        for index, found in enumerate(pool.map(work, range(4))):
            assert found == pytest.approx([index] * 50)


def test_any_thread_may_call(bench: Bench) -> None:
    executable = bench.load(identity())
    for value in range(5):
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(executable.run, {"x": np.full(3, value, np.float32)}, ["y"]).result()
        assert found["y"].tolist() == [value] * 3


@pytest.mark.parametrize("num_threads", [1, 2])
def test_other_threads_go_on_while_it_computes(bench: Bench, num_threads: int) -> None:
    # MLX's build for CPUs takes 15 seconds for what others compute in one.
    size = 512 if bench.is_mlx else 1024
    executable = bench.load(dense(size, num_layers=20), num_threads=num_threads)
    x = np.ones((size, size), np.float32)
    thread = threading.Thread(target=executable.run, args=({"x": x}, ["y"]))
    thread.start()
    started = time.monotonic()
    steps = 0
    while thread.is_alive():
        time.sleep(0.001)
        steps += 1
    duration = time.monotonic() - started
    assert duration > 0.05, "too quick to tell; make the model larger"
    # With the GIL held there would be one or two.
    assert steps > 20


def test_with_one_thread_the_caller_computes(bench: Bench) -> None:
    if bench.name == "reference":
        pytest.skip("numpy's BLAS takes as many threads as it likes: the reference takes no heed of num_threads")
    if bench.is_mlx:
        pytest.skip("MLX computes on a thread of its own, on the GPU if there is one")
    size = 512
    executable = bench.load(dense(size, num_layers=8), num_threads=1)
    x = np.ones((size, size), np.float32)
    executable.run({"x": x}, ["y"])
    thread, process = time.thread_time(), time.process_time()
    executable.run({"x": x}, ["y"])
    thread, process = time.thread_time() - thread, time.process_time() - process
    assert thread > 0.8 * process
