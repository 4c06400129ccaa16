"""Attention of one new token of each sequence over a paged cache, on NVIDIA's GPUs: one kernel rotates queries and
keys, writes keys and values to the cache, and computes attention, instead of five kernels of MLX.

A block of threads computes one head of keys of one sequence, and up to `_MOST_HEADS` heads of queries. `LANES` threads
share a key, eight elements each; the sums of exponents are kept relative to a running maximum (Dao et al., 2022,
arXiv:2205.14135). If there are so few sequences that most of the GPU would be idle, several blocks divide the keys of a
sequence among them (Dao et al., "Flash-Decoding", 2023), and a second kernel combines their results.
"""

import functools
from dataclasses import dataclass
from typing import Any, Final

from triune.metal.library import Value, mx

_MOST_HEADS: Final = 8
_MOST_NUMBERS: Final = 1024
"""A block of threads computes at most `_MOST_HEADS` heads of queries. Their results, of at most `_MOST_NUMBERS`
elements together, are in its shared memory.
"""

_THREADS: Final = 256
_BLOCKS: Final = 132
"""The number of blocks of threads that keep a GPU busy: one for each multiprocessor of an H100."""

_PART: Final = 256
"""The fewest tokens of the cache for which a block of threads is worth starting."""

_MOST_PARTS: Final = 32

_HEADER: Final = """
template <int PAIRS, bool INTERLEAVED, typename T>
__device__ float turned(const T* x, int i, const float* cosines, const float* sines) {
  if constexpr (PAIRS > 0) {
    if (i < 2 * PAIRS) {
      const int pair = INTERLEAVED ? i / 2 : i % PAIRS;
      const bool is_second = INTERLEAVED ? i % 2 == 1 : i >= PAIRS;
      const float one = static_cast<float>(x[INTERLEAVED ? 2 * pair : pair]);
      const float other = static_cast<float>(x[INTERLEAVED ? 2 * pair + 1 : pair + PAIRS]);
      return is_second ? one * sines[pair] + other * cosines[pair] : one * cosines[pair] - other * sines[pair];
    }
  }
  return static_cast<float>(x[i]);
}
"""

