"""Imports MLX, whose published types are incomplete, and converts its arrays from and to numpy's."""

import contextlib
import os
import threading
from collections.abc import Callable, Generator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeAlias

import ml_dtypes
import mlx.core
import numpy as np
from numpy.typing import NDArray

from triune.core.cache import cache_folder

mx: Any = mlx.core

Value: TypeAlias = Any
"""An array of MLX. It may not be computed yet: MLX computes it when its elements are read, or in `mx.eval`."""

BF16: Final = np.dtype(ml_dtypes.bfloat16)

_KINDS: Mapping[np.dtype[Any], Any] = {
    **{
        np.dtype(name): getattr(mx, name)
        for name in (
            *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
            *("float16", "float32", "complex64"),
        )
    },
    np.dtype(np.bool_): mx.bool_,
    # fp64 becomes fp32, since MLX has no fp64 on GPUs.
    np.dtype(np.float64): mx.float32,
    BF16: mx.bfloat16,
}

_DTYPES: Mapping[Any, np.dtype[Any]] = {kind: dtype for dtype, kind in _KINDS.items() if dtype != np.dtype(np.float64)}

# Compute fp32 in full precision: by default, matrix units would round factors to TF32, which has 11 bits of mantissa.
# MLX reads this variable at the first matrix product.
os.environ.setdefault("MLX_ENABLE_TF32", "0")

# On CUDA, MLX keeps plans of convolutions and of attention by their shapes: the latest 128 and 256 of them. By default,
# it raises an error once it has made twice as many in the process's whole life, so that a server would fail for good
# after some hundred different batches and lengths.
os.environ.setdefault("MLX_ENABLE_CACHE_THRASHING_CHECK", "0")

# Keep the kernels that MLX compiles on CUDA when they are first needed, for minutes in all. By default it caches them
# in a temporary folder, which differs in a worker process and is empty after a restart of the machine.
os.environ.setdefault("MLX_PTX_CACHE_DIR", str(cache_folder() / "ptx" / version("mlx")))

KERNEL_FOLDER: Final = Path(os.environ["MLX_PTX_CACHE_DIR"])
"""The folder in which MLX stores the kernels that it compiled for CUDA."""

_SHARE_OF_MEMORY = 16

# Limit the memory of freed arrays that MLX keeps for later arrays; by default it has no limit.
mx.set_cache_limit(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _SHARE_OF_MEMORY)

_LOCK = threading.Lock()
_STREAM = mx.new_thread_unsafe_stream(mx.default_device())


@contextlib.contextmanager
def exclusive() -> Generator[None]:
    """A context in which only this thread computes with MLX, on the only stream of the process.

    Two streams whose buffers grow have caused kernel panics on Macs. And two threads must not use the same stream of
    MLX.
    """
    with _LOCK, mx.stream(_STREAM):
        yield


def start_kernels(*, in_graphs: bool) -> None:
    """Decide whether MLX starts kernels in graphs of CUDA, or each on its own.

    MLX decides once for a process, at its first operation, by MLX_USE_CUDA_GRAPHS. So this has an effect only before
    that, and only if neither the environment nor an earlier call has decided. Graphs make steps of decoders faster and
    runs of other models slower, since MLX makes a graph anew in each run if cuBLAS chooses kernels with clusters
    (docs/benchmarks.md).
    """
    os.environ.setdefault("MLX_USE_CUDA_GRAPHS", "1" if in_graphs else "0")


def is_gpu() -> bool:
    """Whether MLX computes on a GPU, by Metal or CUDA."""
    return mx.default_device().type == mx.gpu


def device_report() -> str:
    """Describe the device on which MLX computes."""
    return f"MLX on its {'GPU' if is_gpu() else 'CPU'} device"


def fused(function: Callable[..., Value]) -> Callable[..., Value]:
    """Fuse an elementwise function of arrays into one operation on a GPU.

    MLX compiles the function at its first call, for all shapes. On a CPU the function is returned as it is, since MLX
    would need a C++ compiler.
    """
    return mx.compile(function, shapeless=True) if is_gpu() else function


def kind_of(dtype: Any) -> Any:
    """MLX's type for a numpy dtype; fp32 for fp64. Raises KeyError for a dtype that MLX does not have."""
    return _KINDS[np.dtype(dtype)]


def dtype_of(x: Value) -> np.dtype[Any]:
    """The numpy dtype of an array."""
    return _DTYPES[x.dtype]


def from_numpy(array: NDArray[Any]) -> Value:
    """Copy an array to MLX; fp64 becomes fp32."""
    array = array.astype(np.float32) if array.dtype == np.float64 else array
    return mx.array(array if array.flags.c_contiguous else np.array(array, order="C"))


def to_numpy(x: Value) -> NDArray[Any]:
    """Copy an array from MLX to numpy. MLX computes it now, if it has not yet.

    Raises:
        ValueError: the array has no elements yet, because it belongs to a function that is being compiled.
    """
    if x.dtype == mx.bfloat16:
        return np.array(x.view(mx.uint16)).view(BF16)
    return np.array(x)
