"""Activations."""

from typing import Any

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreml.interpreter.elementwise import erf, unary
from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array


def clamped_relu(x: Array, alpha: Array, beta: Array) -> Array:
    """Compute min(beta, x) where x >= 0, else min(beta, alpha * x)."""
    return np.minimum(beta, np.where(x >= 0, x, alpha * x))


def elu(x: Array, alpha: Array) -> Array:
    """Compute x where x > 0, else alpha * (e^x - 1)."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def gelu(x: Array, mode: str) -> Array:
    """Compute x * Phi(x), where Phi is the normal distribution function, or approximate it by tanh or sigmoid."""
    match mode:
        case "EXACT":
            return 0.5 * x * (1 + erf(x / np.sqrt(2).astype(x.dtype)))
        case "TANH_APPROXIMATION":
            return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi).astype(x.dtype) * (x + 0.044715 * x**3)))
        case "SIGMOID_APPROXIMATION":
            return x * sigmoid(1.702 * x)
        case _:
            raise UnsupportedError(f"gelu has no mode '{mode}'")


def leaky_relu(x: Array, alpha: Array) -> Array:
    """Compute x where x >= 0, else alpha * x."""
    return np.where(x >= 0, x, alpha * x)


def linear_activation(x: Array, alpha: Array, beta: Array) -> Array:
    """Compute alpha * x + beta."""
    return alpha * x + beta


def prelu(x: Array, alpha: Array) -> Array:
    """Compute x where x > 0, else alpha * x; each channel has its own alpha."""
    return np.where(x > 0, x, _per_channel(alpha, x) * x)


def relu(x: Array) -> Array:
    """Compute max(x, 0)."""
    return np.maximum(x, 0)


def relu6(x: Array) -> Array:
    """Compute min(max(x, 0), 6)."""
    return np.minimum(np.maximum(x, 0), 6)


def scaled_tanh(x: Array, alpha: Any, beta: Any) -> Array:
    """Compute alpha * tanh(beta * x)."""
    return alpha * np.tanh(beta * x)


def sigmoid(x: Array) -> Array:
    """Compute 1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


def sigmoid_hard(x: Array, alpha: Any, beta: Any) -> Array:
    """Compute min(max(alpha * x + beta, 0), 1)."""
    return np.minimum(np.maximum(alpha * x + beta, 0), 1)


def silu(x: Array) -> Array:
    """Compute x * sigmoid(x)."""
    return x * sigmoid(x)


def softmax(x: Array, axis: Any) -> Array:
    """Compute e^x / sum(e^x) along an axis. The largest x is subtracted first, so that nothing overflows."""
    powers = np.exp(x - np.max(x, axis=int(axis), keepdims=True))
    return powers / np.sum(powers, axis=int(axis), keepdims=True)


def softplus(x: Array) -> Array:
    """Compute log(1 + e^x), in a form that does not overflow."""
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def softplus_parametric(x: Array, alpha: Array, beta: Array) -> Array:
    """Compute alpha * log(1 + e^(beta * x)); each channel has its own alpha and beta."""
    return _per_channel(alpha, x) * softplus(_per_channel(beta, x) * x)


def softsign(x: Array) -> Array:
    """Compute x / (1 + |x|)."""
    return x / (1 + np.abs(x))


def thresholded_relu(x: Array, alpha: Array) -> Array:
    """Compute x where x >= alpha, else 0."""
    return np.where(x >= alpha, x, np.zeros_like(x))


def _per_channel(values: Array, x: Array) -> Array:
    """Reshape a vector (C,) so that it broadcasts to x, which is (n, C, ...)."""
    return values.reshape(-1, *(1,) * (x.ndim - 2))


FAMILY: Family = {
    "clamped_relu": clamped_relu,
    "elu": elu,
    "gelu": gelu,
    "leaky_relu": leaky_relu,
    "linear_activation": linear_activation,
    "prelu": prelu,
    "relu": unary(relu),
    "relu6": unary(relu6),
    "scaled_tanh": scaled_tanh,
    "sigmoid": unary(sigmoid),
    "sigmoid_hard": sigmoid_hard,
    "silu": unary(silu),
    "softmax": softmax,
    "softplus": unary(softplus),
    "softplus_parametric": softplus_parametric,
    "softsign": unary(softsign),
    "thresholded_relu": thresholded_relu,
}
