"""Faster replacements for operations that MLX does slowly on NVIDIA's GPUs: copying large inputs and outputs, and
convolutions with kernels of one element.
"""

import ctypes
import functools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.core.oldest import forget_oldest
from triune.metal.library import Value, dtype_of, from_numpy, is_gpu, kind_of, mx, to_numpy

LARGE_BYTES: Final = 1 << 20
"""From how many bytes on an input or output is large."""

_MOST_KEPT: Final = 8

MOST_KERNEL_FILES: Final = 6000
"""How many files of compiled kernels are kept, three for each: some 200 MB. A model needs some ten to forty kernels."""

Copy: TypeAlias = Callable[[int, int, int, int], int]
"""Copies bytes, given two addresses, to and from, the number, and CUDA's word for the direction. Returns an error code,
or 0.
"""

_HOST_TO_DEVICE: Final = 1
_DEVICE_TO_HOST: Final = 2
"""cudaMemcpyHostToDevice and cudaMemcpyDeviceToHost of CUDA's runtime."""


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


def pointwise(x: Value, weights: Value) -> Value:
    """Compute a convolution with kernels of one element as a matrix product, which is up to four times as fast as MLX's
    convolution.

    Args:
        x: (batch, ..., channels).
        weights: (filters, 1, ..., 1, channels), of the same type.
    """
    return mx.matmul(x, mx.transpose(weights.reshape((weights.shape[0], -1))))


class Upload:
    """Copies the inputs of a function to the GPU.

    MLX copies a numpy array to managed memory, which moves between the CPU and the GPU page by page: on a machine with
    an H200, 19 MB take 8 ms, and 2.5 ms more when the GPU reads them. Here the GPU itself copies a large input, in 1.6
    ms, into an array that all calls reuse. So the results of a call must be computed before the next call begins.
    """

    def __init__(self, copy: Copy | None = None) -> None:
        """Args:
        copy: copies memory to the GPU. None means CUDA's function if MLX computes on an NVIDIA GPU; otherwise large
            inputs are copied like small ones.
        """
        self._copy = copy
        self._kept: OrderedDict[tuple[str, tuple[int, ...], np.dtype[Any]], tuple[Value, int]] = OrderedDict()

    def __call__(self, name: str, array: NDArray[Any]) -> Value:
        """Copy the input `name` to an array of MLX; fp64 becomes fp32."""
        is_large = array.nbytes >= LARGE_BYTES and array.dtype != np.float64
        copy = (self._copy or _cuda_copy()) if is_large else None
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


def downloaded(value: Value, copy: Copy | None = None) -> NDArray[Any]:
    """Copy an array from MLX to numpy, as `to_numpy` does. The GPU copies a large array, since the CPU would read it
    page by page.

    Args:
        value: an array, whether MLX has computed it or not.
        copy: copies memory from the GPU. None means CUDA's function if MLX computes on an NVIDIA GPU; otherwise a large
            array is copied like a small one.
    """
    copy = (copy or _cuda_copy()) if value.nbytes >= LARGE_BYTES else None
    if copy is None:
        return to_numpy(value)
    whole = mx.contiguous(value)
    mx.eval(whole)
    found = np.empty(whole.shape, dtype_of(whole))
    if code := copy(found.ctypes.data, _address(whole), found.nbytes, _DEVICE_TO_HOST):
        raise RuntimeError(f"CUDA could not copy a result of {found.nbytes} bytes from the GPU: error {code}")
    return found


def _reserve(array: NDArray[Any]) -> tuple[Value, int]:
    """Allocate an array of MLX with the shape and type of `array`. Returns it and the address of its elements."""
    value = mx.zeros(array.shape, dtype=kind_of(array.dtype))
    mx.eval(value)
    return value, _address(value)


def _address(value: Value) -> int:
    """The address of the elements of an array that MLX has computed and that is contiguous."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    # The first field of DLPack's tensor, which its capsule owns, is the address.
    capsule = value.__dlpack__()
    address = ctypes.c_void_p.from_address(pointer(capsule, b"dltensor")).value
    if address is None:
        raise RuntimeError(f"MLX has no memory for an array of {value.nbytes} bytes")
    return address


@functools.cache
def _cuda_copy() -> Copy | None:
    """`cudaMemcpy` of the CUDA runtime that MLX has loaded; None if MLX does not compute on a GPU of NVIDIA."""
    if not is_nvidia():
        return None
    try:
        copy = ctypes.CDLL(_loaded("libcudart.so")).cudaMemcpy
    except (OSError, StopIteration):
        return None
    copy.restype, copy.argtypes = ctypes.c_int, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return copy


def _loaded(name: str) -> str:
    """The path of a library that this process has loaded. Raises StopIteration if there is none."""
    with Path("/proc/self/maps").open() as maps:
        return next(line.split()[-1] for line in maps if f"/{name}" in line)
