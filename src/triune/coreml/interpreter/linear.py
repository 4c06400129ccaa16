"""Products of matrices, and attention."""

from typing import Any

import numpy as np

from triune.coreml.interpreter.activation import softmax
from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """Compute x @ weight^T + bias; x is (..., in), weight (out, in), bias (out,)."""
    product = np.matmul(x, weight.T)
    return product if bias is None else product + bias


def matmul(x: Array, y: Array, transpose_x: Any, transpose_y: Any) -> Array:
    """Compute the matrix product over the last two axes; the other axes broadcast. Vectors are not transposed."""
    if transpose_x and x.ndim > 1:
        x = np.swapaxes(x, -1, -2)
    if transpose_y and y.ndim > 1:
        y = np.swapaxes(y, -1, -2)
    return np.matmul(x, y)


def einsum(values: tuple[Array, ...], equation: str) -> Array:
    """Compute numpy's einsum of `values` by `equation`."""
    return np.einsum(equation.replace(" ", ""), *values)


def scaled_dot_product_attention(query: Array, key: Array, value: Array, attn_mask: Array | None) -> Array:
    """Compute softmax(Q K^T / sqrt(E) + mask) V. In a bool mask, false means -inf.

    Shapes: query (..., L, E), key (..., S, E), value (..., S, EV), mask broadcast to (..., L, S).
    """
    scores = np.matmul(query, np.swapaxes(key, -1, -2)) / np.sqrt(query.shape[-1]).astype(query.dtype)
    if attn_mask is not None:
        if attn_mask.dtype == np.bool_:
            attn_mask = np.where(attn_mask, 0, -np.inf).astype(scores.dtype)
        scores = scores + attn_mask
    return np.matmul(softmax(scores, -1), value)


FAMILY: Family = {
    "einsum": einsum,
    "linear": linear,
    "matmul": matmul,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