_ATTEND: Final = """
  constexpr int WARPS = THREADS / 32;
  constexpr int LANES = D / 8;
  constexpr int KEYS = 32 / LANES;
  constexpr int G = HEADS / KV_HEADS / CHUNKS;
  constexpr float LOWEST = -1e30f;
  __shared__ float queries[G * D];
  __shared__ float fresh[2 * D];
  __shared__ float joined[WARPS * G * D];
  __shared__ float maxima[WARPS * G];
  __shared__ float sums[WARPS * G];

  const int part = blockIdx.x, num_parts = gridDim.x;
  const int head = blockIdx.y / CHUNKS, chunk = blockIdx.y % CHUNKS, sequence = blockIdx.z;
  const int first = sequence * HEADS + head * (HEADS / KV_HEADS) + chunk * G;
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int columns = table_shape[1];
  const int length = past[sequence];
  const T* token = qkv + static_cast<int64_t>(sequence) * (HEADS + 2 * KV_HEADS) * D;
  const int place = min(max(positions[sequence], 0), cosines_shape[0] - 1);
  const float* cosine = cosines + static_cast<int64_t>(place) * PAIRS;
  const float* sine = sines + static_cast<int64_t>(place) * PAIRS;

  // A row beyond the last sequence.
  if (length < 0) {
    for (int i = thread; i < G * D; i += THREADS) {
      if constexpr (IS_PART) {
        O* numbers = out + static_cast<int64_t>((first + i / D) * num_parts + part) * (D + 2);
        numbers[i % D] = static_cast<O>(0.0f);
        numbers[D] = static_cast<O>(LOWEST);
        numbers[D + 1] = static_cast<O>(0.0f);
      } else {
        out[first * D + i] = static_cast<O>(0.0f);
      }
    }
    return;
  }
  for (int i = thread; i < G * D; i += THREADS) {
    const int row = head * (HEADS / KV_HEADS) + chunk * G + i / D;
    const float x = turned<PAIRS, INTERLEAVED>(token + row * D, i % D, cosine, sine);
    queries[i] = static_cast<float>(static_cast<T>(x)) * SCALE;
  }
  if (part == 0) {
    const T* key = token + (HEADS + head) * D;
    const T* value = key + KV_HEADS * D;
    const int64_t block = table[static_cast<int64_t>(sequence) * columns + length / BLOCK];
    C* row = const_cast<C*>(cache) + ((block * 2 * KV_HEADS + head) * BLOCK + length % BLOCK) * D;
    for (int i = thread; i < D; i += THREADS) {
      const float number = static_cast<float>(value[i]);
      const float x = static_cast<float>(static_cast<T>(turned<PAIRS, INTERLEAVED>(key, i, cosine, sine)));
      const bool is_usable = isfinite(number);
      const C new_key = static_cast<C>(is_usable ? x : __int_as_float(0x7fc00000));
      const C new_value = static_cast<C>(is_usable ? number : 0.0f);
      fresh[i] = static_cast<float>(new_key);
      fresh[D + i] = static_cast<float>(new_value);
      if (chunk == 0) {
        row[i] = new_key;
        row[static_cast<int64_t>(KV_HEADS) * BLOCK * D + i] = new_value;
      }
    }
  }
  __syncthreads();

  const int member = lane % LANES, which = lane / LANES;
  float q[G][8], best[G], sum[G], found[G][8];
  for (int g = 0; g < G; ++g) {
    best[g] = LOWEST;
    sum[g] = 0;
    for (int e = 0; e < 8; ++e) {
      q[g][e] = queries[g * D + member * 8 + e];
      found[g][e] = 0;
    }
  }
  auto attend = [&](const float (&key)[8], const float (&value)[8], bool is_key) {
#pragma unroll
    for (int g = 0; g < G; ++g) {
      float score = 0;
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        score += q[g][e] * key[e];
      }
#pragma unroll
      for (int step = LANES / 2; step > 0; step /= 2) {
        score += __shfl_xor_sync(0xffffffff, score, step);
      }
      if (is_key) {
        if constexpr (HAS_CAP) {
          score = CAP * tanhf(score / CAP);
        }
        score *= 1.44269504f;
        const float most = fmaxf(best[g], score), kept = exp2f(best[g] - most), weight = exp2f(score - most);
        best[g] = most;
        sum[g] = sum[g] * kept + weight;
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          found[g][e] = found[g][e] * kept + weight * value[e];
        }
      }
    }
  };
  const int begin = WINDOW > 0 ? max(length - WINDOW + 1, 0) : 0;
  const int each = (length - begin + num_parts - 1) / num_parts;
  const int low = begin + part * each, high = min(low + each, length);
  for (int base = low + warp * KEYS; base < high; base += WARPS * KEYS) {
    const int index = base + which;
    float key[8], value[8];
    for (int e = 0; e < 8; ++e) {
      key[e] = value[e] = 0;
    }
    if (index < high) {
      const int64_t block = table[static_cast<int64_t>(sequence) * columns + index / BLOCK];
      const C* row = cache + ((block * 2 * KV_HEADS + head) * BLOCK + index % BLOCK) * D + member * 8;
      const auto keys = *reinterpret_cast<const AlignedVector<C, 8>*>(row);
      const auto values =
          *reinterpret_cast<const AlignedVector<C, 8>*>(row + static_cast<int64_t>(KV_HEADS) * BLOCK * D);
      for (int e = 0; e < 8; ++e) {
        key[e] = static_cast<float>(keys.val[e]);
        value[e] = static_cast<float>(values.val[e]);
      }
    }
    attend(key, value, index < high);
  }
  if (part == 0 && warp == 0) {
    float key[8], value[8];
    for (int e = 0; e < 8; ++e) {
      key[e] = fresh[member * 8 + e];
      value[e] = fresh[D + member * 8 + e];
    }
    attend(key, value, which == 0);
  }
#pragma unroll
  for (int g = 0; g < G; ++g) {
#pragma unroll
    for (int step = LANES; step < 32; step *= 2) {
      const float theirs = __shfl_xor_sync(0xffffffff, best[g], step);
      const float most = fmaxf(best[g], theirs), mine = exp2f(best[g] - most), other = exp2f(theirs - most);
      best[g] = most;
      sum[g] = sum[g] * mine + __shfl_xor_sync(0xffffffff, sum[g], step) * other;
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        found[g][e] = found[g][e] * mine + __shfl_xor_sync(0xffffffff, found[g][e], step) * other;
      }
    }
    if (which == 0) {
      for (int e = 0; e < 8; ++e) {
        joined[(warp * G + g) * D + member * 8 + e] = found[g][e];
      }
      if (member == 0) {
        maxima[warp * G + g] = best[g];
        sums[warp * G + g] = sum[g];
      }
    }
  }
  __syncthreads();
  for (int i = thread; i < G * D; i += THREADS) {
    const int g = i / D;
    float most = LOWEST, total = 0, x = 0;
    for (int w = 0; w < WARPS; ++w) {
      most = fmaxf(most, maxima[w * G + g]);
    }
    for (int w = 0; w < WARPS; ++w) {
      const float weight = exp2f(maxima[w * G + g] - most);
      total += sums[w * G + g] * weight;
      x += joined[w * G * D + i] * weight;
    }
    if constexpr (IS_PART) {
      O* numbers = out + static_cast<int64_t>((first + g) * num_parts + part) * (D + 2);
      numbers[i % D] = static_cast<O>(x);
      numbers[D] = static_cast<O>(most);
      numbers[D + 1] = static_cast<O>(total);
    } else {
      out[first * D + i] = static_cast<O>(x / total);
    }
  }
"""

