"""One kernel for NVIDIA's GPUs that computes a sum and its normalization, RMS or layer. Each layer of a transformer has
this pair of operations twice.
"""

import functools
from typing import Any, Final

from triune.metal.library import Value, mx
from triune.metal.nvidia import is_nvidia

_MOST_THREADS: Final = 1024
_MOST_WIDTH: Final = 16384
"""The most elements of a row: with more, a thread would hold too many of them in registers."""

_BLOCK: Final = 128
"""How many threads a block has, unless one row needs more. A block whose rows have a warp each computes several."""

_VECTORS: Final = 4
"""How many vectors of elements a thread holds, unless a row would then need more than `_MOST_THREADS`."""

_SOURCE: Final = """
  constexpr int VECTORS = WIDTH / SIZE, EACH = (VECTORS + THREADS - 1) / THREADS;
  const int thread = threadIdx.x % THREADS;
  const int row = blockIdx.x * ROWS + threadIdx.x / THREADS;
  // All threads of a warp have the same row. Where rows have several warps, no row is beyond the last.
  if (row >= x_shape[0]) {
    return;
  }
  __shared__ float parts[2][32];
  auto whole = [&](float part, int which) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      part += __shfl_xor_sync(0xffffffff, part, step);
    }
    if constexpr (THREADS > 32) {
      if (thread % 32 == 0) {
        parts[which][thread / 32] = part;
      }
      __syncthreads();
      part = 0;
      for (int warp = 0; warp < THREADS / 32; ++warp) {
        part += parts[which][warp];
      }
    }
    return part;
  };
  const int64_t start = static_cast<int64_t>(row) * WIDTH;
  AlignedVector<T, SIZE> kept[EACH];
  float total = 0;
#pragma unroll
  for (int e = 0; e < EACH; ++e) {
    const int i = thread + e * THREADS;
    if (i < VECTORS) {
      kept[e] = load_vector<SIZE>(x + start, i);
      const auto other = load_vector<SIZE>(y + start, i);
#pragma unroll
      for (int v = 0; v < SIZE; ++v) {
        kept[e][v] = static_cast<T>(static_cast<float>(kept[e][v]) + static_cast<float>(other[v]));
        const float number = static_cast<float>(kept[e][v]);
        total += IS_CENTERED ? number : number * number;
      }
      if (sums != nullptr) {
        store_vector<SIZE>(sums + start, i, kept[e]);
      }
    }
  }
  total = whole(total, 0);
  float mean = 0;
  if constexpr (IS_CENTERED) {
    mean = total / WIDTH;
    total = 0;
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      if (thread + e * THREADS < VECTORS) {
#pragma unroll
        for (int v = 0; v < SIZE; ++v) {
          const float number = static_cast<float>(kept[e][v]) - mean;
          total += number * number;
        }
      }
    }
    total = whole(total, 1);
  }
  const float factor = rsqrtf(total / WIDTH + EPSILON);
#pragma unroll
  for (int e = 0; e < EACH; ++e) {
    const int i = thread + e * THREADS;
    if (i < VECTORS) {
      const auto weights = load_vector<SIZE>(weight, i), biases = load_vector<SIZE>(bias, i);
#pragma unroll
      for (int v = 0; v < SIZE; ++v) {
        const float number = (static_cast<float>(kept[e][v]) - mean) * factor;
        const float scaled = number * static_cast<float>(weights[v]);
        kept[e][v] = static_cast<T>(HAS_BIAS ? scaled + static_cast<float>(biases[v]) : scaled);
      }
      store_vector<SIZE>(normed + start, i, kept[e]);
    }
  }
"""


def add_norm(x: Value, y: Value, weight: Value, epsilon: float) -> tuple[Value, Value]:
    """Compute `x + y`, and that sum divided by its root mean square over the last axis, times the weight.

    Args:
        x: T [..., width].
        y: T [..., width].
        weight: T [width].
        epsilon: the number that is added to the mean of the squares.
    """
    if not _fits(x, y):
        total = x + y
        return total, mx.fast.rms_norm(total, weight, epsilon)
    total, normed = _computed(x, y, weight, None, epsilon, is_centered=False, keeps_sum=True)
    return total, normed


def add_layer_norm(
    x: Value, y: Value, weight: Value, bias: Value | None, epsilon: float, *, keeps_sum: bool
) -> tuple[Value | None, Value]:
    """Compute `x + y`, and the layer normalization of that sum over the last axis.

    Args:
        x: T [..., width].
        y: T of a shape that broadcasts with that of `x`.
        weight: [width].
        bias: [width]; None means zeros.
        epsilon: the number that is added to the variance.
        keeps_sum: whether the sum is returned, too; otherwise None is returned in its place.
    """
    weight = weight.astype(x.dtype)
    bias = None if bias is None else bias.astype(x.dtype)
    if not _fits(x, y):
        total = x + y
        return total if keeps_sum else None, mx.fast.layer_norm(total, weight, bias, epsilon)
    *total, normed = _computed(x, y, weight, bias, epsilon, is_centered=True, keeps_sum=keeps_sum)
    return total[0] if keeps_sum else None, normed


def _fits(x: Value, y: Value) -> bool:
    return is_nvidia() and x.shape == y.shape and x.dtype == y.dtype and x.size > 0 and x.shape[-1] <= _MOST_WIDTH


def _computed(
    x: Value, y: Value, weight: Value, bias: Value | None, epsilon: float, *, is_centered: bool, keeps_sum: bool
) -> list[Value]:
    """The sum, if it is kept, and its normalization."""
    width = x.shape[-1]
    rows = x.size // width
    most = 16 // x.dtype.size
    size = next(each for each in (8, 4, 2, 1) if each <= most and width % each == 0)
    warps = -(-width // (size * _VECTORS * 32))
    threads = min(warps * 32, _MOST_THREADS)
    together = _BLOCK // 32 if threads == 32 else 1
    found = _kernel(epsilon, keeps_sum=keeps_sum)(
        inputs=[x.reshape((rows, width)), y.reshape((rows, width)), weight, weight if bias is None else bias],
        template=[
            *(("T", x.dtype), ("WIDTH", width), ("SIZE", size), ("THREADS", threads), ("ROWS", together)),
            *(("IS_CENTERED", is_centered), ("HAS_BIAS", bias is not None)),
        ],
        grid=(-(-rows // together) * together * threads, 1, 1),
        threadgroup=(together * threads, 1, 1),
        output_shapes=[(rows, width)] * (1 + keeps_sum),
        output_dtypes=[x.dtype] * (1 + keeps_sum),
    )
    return [each.reshape(x.shape) for each in found]


@functools.cache
def _kernel(epsilon: float, *, keeps_sum: bool) -> Any:
    sums = "sum" if keeps_sum else "nullptr"
    return mx.fast.cuda_kernel(
        name="triune_add_norm_with_sum" if keeps_sum else "triune_add_norm",
        input_names=["x", "y", "weight", "bias"],
        output_names=["sum", "normed"] if keeps_sum else ["normed"],
        source=f"  constexpr float EPSILON = {epsilon!r};\n  T* const sums = {sums};\n" + _SOURCE,
    )
