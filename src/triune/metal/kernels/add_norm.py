"""One kernel for NVIDIA's GPUs that computes a sum and its RMS normalization. Each layer of a decoder has this pair of
operations twice.
"""

import functools
from typing import Any, Final

from triune.metal.library import Value, mx
from triune.metal.nvidia import is_nvidia

_MOST_THREADS: Final = 1024
_MOST_WIDTH: Final = 16384
"""The most elements of a row: with more, a thread would hold too many of them in registers."""

_SOURCE: Final = """
  constexpr int EACH = (WIDTH + THREADS - 1) / THREADS;
  __shared__ float squares[32];
  const int thread = threadIdx.x;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * WIDTH;
  T kept[EACH];
  float total = 0;
#pragma unroll
  for (int e = 0; e < EACH; ++e) {
    const int i = thread + e * THREADS;
    if (i < WIDTH) {
      kept[e] = static_cast<T>(static_cast<float>(x[row + i]) + static_cast<float>(y[row + i]));
      sum[row + i] = kept[e];
      total += static_cast<float>(kept[e]) * static_cast<float>(kept[e]);
    }
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    total += __shfl_xor_sync(0xffffffff, total, step);
  }
  if (thread % 32 == 0) {
    squares[thread / 32] = total;
  }
  __syncthreads();
  total = 0;
  for (int warp = 0; warp < THREADS / 32; ++warp) {
    total += squares[warp];
  }
  const float factor = rsqrtf(total / WIDTH + EPSILON);
#pragma unroll
  for (int e = 0; e < EACH; ++e) {
    const int i = thread + e * THREADS;
    if (i < WIDTH) {
      const T whole = static_cast<T>(static_cast<float>(kept[e]) * factor);
      normed[row + i] = static_cast<T>(static_cast<float>(whole) * static_cast<float>(weight[i]));
    }
  }
"""


def add_norm(x: Value, y: Value, weight: Value, epsilon: float) -> tuple[Value, Value]:
    """Compute `x + y`, and that sum normalized over the last axis and multiplied by the weight.

    Args:
        x: T [rows, width].
        y: T [rows, width].
        weight: T [width].
        epsilon: the number that is added to the mean of the squares.
    """
    if not (is_nvidia() and x.ndim == 2 and x.shape == y.shape and x.dtype == y.dtype and x.shape[1] <= _MOST_WIDTH):
        total = x + y
        return total, mx.fast.rms_norm(total, weight, epsilon)
    rows, width = x.shape
    threads = min(-(-width // 128) * 32, _MOST_THREADS)
    total, normed = _kernel(epsilon)(
        inputs=[x, y, weight],
        template=[("T", x.dtype), ("WIDTH", width), ("THREADS", threads)],
        grid=(rows * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[x.shape, x.shape],
        output_dtypes=[x.dtype, x.dtype],
    )
    return total, normed


@functools.cache
def _kernel(epsilon: float) -> Any:
    return mx.fast.cuda_kernel(
        name="triune_add_norm",
        input_names=["x", "y", "weight"],
        output_names=["sum", "normed"],
        source=f"  constexpr float EPSILON = {epsilon!r};\n" + _SOURCE,
    )
