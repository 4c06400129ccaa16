"""A kernel for NVIDIA's GPUs that convolves each channel with a kernel of its own.

In a whole model, cuDNN, which MLX calls, chooses a kernel for this that is ten times as slow.
"""

import functools
from collections.abc import Sequence
from typing import Any, Final

from triune.metal.library import Value, mx
from triune.metal.nvidia import is_nvidia

_THREADS: Final = 128
_ROWS: Final = 2
"""A thread computes so many rows of 4 neighbouring results of `_CHANNELS` channels each, and reads once what they
share. Large kernels in fp32 have 2 results in a row, since 4 would need more registers than there are.
"""

_CHANNELS: Final = 4
_MOST_CHANNELS: Final = 128
"""The most channels of a block of threads. It keeps the kernels of its channels in shared memory, as fp32."""

_LARGEST: Final = 7
"""The most rows or columns of a kernel: with more, a thread would need more registers than there are."""

_SMALL: Final = 3
"""The largest kernel for which a thread computes 4 results in a row in fp32."""

_BLOCKS: Final = 1056
"""The number of blocks from which on each block computes several tiles, 8 for each of an H200's multiprocessors."""

_MOST_TILES: Final = 4
"""The most tiles of a thread, if that leaves `_BLOCKS` blocks."""

_SOURCE: Final = """
  struct alignas(CHANNELS * sizeof(T)) Pack {
    uint32_t words[CHANNELS * sizeof(T) / 4];
  };
  constexpr int SLAB = LANES * CHANNELS;
  constexpr int SPAN = (COLUMNS - 1) * SW + KW;
  constexpr int TALL = (ROWS - 1) * SH + KH;
  __shared__ __align__(16) float kept[KH * KW * SLAB];
  const int height = x_shape[1], width = x_shape[2], channels = x_shape[3];
  const int rows = (height + TOP + BOTTOM - KH) / SH + 1;
  const int columns = (width + LEFT + RIGHT - KW) / SW + 1;
  const int across = (columns + COLUMNS - 1) / COLUMNS;
  const int down = (rows + ROWS - 1) / ROWS;
  const int64_t tiles = static_cast<int64_t>(x_shape[0]) * down * across;
  const int slab = blockIdx.y * SLAB;
  for (int i = threadIdx.x; i < KH * KW * SLAB; i += THREADS) {
    const int own = i / (KH * KW);
    kept[i % (KH * KW) * SLAB + own] =
        slab + own < channels ? static_cast<float>(weights[slab * KH * KW + i]) : 0.0f;
  }
  __syncthreads();
  const int at = threadIdx.x % LANES * CHANNELS;
  const int channel = slab + at;
  if (channel >= channels) {
    return;
  }
  constexpr int EACH = THREADS / LANES;
  for (int64_t tile = static_cast<int64_t>(blockIdx.x) * EACH + threadIdx.x / LANES; tile < tiles;
       tile += static_cast<int64_t>(gridDim.x) * EACH) {
    const int first = tile % across * COLUMNS;
    const int top = tile / across % down * ROWS;
    const int64_t image = tile / across / down;
    float total[ROWS][COLUMNS][CHANNELS] = {};
#pragma unroll
    for (int r = 0; r < TALL; ++r) {
      const int y = top * SH + r - TOP;
      const bool is_row = y >= 0 && y < height;
      const T* line = x + (image * height + (is_row ? y : 0)) * width * channels + channel;
      // All elements of the row are read before the first is used, so that their latencies overlap.
      Pack read[SPAN];
#pragma unroll
      for (int s = 0; s < SPAN; ++s) {
        const int z = first * SW + s - LEFT;
        read[s] = {};
        if (is_row && z >= 0 && z < width) {
          read[s] = *reinterpret_cast<const Pack*>(line + static_cast<int64_t>(z) * channels);
        }
      }
#pragma unroll
      for (int q = 0; q < ROWS; ++q) {
        const int i = r - q * SH;
        if (i >= 0 && i < KH) {
#pragma unroll
          for (int j = 0; j < KW; ++j) {
            float w[CHANNELS];
#pragma unroll
            for (int v = 0; v < CHANNELS; v += 4) {
              *reinterpret_cast<float4*>(w + v) =
                  *reinterpret_cast<const float4*>(kept + (i * KW + j) * SLAB + at + v);
            }
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
              const T* element = reinterpret_cast<const T*>(read + c * SW + j);
#pragma unroll
              for (int v = 0; v < CHANNELS; ++v) {
                total[q][c][v] += static_cast<float>(element[v]) * w[v];
              }
            }
          }
        }
      }
    }
#pragma unroll
    for (int q = 0; q < ROWS; ++q) {
      T* target = found + ((image * rows + top + q) * columns + first) * channels + channel;
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        if (top + q < rows && first + c < columns) {
          Pack written;
          T* element = reinterpret_cast<T*>(&written);
#pragma unroll
          for (int v = 0; v < CHANNELS; ++v) {
            element[v] = static_cast<T>(total[q][c][v]);
          }
          *reinterpret_cast<Pack*>(target + static_cast<int64_t>(c) * channels) = written;
        }
      }
    }
  }
"""


