"""Products of matrices, and Softmax."""

from collections.abc import Mapping

from triune.graph.axes import positive
from triune.metal.builder import biased_product, product
from triune.metal.context import Context, Lowering, builder_of
from triune.metal.library import Value, mx


def _matmul(c: Context) -> None:
    weights = builder_of(c).quantized.get(c.node.input[1])
    c.give(product(*builder_of(c).paired(c.input(0), c.input(1))) if weights is None else weights.product(c.input(0)))


def _gemm(c: Context) -> None:
    a, b = (
        mx.transpose(c.input(index)) if c.attributes.get(name, 0) else c.input(index)
        for index, name in enumerate(("transA", "transB"))
    )
    a, b = builder_of(c).paired(a, b)
    alpha, beta = c.attributes.get("alpha", 1.0), c.attributes.get("beta", 1.0)
    if c.has(2) and alpha == 1 and beta == 1 and c.input(2).shape == b.shape[1:]:
        c.give(biased_product(a, b, c.input(2)))
        return
    found = _scaled(product(a, b), alpha)
    c.give(found + _scaled(c.input(2), beta) if c.has(2) and beta != 0 else found)


def _scaled(x: Value, factor: float) -> Value:
    if factor == 1:
        return x
    return (x.astype(mx.float32) * factor).astype(x.dtype)


def _softmax(c: Context) -> None:
    x = c.input(0)
    if x.ndim == 0:
        c.give(mx.ones_like(x))
        return
    c.give(mx.softmax(x, positive(int(c.attributes.get("axis", -1)), x.ndim), precise=True))


TABLE: Mapping[str, Lowering] = {"MatMul": _matmul, "Gemm": _gemm, "Softmax": _softmax}
