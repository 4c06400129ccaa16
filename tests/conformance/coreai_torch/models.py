"""Small models as `coreai-torch` writes them, built with the dialect: composites that are invoked, states, weights.

A fixed sample for where there is no torch.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from support.coreai_programs import Array, Sample, add_graph, axis, ints, numbers, ops, packed, uints
from triune.coreai.library import ir
from triune.coreai.lowering.values import tensor_type

WIDTH, HEADS, LENGTH = 16, 4, 8


def _weight(name: str, *shape: int) -> Array:
    seed = sum(name.encode())
    return (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def _rms_norm(x: Any, gain: Any) -> Any:
    square = ops.reduce_mean(ops.mul(x, x), ints(-1))
    scale = ops.rsqrt(ops.broadcasting_add(square, np.float32(1e-5)))
    return ops.broadcasting_mul(ops.broadcasting_mul(x, scale), gain)


_GRAPHS: dict[str, Any] = {}


def add_composites(_module: Any) -> None:
    """The graphs that models invoke, and runtimes know whole."""
    kinds = [tensor_type([1, LENGTH, WIDTH], np.float32), tensor_type([WIDTH], np.float32)]
    declared = ir.Attribute.parse('#coreai.composite_declaration<"rms_norm" = {version = 1 : si64}>')
    _GRAPHS["rms_norm"] = add_graph(
        "rms_norm", [], kinds, _rms_norm, result_names=[""], private=True, no_inline=True, composite_decl=declared
    )


def _composed(x: Any, gain: Any) -> Any:
    normed = next(iter(_GRAPHS["rms_norm"](x, gain)))
    return ops.add(next(iter(_GRAPHS["rms_norm"](normed, gain))), x)


def _heads(x: Any) -> Any:
    return ops.transpose(ops.reshape(x, ints(1, -1, HEADS, WIDTH // HEADS)), uints(0, 2, 1, 3))


def _attention(query: Any, key: Any, value: Any, mask: Any) -> Any:
    scores = ops.broadcasting_batch_matmul(query, ops.transpose(key, uints(0, 1, 3, 2)))
    scores = ops.broadcasting_mul(scores, np.float32((WIDTH // HEADS) ** -0.5))
    weights = ops.softmax(ops.broadcasting_add(scores, mask), axis(-1))
    mixed = ops.transpose(ops.broadcasting_batch_matmul(weights, value), uints(0, 2, 1, 3))
    return ops.reshape(mixed, ints(1, -1, WIDTH))


def _linear(x: Any, name: str, *shape: int) -> Any:
    return ops.broadcasting_batch_matmul(x, ops.constant(_weight(name, *shape)))


def _block(x: Any, mask: Any) -> Any:
    """A transformer's."""
    normed = _rms_norm(x, ops.constant(_weight("gain", WIDTH)))
    query, key, value = (_heads(_linear(normed, name, WIDTH, WIDTH)) for name in "qkv")
    x = ops.add(x, _linear(_attention(query, key, value, mask), "o", WIDTH, WIDTH))
    inner = ops.silu(_linear(x, "up", WIDTH, 3 * WIDTH))
    return ops.add(x, _linear(inner, "down", 3 * WIDTH, WIDTH))


def _cached(x: Any, place: Any, keys: Any) -> Any:
    """A step of decoding: a row of the cache is written at a place that the call says."""
    cache, token = ops.read_handle(keys, ops.create_token())
    start = ops.concat(axis(0), [ops.constant(ints(0)), place, ops.constant(ints(0))])
    end = ops.concat(axis(0), [ops.constant(ints(1)), ops.add(place, ops.constant(ints(1))), ops.constant(ints(WIDTH))])
    new = ops.slice_update(cache, start, end, ints(1, 1, 1), _linear(x, "k", WIDTH, WIDTH))
    scores = ops.batch_matmul(x, ops.transpose(new, uints(0, 2, 1)))
    return [ops.write_handle(keys, new, token), ops.batch_matmul(ops.softmax(scores, axis(-1)), new)]


def _convolutions(x: Any) -> Any:
    """Convolution, batch normalization folded into scale and shift, ReLU, pool, classifier."""
    padded = ops.pad(x, uints(0, 0, 0, 0, 1, 1, 1, 1), np.float32(0))
    one = ops.constant(np.uint32(1))
    x = ops.conv2d(padded, ops.constant(_weight("conv", 8, 3, 3, 3)), uints(2, 2), uints(1, 1), one)
    x = ops.broadcasting_add(ops.broadcasting_mul(x, _weight("scale", 1, 8, 1, 1)), _weight("shift", 1, 8, 1, 1))
    pooled = ops.reduce_mean(ops.relu(x), ints(2, 3))
    return ops.softmax(_linear(ops.reshape(pooled, ints(-1, 8)), "classes", 8, 10), axis(1))


def _compressed(x: Any) -> Any:
    """A weight of four bits by blocks, and one of a palette."""
    rng = np.random.default_rng(5)
    zeros = np.zeros((WIDTH, 2))
    blocks = ops.blockwise_shift_scale(
        packed(rng.integers(-8, 8, (WIDTH, WIDTH)), "si4"),
        np.abs(_weight("scales", WIDTH, 2)),
        packed(zeros, "si4"),
        zeros.astype(np.float32),
    )
    palette = ops.lut_to_dense(
        packed(rng.integers(0, 16, (WIDTH, WIDTH)), "ui4"), _weight("palette", 2, 1, 16, 1), np.int16(0)
    )
    return ops.broadcasting_batch_matmul(ops.gelu(ops.broadcasting_batch_matmul(x, blocks)), palette)


MASK = np.where(np.tri(LENGTH, dtype=bool), 0, -np.inf).astype(np.float32)
_X = numbers(1, LENGTH, WIDTH)

MODELS: Mapping[str, Sample] = {
    "transformer block": Sample(_block, {"x": _X, "mask": MASK}, places={"x": (0, 2)}),
    "composites": Sample(_composed, {"x": _X, "gain": numbers(WIDTH)}, is_static=True),
    "normalization in fp16": Sample(
        lambda x: ops.cast(_rms_norm(ops.cast(x, np.float32), ops.constant(_weight("gain", WIDTH))), np.float16),
        {"x": _X.astype(np.float16)},
        places={"x": (2,)},
    ),
    "decoding step": Sample(
        _cached,
        {"x": numbers(1, 1, WIDTH), "place": ints(3)},
        states={"keys": numbers(1, LENGTH, WIDTH)},
        is_static=True,
    ),
    "convolutions": Sample(_convolutions, {"x": numbers(2, 3, 12, 12)}, places={"x": (1,)}),
    "compressed weights": Sample(_compressed, {"x": numbers(3, WIDTH)}, places={"x": (1,)}),
}
