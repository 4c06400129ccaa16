"""What is done for NVIDIA's GPUs. Here MLX computes on the CPU, whose memory is copied by memmove in place of CUDA."""

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mlx.core")

from triune.metal.library import mx, to_numpy
from triune.metal.nvidia import (
    LARGE_BYTES,
    DriverLocking,
    Upload,
    does_copy,
    downloaded,
    driver_copy,
    is_nvidia,
    trim_kernels,
)
from triune.metal.pinned import PinnedMemory


class Copying:
    """Copies as CUDA would, and counts."""

    def __init__(self, code: int = 0, *, kind: int = 1) -> None:
        self.code, self.kind = code, kind
        self.num = 0

    def __call__(self, to: int, source: int, count: int, kind: int) -> int:
        assert kind == self.kind
        self.num += 1
        ctypes.memmove(to, source, count)
        return self.code


def large(value: float, dtype: type = np.float32) -> np.ndarray:
    return np.full((2, LARGE_BYTES // 4), value, dtype)


def test_a_large_input_is_copied_into_the_array_of_its_shape() -> None:
    copy = Copying()
    upload = Upload(copy)
    first = upload("x", large(1.5))
    assert to_numpy(first).tolist() == large(1.5).tolist()
    second = upload("x", large(2.5))
    assert to_numpy(second).tolist() == large(2.5).tolist()
    assert second is first
    assert copy.num == 2


def test_inputs_of_other_names_and_shapes_have_their_own_arrays() -> None:
    upload = Upload(Copying())
    found = [upload("x", large(1)), upload("y", large(2)), upload("x", large(3).reshape(4, -1))]
    assert [float(each.max().item()) for each in found] == [1, 2, 3]
    assert found[2].shape == (4, LARGE_BYTES // 8)


def test_a_view_is_copied_in_its_order() -> None:
    array = np.arange(LARGE_BYTES // 2, dtype=np.float32).reshape(2, -1)
    found = Upload(Copying())("x", array.T)
    assert np.array_equal(to_numpy(found), array.T)


@pytest.mark.parametrize("array", [np.ones((0, 8), np.float32), np.ones(8, np.float64)])
def test_empty_inputs_and_fp64_are_copied_by_mlx(array: np.ndarray) -> None:
    copy = Copying()
    found = Upload(copy)("x", array)
    assert copy.num == 0
    assert found.dtype == mx.float32


def test_a_bounded_number_of_arrays_is_kept() -> None:
    upload = Upload(Copying())
    kept = [upload(f"x{number}", large(number)) for number in range(20)]
    assert upload("x19", large(0)) is kept[19]
    assert upload("x0", large(0)) is not kept[0]


def test_a_copy_that_fails_names_the_input_and_the_error() -> None:
    with pytest.raises(RuntimeError, match="input 'x' of 2097152 bytes to the GPU: error 700"):
        Upload(Copying(700))("x", large(1))


@pytest.mark.parametrize("kind", [mx.float32, mx.bfloat16, mx.int32])
@pytest.mark.parametrize("is_turned", [False, True])
def test_a_large_result_is_copied_in_its_order(kind: object, is_turned: bool) -> None:
    copy = Copying(kind=2)
    value = mx.arange(LARGE_BYTES).reshape((2, -1)).astype(kind)
    value = value.T if is_turned else value
    found = downloaded(value, copy)
    assert copy.num == 1
    assert found.dtype == to_numpy(value).dtype
    assert np.array_equal(found, to_numpy(value))


def test_a_result_is_copied_to_page_locked_memory_if_there_is_any(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Locking(most=LARGE_BYTES)
    memory = PinnedMemory(DriverLocking(driver, ctypes.c_void_p(77)), 2 * LARGE_BYTES)
    monkeypatch.setattr("triune.metal.nvidia._pinned_memory", lambda: memory)
    copy = Copying(kind=2)
    found = downloaded(mx.arange(LARGE_BYTES // 4), copy)
    assert list(driver.blocks) == [found.ctypes.data]
    assert np.array_equal(found, np.arange(LARGE_BYTES // 4))
    # A result for which there is no such memory is copied all the same.
    assert np.array_equal(downloaded(mx.arange(LARGE_BYTES), copy), np.arange(LARGE_BYTES))
    assert len(driver.blocks) == 1


def test_a_result_whose_copy_fails_and_a_small_one() -> None:
    with pytest.raises(RuntimeError, match="a result of 2097152 bytes from the GPU: error 700"):
        downloaded(mx.zeros((2, LARGE_BYTES // 4)), Copying(700, kind=2))
    assert downloaded(mx.ones(3), Copying(700, kind=2)).tolist() == [1, 1, 1]


def test_without_a_gpu_of_nvidia_mlx_copies() -> None:
    assert not is_nvidia()
    assert to_numpy(Upload()("x", large(4)))[1, -1] == 4


def test_the_oldest_kernels_are_forgotten(tmp_path: Path) -> None:
    for number in range(9):
        file = tmp_path / f"{number}.ptx"
        file.touch()
        os.utime(file, ns=(number, number))
    trim_kernels(tmp_path, 3)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["6.ptx", "7.ptx", "8.ptx"]
    trim_kernels(tmp_path / "absent")


class Driver:
    """CUDA's driver, whose GPU is the memory of this process."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.num_waits = 0
        self.currents: list[int | None] = []
        self.cuMemcpyHtoD_v2, self.cuMemcpyDtoH_v2 = Moving(), Moving()

    def cuInit(self, flags: int) -> int:
        return self.code

    def cuDeviceGet(self, device: Any, number: int) -> int:
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        context._obj.value = 77
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:
        self.currents.append(context.value)
        return 0

    def cuStreamSynchronize(self, stream: Any) -> int:
        assert stream is None
        self.num_waits += 1
        return self.code


class Moving:
    """A copy of the driver. With an error code it copies nothing."""

    def __init__(self) -> None:
        self.num = self.code = 0

    def __call__(self, target: int, source: int, num_bytes: int) -> int:
        self.num += 1
        if not self.code:
            ctypes.memmove(target, source, num_bytes)
        return self.code


def test_arrays_are_copied_by_the_driver_alone() -> None:
    driver = Driver()
    copy = driver_copy(driver)
    assert copy is not None
    array = large(4)
    assert np.array_equal(to_numpy(Upload(copy)("x", array)), array)
    assert (driver.cuMemcpyHtoD_v2.num, driver.cuMemcpyDtoH_v2.num) == (1, 0)
    # The driver can return from a copy to the GPU before its last bytes are there.
    assert driver.num_waits == 1
    value = mx.ones((2, LARGE_BYTES // 4))
    assert downloaded(value, copy).sum() == value.size
    assert (driver.cuMemcpyHtoD_v2.num, driver.cuMemcpyDtoH_v2.num, driver.num_waits) == (1, 1, 1)
    assert driver.currents == [77, 77]


def test_without_access_to_the_gpu_mlx_copies() -> None:
    assert driver_copy(Driver(code=100)) is None


@pytest.mark.parametrize("name", ["cuMemcpyHtoD_v2", "cuMemcpyDtoH_v2"])
def test_a_driver_that_does_not_copy_is_noticed(name: str) -> None:
    driver = Driver()
    copy = driver_copy(driver)
    assert copy is not None
    assert does_copy(copy)
    getattr(driver, name).code = 201
    assert not does_copy(copy)


class Locking:
    """Memory of this process in place of page-locked memory."""

    def __init__(self, most: int = 1000) -> None:
        self.blocks: dict[int, Any] = {}
        self.most = most

    def cuCtxSetCurrent(self, context: Any) -> int:
        return 0 if context.value == 77 else 201

    def cuMemHostAlloc(self, address: Any, num_bytes: Any, flags: int) -> int:
        if num_bytes.value > self.most:
            return 2
        block = ctypes.create_string_buffer(num_bytes.value)
        address._obj.value = ctypes.addressof(block)
        self.blocks[ctypes.addressof(block)] = block
        return 0

    @property
    def cuMemFreeHost(self) -> Any:
        return FreeHost(self)


class FreeHost:
    def __init__(self, driver: Locking) -> None:
        self.driver = driver

    def __call__(self, address: int) -> int:
        del self.driver.blocks[address]
        return 0


def test_the_driver_locks_memory_and_frees_it() -> None:
    driver = Locking()
    locking = DriverLocking(driver, ctypes.c_void_p(77))
    address = locking.allocate(1000)
    assert address is not None
    assert list(driver.blocks) == [address]
    assert locking.allocate(1001) is None
    locking.free(address)
    assert not driver.blocks
    assert DriverLocking(driver, ctypes.c_void_p(78)).allocate(10) is None
