"""Faster copies of inputs and outputs than MLX's on NVIDIA's GPUs, and the folder of the kernels that MLX compiles."""

import ctypes
import functools
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.core.oldest import forget_oldest
from triune.metal.library import Value, dtype_of, from_numpy, is_gpu, kind_of, mx, to_numpy
from triune.metal.pinned import PinnedMemory

LARGE_BYTES: Final = 1 << 20
"""`downloaded` counts an array of at least this many bytes as large."""

_MOST_KEPT: Final = 16

_MOST_PINNED: Final = 256 << 20
_LEAST_SHARE: Final = 64
"""The bytes of page-locked memory for results: at most this many, and at most one part in so many of the machine's
memory.
"""

MOST_KERNEL_FILES: Final = 6000
"""How many files of compiled kernels are kept, three for each kernel: about 200 MB. A model needs ten to forty
kernels.
"""

Copy: TypeAlias = Callable[[int, int, int, int], int]
"""A function that copies bytes: its arguments are the address to copy to, the address to copy from, the number of
bytes, and the direction. It returns CUDA's error code, 0 if there was no error.
"""

_HOST_TO_DEVICE: Final = 1
_DEVICE_TO_HOST: Final = 2
"""The direction of a copy (the last argument of `Copy`): cudaMemcpyDeviceToHost of CUDA's runtime. _HOST_TO_DEVICE is
the other direction, cudaMemcpyHostToDevice.
"""


def is_nvidia() -> bool:
    """Whether MLX computes on a GPU of NVIDIA."""
    return is_gpu() and mx.cuda.is_available()


def trim_kernels(folder: Path, most: int = MOST_KERNEL_FILES) -> None:
    """Remove the oldest files in MLX's folder of compiled kernels, so that at most `most` remain.

    This does nothing if the folder does not exist.

    Raises:
        OSError: a file cannot be removed.
    """
    if folder.is_dir():
        forget_oldest(folder, most)


class Upload:
    """Copies the inputs of a function to the GPU.

    MLX copies a numpy array to managed memory, which moves between the CPU and the GPU page by page: on a machine with
    an H200, 19 MB take 8 ms, and 2.5 ms more when the GPU reads them; a small one takes 0.2 ms. Here the GPU itself
    copies an input into an array that all calls reuse. So the results of a call must be computed before the next call
    begins.
    """

    def __init__(self, copy: Copy | None = None) -> None:
        """`copy` copies inputs to the GPU; None means CUDA's copy if MLX uses a GPU of NVIDIA, else MLX's own."""
        self._copy = copy
        self._kept: OrderedDict[tuple[str, tuple[int, ...], np.dtype[Any]], tuple[Value, int]] = OrderedDict()

    def __call__(self, name: str, array: NDArray[Any]) -> Value:
        """The input `name` as an array of MLX; fp64 becomes fp32."""
        copy = (self._copy or _cuda_copy()) if array.nbytes and array.dtype != np.float64 else None
        if copy is None:
            return from_numpy(array)
        key = name, array.shape, array.dtype
        kept = self._kept.get(key)
        if kept is None:
            kept = _reserve(array)
            self._kept[key] = kept
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        value, address = kept
        source = np.ascontiguousarray(array)
        if code := copy(address, source.ctypes.data, source.nbytes, _HOST_TO_DEVICE):
            raise RuntimeError(f"CUDA could not copy input '{name}' of {source.nbytes} bytes to the GPU: error {code}")
        return value


class Download:
    """Copies a result to numpy.

    MLX would move the result to managed memory, which it would then reuse for later results. Here the GPU copies the
    result, from its own memory.

    Attributes:
        arrays: must be computed (`mx.eval`) before `result` is called.
    """

    def __init__(self, value: Value, copy: Copy | None = None) -> None:
        """Begin to copy a result.

        Args:
            value: an array that is computed, or not yet.
            copy: copies from the GPU; None means CUDA's copy if MLX uses a GPU of NVIDIA, else MLX's own.
        """
        self._copy = (copy or _cuda_copy()) if value.nbytes else None
        self._whole = value if self._copy is None else mx.contiguous(value)
        self._where = _where(self._whole) if self._copy is not None and is_nvidia() else None
        self.arrays = [self._whole] if self._where is None else [self._whole, self._where]

    def result(self) -> NDArray[Any]:
        """The elements, in an array of their own."""
        if self._copy is None:
            return to_numpy(self._whole)
        shape, dtype = self._whole.shape, dtype_of(self._whole)
        memory = _pinned_memory()
        found = None if memory is None else memory.array(shape, dtype)
        found = np.empty(shape, dtype) if found is None else found
        address = _address(self._whole) if self._where is None else int(self._where.item())
        if code := self._copy(found.ctypes.data, address, found.nbytes, _DEVICE_TO_HOST):
            raise RuntimeError(f"CUDA could not copy a result of {found.nbytes} bytes from the GPU: error {code}")
        return found


def downloaded(value: Value, copy: Copy | None = None) -> NDArray[Any]:
    """Copy an array to numpy: a large one by `Download`, a smaller one by `to_numpy`.

    Args:
        value: an array that is computed, or not yet.
        copy: the function that copies, as for `Download`.
    """
    if value.nbytes < LARGE_BYTES:
        return to_numpy(value)
    download = Download(value, copy)
    mx.eval(download.arrays)
    return download.result()