def fits(x: Value, weights: Value, dilations: Sequence[int], groups: int) -> bool:
    """Whether `depthwise` computes a convolution on this machine.

    Args:
        x: (batch, height, width, channels).
        weights: (filters, kernel height, kernel width, channels of a group).
        dilations: those of the kernel.
        groups: the number of groups of channels.
    """
    return (
        is_nvidia()
        and x.ndim == 4
        and x.size > 0
        # Then `x` is not a view of channels first, which could begin at any address: the kernel reads several channels
        # at once.
        and x.shape[1] * x.shape[2] > 1
        and x.dtype == weights.dtype
        and groups == x.shape[3] == weights.shape[0]
        and groups % _CHANNELS == 0
        and max(weights.shape[1:3]) <= _LARGEST
        and {*dilations} == {1}
    )


def depthwise(x: Value, weights: Value, strides: Sequence[int], pads: Sequence[tuple[int, int]]) -> Value:
    """Convolve each channel with a kernel of its own, where `fits` is true. Sums are in fp32.

    Args:
        x: FP32, FP16 or BF16 (batch, height, width, channels).
        weights: of the same type, (channels, kernel height, kernel width, 1).
        strides: those along height and width.
        pads: the numbers of zeros before and after height and width.
    """
    batch, *sizes, channels = x.shape
    kernel = weights.shape[1:3]
    rows, columns = (
        (size + low + high - extent) // stride + 1
        for size, (low, high), extent, stride in zip(sizes, pads, kernel, strides, strict=True)
    )
    lanes = min(1 << (channels // _CHANNELS - 1).bit_length(), _MOST_CHANNELS // _CHANNELS)
    slabs = -(-channels // (lanes * _CHANNELS))
    across = 2 if x.dtype.size == mx.float32.size and max(kernel) > _SMALL else 4
    tiles = batch * -(-rows // _ROWS) * -(-columns // across)
    blocks = -(-tiles * lanes // _THREADS)
    blocks = min(blocks, max(-(-_BLOCKS // slabs), -(-blocks // _MOST_TILES)))
    (found,) = _kernel()(
        inputs=[x, weights],
        template=[
            ("T", x.dtype),
            *zip(("KH", "KW"), kernel, strict=True),
            *zip(("SH", "SW"), strides, strict=True),
            *zip(("TOP", "BOTTOM", "LEFT", "RIGHT"), (*pads[0], *pads[1]), strict=True),
            *zip(("LANES", "CHANNELS"), (lanes, _CHANNELS), strict=True),
            *zip(("ROWS", "COLUMNS", "THREADS"), (_ROWS, across, _THREADS), strict=True),
        ],
        grid=(blocks * _THREADS, slabs, 1),
        threadgroup=(_THREADS, 1, 1),
        output_shapes=[(batch, rows, columns, channels)],
        output_dtypes=[x.dtype],
    )
    return found


@functools.cache
def _kernel() -> Any:
    return mx.fast.cuda_kernel(
        name="triune_depthwise", input_names=["x", "weights"], output_names=["found"], source=_SOURCE
    )