_JOIN: Final = """
  const int row = blockIdx.x, i = threadIdx.x, num_parts = parts_shape[1];
  const float* found = parts + static_cast<int64_t>(row) * num_parts * (D + 2);
  float most = -1e30f, total = 0, x = 0;
  for (int part = 0; part < num_parts; ++part) {
    most = fmaxf(most, found[part * (D + 2) + D]);
  }
  for (int part = 0; part < num_parts; ++part) {
    const float weight = exp2f(found[part * (D + 2) + D] - most);
    total += found[part * (D + 2) + D + 1] * weight;
    x += found[part * (D + 2) + i] * weight;
  }
  // No part has a key in a row beyond the last sequence.
  out[row * D + i] = static_cast<O>(total == 0 ? 0.0f : x / total);
"""


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of an attention.

    Attributes:
        num: the number of heads of queries.
        num_kv: the number of heads of keys, a divisor of `num`.
        size: the number of elements of a head.
        scale: the factor of the scores.
        window: the number of tokens, including itself, that each token attends to; 0 means no limit.
        cap: the limit of the scores (soft cap); 0 means none.
    """

    num: int
    num_kv: int
    size: int
    scale: float
    window: int
    cap: float

    @property
    def fits(self) -> bool:
        """Whether the kernel supports this size: the threads of a warp share a head, with eight elements each."""
        return self.size in (8, 16, 32, 64, 128, 256)

    @property
    def chunks(self) -> int:
        """The number of thread blocks among which the query heads of one key head are divided."""
        shared = self.num // self.num_kv
        most = min(_MOST_HEADS, _MOST_NUMBERS // self.size)
        return next(count for count in range(1, shared + 1) if shared % count == 0 and shared // count <= most)


@dataclass(frozen=True, slots=True, eq=False)
class Angles:
    """The angles by which queries and keys are rotated.

    Attributes:
        cosines: FP32 [positions, pairs].
        sines: FP32 [positions, pairs].
        positions: INT32 [sequences].
        is_interleaved: whether the two elements of a pair are adjacent.
    """

    cosines: Value
    sines: Value
    positions: Value
    is_interleaved: bool


def attend(
    heads: Heads, qkv: Value, cache: Value, block_size: int, past: Value, table: Value, angles: Angles | None
) -> Value:
    """Write the keys and values of the new tokens to a cache IN PLACE, and compute the attention of the queries.

    MLX does not know that this writes to `cache`. Read the cache only in a later evaluation of the same stream, and
    before MLX itself writes to it, wait until this evaluation has ended (`mx.synchronize`).

    Args:
        heads: the heads.
        qkv: T [sequences, (num + 2 * num_kv) * size]: queries, keys and values of the new tokens, not yet rotated.
        cache: [blocks * 2 * num_kv * block_size, size], fp32, fp16 or bf16, contiguous.
        block_size: the number of tokens in a block.
        past: INT32 [sequences], the number of tokens that each sequence has in the cache; -1 for a row without a
            sequence, whose result is 0.
        table: INT32 [sequences, columns], the cache blocks of each sequence.
        angles: the angles of the rotation; None if queries and keys are already rotated.

    Returns:
        T [sequences, num * size]
    """
    count, size, chunks = qkv.shape[0], heads.size, heads.chunks
    blocks = count * heads.num_kv * chunks
    capacity = min(table.shape[1] * block_size, heads.window or table.shape[1] * block_size)
    num_parts = max(1, min(-(-_BLOCKS // blocks), capacity // _PART, _MOST_PARTS))
    is_part = num_parts > 1
    if angles is None:
        empty = mx.zeros((1, 1))
        angles = Angles(empty, empty, past, is_interleaved=False)
        pairs = 0
    else:
        pairs = angles.cosines.shape[1]
    kind = mx.float32 if is_part else qkv.dtype
    (found,) = _attend_kernel(heads.scale, heads.cap)(
        inputs=[qkv, cache, angles.cosines, angles.sines, angles.positions, past, table],
        template=[
            *(("T", qkv.dtype), ("C", cache.dtype), ("O", kind), ("D", size), ("PAIRS", pairs), ("CHUNKS", chunks)),
            *(("HEADS", heads.num), ("KV_HEADS", heads.num_kv), ("BLOCK", block_size), ("WINDOW", heads.window)),
            *(("INTERLEAVED", angles.is_interleaved), ("HAS_CAP", heads.cap > 0), ("IS_PART", is_part)),
            ("THREADS", _THREADS),
        ],
        grid=(num_parts * _THREADS, heads.num_kv * chunks, count),
        threadgroup=(_THREADS, 1, 1),
        output_shapes=[(count * heads.num, num_parts, size + 2) if is_part else (count, heads.num * size)],
        output_dtypes=[kind],
    )
    if not is_part:
        return found
    (whole,) = _join_kernel()(
        inputs=[found],
        template=[("O", qkv.dtype), ("D", size)],
        grid=(count * heads.num * size, 1, 1),
        threadgroup=(size, 1, 1),
        output_shapes=[(count, heads.num * size)],
        output_dtypes=[qkv.dtype],
    )
    return whole


@functools.cache
def _attend_kernel(scale: float, cap: float) -> Any:
    constants = f"  constexpr float SCALE = {scale!r}, CAP = {max(cap, 1.0)!r};\n"
    return mx.fast.cuda_kernel(
        name="triune_attend",
        input_names=["qkv", "cache", "cosines", "sines", "positions", "past", "table"],
        output_names=["out"],
        header=_HEADER,
        source=constants + _ATTEND,
    )


@functools.cache
def _join_kernel() -> Any:
    return mx.fast.cuda_kernel(name="triune_join", input_names=["parts"], output_names=["out"], source=_JOIN)
