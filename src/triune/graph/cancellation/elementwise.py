"""The curves (`Curve`) of results of arithmetic and of functions."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from onnx import NodeProto

from triune.core.datatypes import Array
from triune.graph.cancellation.curve import ROUNDING, Curve, zero_of
from triune.graph.values import attributes_of

_Function: TypeAlias = Callable[..., Any]


def _largest(*given: Array) -> Array:
    return functools.reduce(np.maximum, given)


def _smallest(*given: Array) -> Array:
    return functools.reduce(np.minimum, given)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, 0)


def _affine(x: Array, factor: Array, mean: Array, bias: Array) -> Array:
    return np.asarray((x - mean) * factor + bias)


_LINEAR: Mapping[str, _Function] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Neg": np.negative,
    "Abs": np.abs,
    "Relu": _relu,
    "Max": _largest,
    "Min": _smallest,
}
"""Operators whose result has the error of the operand, times a factor: where a sum in the operand cancels, the result
is as imprecise as the operand.
"""

_COPIES: Mapping[str, _Function] = {"Identity": np.positive, "Cast": np.positive, "Dropout": np.positive}

_FUNCTIONS: Mapping[str, _Function] = {
    "Log": np.log,
    "Exp": np.exp,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Pow": np.power,
    "Sin": np.sin,
    "Cos": np.cos,
    "Asin": np.arcsin,
    "Acos": np.arccos,
    "Atan": np.arctan,
    "Sinh": np.sinh,
    "Cosh": np.cosh,
    "Asinh": np.arcsinh,
    "Acosh": np.arccosh,
    "Atanh": np.arctanh,
    "Tanh": np.tanh,
    "Sigmoid": _sigmoid,
    "Softplus": _softplus,
}

_SUMS = frozenset(["Add", "Sub"])
_SCALES = frozenset(["Mul", "Div"])

OPERATORS = frozenset([*_LINEAR, *_COPIES, *_FUNCTIONS, "Clip", "Where", "BatchNormalization"])
"""The operators for which `computed` can give the curve of the result."""

_MOST = 1 << 19
"""A curve of more elements is not followed: its constants are weights of a network."""


def computed(node: NodeProto, operands: Sequence[Curve | Array | None]) -> Curve | None:
    """The curve of a node's result; None if its operands are functions of different elements, or if the curve is too
    large.

    Args:
        node: a node whose operator is in `OPERATORS`.
        operands: the curves and the constants that it reads; None for an operand that is left out. At least one is a
            curve.
    """
    curves = [each for each in operands if isinstance(each, Curve)]
    first = curves[0]
    if any(each.layout != first.layout for each in curves):
        return None
    if node.op_type == "Where":
        return _chosen(node, first, operands)
    if node.op_type == "BatchNormalization":
        return _normalized(node, first, operands)
    function = _function(node)
    rank = max(
        each.values.ndim - 1 if isinstance(each, Curve) else np.ndim(each) for each in operands if each is not None
    )
    given = [_array(each, rank) for each in operands if each is not None]
    off = [_error(each, rank) for each in operands if each is not None]
    found = _evaluated(function, given, off)
    if found is None:
        return None
    values, errors = found
    is_zero = np.zeros(values.shape, bool)
    if node.op_type in _LINEAR or node.op_type in _COPIES or node.op_type == "Clip":
        # Take only the dividend of a Div: at a zero of the divisor, the quotient has a pole, not a zero.
        for each in operands[:1] if node.op_type == "Div" else operands:
            if isinstance(each, Curve):
                is_zero |= np.broadcast_to(_padded(each.is_zero, rank), values.shape)
    crossed = None
    if node.op_type in _SUMS:
        crossed, is_own = zero_of(first.numbers, values)
        is_zero |= is_own
    is_scale = node.op_type in _SCALES and len(curves) < len(operands)
    is_scaled = any(each.is_scaled for each in curves) or node.op_type in _FUNCTIONS or is_scale
    return replace(
        first,
        values=values,
        errors=errors,
        nodes=_joined([each.nodes for each in curves], node),
        is_zero=is_zero,
        crossed=crossed,
        is_scaled=is_scaled,
    )


def _chosen(node: NodeProto, x: Curve, operands: Sequence[Curve | Array | None]) -> Curve | None:
    """The curve of a Where that chooses between a curve and constants."""
    rank = max([x.values.ndim - 1, *(each.ndim for each in operands if isinstance(each, np.ndarray))])
    if sum(isinstance(each, Curve) for each in operands) != 1:
        return None
    parts = {"values": x.values, "errors": x.errors, "is_zero": x.is_zero}
    padded = {part: _padded(array, rank) for part, array in parts.items()}
    return replace(x, **padded, nodes=(*x.nodes, node), crossed=None)


def _joined(chains: Sequence[tuple[NodeProto, ...]], last: NodeProto) -> tuple[NodeProto, ...]:
    nodes = {node.output[0]: node for chain in chains for node in chain}
    return (*nodes.values(), last)


def _function(node: NodeProto) -> _Function:
    if node.op_type != "Clip":
        return {**_LINEAR, **_COPIES, **_FUNCTIONS}[node.op_type]
    attributes = attributes_of(node)
    ends = {"low": np.array(attributes.get("min", -np.inf)), "high": np.array(attributes.get("max", np.inf))}
    names = [name for name, given in zip(("low", "high"), node.input[1:], strict=False) if given]

    def clip(x: Array, *limits: Array) -> Array:
        of = {**ends, **dict(zip(names, limits, strict=True))}
        return np.asarray(np.minimum(np.maximum(x, of["low"]), of["high"]))

    return clip


def _normalized(node: NodeProto, x: Curve, operands: Sequence[Curve | Array | None]) -> Curve | None:
    """The curve of a BatchNormalization with constant parameters: a sum that is 0 where its operand equals the mean."""
    constants = [each for each in operands[1:5] if isinstance(each, np.ndarray)]
    rank = x.values.ndim - 1
    if len(constants) != 4 or rank < 2 or operands[0] is not x:
        return None
    scale, bias, mean, variance = (each.astype(np.float64).reshape(-1, *(1,) * (rank - 2)) for each in constants)
    factor = scale / np.sqrt(variance + attributes_of(node).get("epsilon", 1e-5))
    terms = (x, factor, mean, bias)
    given, off = [_array(each, rank) for each in terms], [_error(each, rank) for each in terms]
    found = _evaluated(_affine, given, off)
    if found is None:
        return None
    values, errors = found
    crossed, is_own = zero_of(x.numbers, np.broadcast_to(given[0] - given[2], values.shape))
    return replace(
        x,
        values=values,
        errors=errors,
        nodes=(*x.nodes, node),
        is_zero=x.is_zero | is_own,
        crossed=crossed,
        is_scaled=True,
    )


def _evaluated(function: _Function, given: Sequence[Array], off: Sequence[Array]) -> tuple[Array, Array] | None:
    """The values of a function for the operands `given`, and their errors if the operands have the errors `off`. None
    if the operands do not broadcast, or give more values than `_MOST`.
    """
    try:
        size = math.prod(np.broadcast_shapes(*(each.shape for each in given)))
    except ValueError:
        return None
    if size > _MOST:
        return None
    with np.errstate(all="ignore"):
        values = np.asarray(function(*given), np.float64)
        errors = ROUNDING * np.abs(values)
        for position, error in enumerate(off):
            sides = [
                np.abs(function(*given[:position], given[position] + sign * error, *given[position + 1 :]) - values)
                for sign in (1, -1)
            ]
            # Let `fmax` ignore a NaN: the operand plus its error, or minus it, may be outside the function's domain.
            errors = errors + np.fmax(*sides)
    return values, errors


def _array(operand: Curve | Array, rank: int) -> Array:
    return _padded(operand.values, rank) if isinstance(operand, Curve) else operand.astype(np.float64)


def _error(operand: Curve | Array, rank: int) -> Array:
    if isinstance(operand, Curve):
        return _padded(operand.errors, rank)
    with np.errstate(all="ignore"):
        error = np.abs(operand.astype(np.float16).astype(np.float64) - operand)
    return np.where(np.isfinite(error), error, 0.0)


def _padded(array: Array, rank: int) -> Array:
    """Reshape [n, *sizes] to [n, 1, ..., 1, *sizes], of `rank` axes after the first."""
    return array.reshape(len(array), *(1,) * (rank + 1 - array.ndim), *array.shape[1:])
