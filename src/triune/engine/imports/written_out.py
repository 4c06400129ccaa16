"""Finds attention that is written out as MatMul, Softmax and MatMul, as Optimum exports it.

How masks, scales, soft caps and repeated heads are written differs between exporters and their versions. So they are
not matched: the nodes between queries, keys, values and the result are computed on random numbers, and compared with
attention.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from triune.core.errors import UnsupportedError
from triune.engine.imports.found import FoundAttention
from triune.engine.imports.interface import Past
from triune.engine.imports.probe import Probe, Sizes
from triune.graph.index import Index, label
from triune.graph.values import attributes_of

_MOVES: Final = ("Transpose", "Reshape", "Unsqueeze", "Squeeze", "Expand", "Tile", "Cast", "Mul", "Div", "Identity")
"""Operators that may stand between a cache and the MatMul that reads its keys or values."""

_SEEN: Final = -1.0
"""To find which keys are masked, all scores are set to 0 before the mask. A key is masked if its score is less than
`_SEEN * _LARGE` (-1000) after the mask.
"""

_LARGE: Final = 1e3


def find_written_out(index: Index, past: Past, probes: Sequence[Probe]) -> FoundAttention:
    """Find the attention that reads the caches `past`.

    Args:
        index: the graph.
        past: the caches of a layer.
        probes: the graph with fixed sizes. The first probe has several sequences, each with several earlier and new
            tokens. The last has one new token, and as many earlier ones as there can be.

    Raises:
        UnsupportedError: there is no attention, or it differs from what `triune::PagedAttention` computes.
    """
    (key, keys), (value, values) = (_joined(index, name) for name in (past.key, past.value))
    product, mix = _product(index, keys), _product(index, values)
    query, kind = product.input[0], index.values.elem_type(product.input[0])
    first = probes[0]
    softmax = [node for node in first.between(mix.input[0], [product.output[0]]) if node.op_type == "Softmax"]
    if len(softmax) != 1:
        raise UnsupportedError(f"there are {len(softmax)} Softmax between {label(product)} and {label(mix)}, not one")
    dtype = np.dtype(np.float16 if kind == TensorProto.FLOAT16 else np.float32)
    rng, sizes = np.random.default_rng(0), first.sizes
    num_heads = _num_heads(index, first, query, product, past)
    shape = sizes.batch, past.num_heads, sizes.total, past.head_size
    queries = rng.normal(size=(sizes.batch, num_heads, sizes.new, past.head_size)).astype(dtype)
    many_keys, many_values = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    factor = _factor(first.compute(product.output[0], {query: queries, keys: many_keys}), queries, many_keys, product)
    scale, cap = _curve(first, product, softmax[0])
    window = _window(probes[-1], product, softmax[0], num_heads)
    found = first.compute(mix.output[0], {query: queries, keys: many_keys, values: many_values})
    expected = _attention(queries, many_keys, many_values, sizes, factor * scale, window, cap)
    tolerance = 2e-2 if dtype == np.float16 else 1e-4
    for probe in probes:
        _require_causal(probe, product, softmax[0], num_heads, window)
    if found.shape != expected.shape or not np.allclose(found, expected, tolerance, tolerance):
        raise UnsupportedError(
            f"what {label(product)}, {label(softmax[0])} and {label(mix)} compute is not attention with a scale of "
            f"{factor * scale:g}, a window of {window} and a soft cap of {cap:g}, which their scores show"
        )
    return FoundAttention(
        output=mix.output[0],
        query=query,
        key=key,
        value=value,
        packed="",
        is_flat=False,
        num_heads=num_heads,
        scale=factor * scale,
        sliding_window=window,
        softcap=cap,
    )


def _joined(index: Index, past: str) -> tuple[str, str]:
    """Find the Concat of the cache `past` and the new keys or values. Returns the names of the new ones, and of earlier
    and new ones together. Raises UnsupportedError if anything else reads the cache.
    """
    readers = [node for node in index.readers(past) if node.op_type != "Shape"]
    node = readers[0] if len(readers) == 1 else None
    axis = attributes_of(node).get("axis") if node is not None and node.op_type == "Concat" else None
    if node is None or axis not in (2, -2) or len(node.input) != 2 or node.input[0] != past:
        found = ", ".join(map(label, readers)) or "nothing"
        raise UnsupportedError(
            f"'{past}' is read by {found}; expected is GroupQueryAttention, or a Concat of it and the new tokens along "
            "axis 2"
        )
    return node.input[1], node.output[0]


def _product(index: Index, name: str) -> NodeProto:
    """The only MatMul whose second operand is computed from the keys or values `name`. Raises UnsupportedError if there
    is not exactly one, or if nodes of other kinds read them.
    """
    found: dict[int, NodeProto] = {}
    waiting, seen = [name], {name}
    while waiting:
        each = waiting.pop()
        for node in index.readers(each):
            if node.op_type == "MatMul" and node.input[1] == each:
                found[id(node)] = node
            elif (node.op_type in _MOVES and node.input[0] == each) or node.op_type == "Mul":
                waiting += [output for output in node.output if output not in seen]
                seen.update(node.output)
            elif node.op_type != "Shape":
                raise UnsupportedError(f"'{name}' is read by {label(node)}; expected is a MatMul")
    if len(found) != 1:
        raise UnsupportedError(f"'{name}' is read by {len(found)} MatMul; expected is one")
    return next(iter(found.values()))


def _num_heads(index: Index, probe: Probe, query: str, product: NodeProto, past: Past) -> int:
    """The number of heads of queries, by the shape of `query`. Raises UnsupportedError if that is not the shape of
    queries for the caches `past`.
    """
    shape = probe.shape(query)
    if shape is None or len(shape) != 4 or shape[1] % past.num_heads or shape[3] != past.head_size:
        raise UnsupportedError(
            f"the queries '{query}' of {label(product)} have the shape {shape}; expected is [batch, heads, tokens, "
            f"{past.head_size}], with a multiple of {past.num_heads} heads"
        )
    return shape[1]


def _repeated(keys: NDArray[Any], num_heads: int) -> NDArray[np.float32]:
    return np.repeat(keys, num_heads // keys.shape[1], axis=1).astype(np.float32)


def _factor(found: NDArray[Any], queries: NDArray[Any], keys: NDArray[Any], product: NodeProto) -> float:
    """The factor f in `found` = f * queries * keys: exporters may scale queries or keys before they are multiplied.
    `found` is the result of the MatMul `product`, [batch, heads, new, total]. Raises UnsupportedError if there is no
    such factor.
    """
    plain = np.einsum("bhsd,bhtd->bhst", queries.astype(np.float32), _repeated(keys, queries.shape[1]))
    if found.shape == plain.shape:
        factor = float((found * plain).sum() / (plain * plain).sum())
        if np.allclose(found, factor * plain, 1e-2, 1e-2 * abs(factor)):
            return factor
    raise UnsupportedError(
        f"{label(product)} does not compute the products of queries and keys, whose heads may be repeated"
    )


def _scored(probe: Probe, product: NodeProto, softmax: NodeProto, num_heads: int, score: float) -> NDArray[np.float64]:
    """Compute the scores after scale and mask if all products of queries and keys are `score`: [batch, heads, new,
    total].
    """
    sizes, dtype = probe.sizes, np.float32
    scores = np.full((sizes.batch, num_heads, sizes.new, sizes.total), score, dtype)
    found = probe.compute(softmax.input[0], {product.output[0]: probe.cast(product.output[0], scores)})
    return np.broadcast_to(found.astype(np.float64), scores.shape)


def _curve(probe: Probe, product: NodeProto, softmax: NodeProto) -> tuple[float, float]:
    """Measure the factor by which scores are multiplied between `product` and `softmax`, and their soft cap; a cap of 0
    means none. Raises UnsupportedError if they go through another function.
    """
    shape = probe.shape(product.output[0])
    assert shape is not None
    # Probe with the last query and the last key, which is never masked.
    one, large = (float(_scored(probe, product, softmax, shape[1], score)[0, 0, -1, -1]) for score in (1.0, 60000.0))
    if np.isclose(large, 60000.0 * one, 1e-3):
        return one, 0.0
    if not one or not 0 < large < 1e4:
        raise UnsupportedError(f"a score of 1 becomes {one:g} and one of 60000 {large:g} before {label(softmax)}")
    return float(large * np.arctanh(one / large)), large


def _window(probe: Probe, product: NodeProto, softmax: NodeProto, num_heads: int) -> int:
    """Measure the sliding window: the number of tokens that the last token attends to; 0 means all."""
    seen = int((_scored(probe, product, softmax, num_heads, 0.0)[0, 0, -1] > _SEEN * _LARGE).sum())
    return 0 if seen == probe.sizes.total else seen


def _require_causal(probe: Probe, product: NodeProto, softmax: NodeProto, num_heads: int, window: int) -> None:
    """Raise UnsupportedError unless the mask is the causal one, limited to the last `window` tokens (0: not limited),
    and nothing else is added to the scores.
    """
    sizes = probe.sizes
    scored, expected = _scored(probe, product, softmax, num_heads, 0.0), _causal(sizes, window)
    where = f"for {sizes.past} earlier and {sizes.new} new tokens, before {label(softmax)}"
    if not (scored[..., ~expected] < _SEEN * _LARGE).all() or (scored[..., expected] < _SEEN * _LARGE).any():
        raise UnsupportedError(f"the mask is not the causal one, in a window of {window} tokens (0: none), {where}")
    if scored[..., expected].any():
        raise UnsupportedError(f"a bias is added to the scores {where}; expected is none")


def _causal(sizes: Sizes, window: int) -> NDArray[np.bool_]:
    """The causal mask, limited to the last `window` tokens (0: not limited): whether a query attends to a key, BOOL
    [new, total].
    """
    distance = sizes.positions[:, np.newaxis] - np.arange(sizes.total)
    return (distance >= 0) & (distance < (window or sizes.total))


def _attention(
    queries: NDArray[Any],
    keys: NDArray[Any],
    values: NDArray[Any],
    sizes: Sizes,
    scale: float,
    window: int,
    cap: float,
) -> NDArray[np.float32]:
    """Causal attention in numpy, FP32 [batch, heads, new, size]. `window` is a number of tokens, 0 for all; `cap` is
    the soft cap of the scores, 0 for none.
    """
    scores = scale * np.einsum("bhsd,bhtd->bhst", queries.astype(np.float32), _repeated(keys, queries.shape[1]))
    if cap:
        scores = cap * np.tanh(scores / cap)
    scores = np.where(_causal(sizes, window), scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return np.einsum("bhst,bhtd->bhsd", shares, _repeated(values, queries.shape[1]))