def _reserve(array: NDArray[Any]) -> tuple[Value, int]:
    """Allocate an array of MLX with the shape and type of `array`. Returns it and the address of its elements."""
    value = mx.zeros(array.shape, dtype=kind_of(array.dtype))
    mx.eval(value)
    return value, _address(value)


def _address(value: Value) -> int:
    """The address of the elements of an array that is computed and contiguous."""
    if is_nvidia():
        # Ask a kernel for the address: DLPack, which is used below, would move the elements to managed memory.
        return int(_where(value).item())
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    # The first field of DLPack's tensor, which its capsule owns, is the address.
    capsule = value.__dlpack__()
    address = ctypes.c_void_p.from_address(pointer(capsule, b"dltensor")).value
    if address is None:
        raise RuntimeError(f"MLX has no memory for an array of {value.nbytes} bytes")
    return address


def _where(value: Value) -> Value:
    """INT64 [1], the address of the elements of a contiguous array: a kernel of one thread writes it."""
    (found,) = _address_kernel()(
        inputs=[value.reshape(-1)],
        template=[("T", value.dtype)],
        grid=(1, 1, 1),
        threadgroup=(1, 1, 1),
        output_shapes=[(1,)],
        output_dtypes=[mx.int64],
    )
    return found


@functools.cache
def _address_kernel() -> Any:
    return mx.fast.cuda_kernel(
        name="triune_address",
        input_names=["x"],
        output_names=["address"],
        source="  address[0] = reinterpret_cast<int64_t>(x);\n",
    )


@functools.cache
def _cuda_copy() -> Copy | None:
    """`driver_copy` of CUDA's driver; None if MLX does not compute on a GPU of NVIDIA, or the driver does not copy."""
    copy = driver_copy(ctypes.CDLL("libcuda.so.1")) if is_nvidia() else None
    return copy if copy is not None and does_copy(copy) else None


def does_copy(copy: Copy) -> bool:
    """Try a copy to the GPU and back."""
    array = np.arange(4, dtype=np.int32)
    found = np.zeros_like(array)
    # The array of MLX owns the memory, so it is kept until the end.
    _kept, address = _reserve(array)
    is_there = not copy(address, array.ctypes.data, array.nbytes, _HOST_TO_DEVICE)
    is_back = not copy(found.ctypes.data, address, array.nbytes, _DEVICE_TO_HOST)
    return is_there and is_back and np.array_equal(found, array)


def driver_copy(driver: Any) -> Copy | None:
    """Make a function that copies through CUDA's driver, which is loaded wherever MLX computes on a GPU of NVIDIA.

    CUDA's runtime library, which has `cudaMemcpy`, need not be loaded: MLX has its own copy inside.

    Args:
        driver: the driver's library.

    Returns:
        None if the driver gives no access to the first GPU.
    """
    context = _context(driver)
    if context is None:
        return None
    copies = {_HOST_TO_DEVICE: driver.cuMemcpyHtoD_v2, _DEVICE_TO_HOST: driver.cuMemcpyDtoH_v2}
    for each in copies.values():
        each.restype, each.argtypes = ctypes.c_int, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

    def copy(target: int, source: int, num_bytes: int, direction: int) -> int:
        # A thread that has not used CUDA yet has no context. A copy to the GPU can return before its last bytes are
        # there, and MLX's own stream does not wait for them.
        return (
            driver.cuCtxSetCurrent(context)
            or copies[direction](target, source, num_bytes)
            or (direction == _HOST_TO_DEVICE and driver.cuStreamSynchronize(None))
        )

    return copy


class DriverLocking:
    """Allocates page-locked memory through CUDA's driver (`PageLocking`)."""

    def __init__(self, driver: Any, context: ctypes.c_void_p) -> None:
        """`context` is that of the GPU that copies."""
        self._driver, self._context = driver, context
        driver.cuMemFreeHost.argtypes = (ctypes.c_void_p,)

    def allocate(self, num_bytes: int) -> int | None:
        """Implements `PageLocking.allocate`."""
        address = ctypes.c_void_p()
        code = self._driver.cuCtxSetCurrent(self._context) or self._driver.cuMemHostAlloc(
            ctypes.byref(address), ctypes.c_size_t(num_bytes), 0
        )
        return None if code else address.value

    def free(self, address: int) -> None:
        """Implements `PageLocking.free`."""
        if not self._driver.cuCtxSetCurrent(self._context):
            self._driver.cuMemFreeHost(address)


@functools.cache
def _pinned_memory() -> PinnedMemory | None:
    """The memory for results; None if CUDA's driver does not copy them."""
    if _cuda_copy() is None:
        return None
    driver = ctypes.CDLL("libcuda.so.1")
    context = _context(driver)
    share = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _LEAST_SHARE
    return None if context is None else PinnedMemory(DriverLocking(driver, context), min(_MOST_PINNED, share))


def _context(driver: Any) -> ctypes.c_void_p | None:
    """The context of the first GPU, which MLX uses; None if the driver gives no access to it."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    if (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    ):
        return None
    return context
