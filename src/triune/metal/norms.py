"""LayerNormalization and RMSNormalization over the last axis; MLX computes each in one kernel."""

from collections.abc import Mapping

from triune.graph.axes import positive
from triune.graph.conversion.lowering import norms
from triune.metal.context import Context, Lowering
from triune.metal.library import Value, mx


def _layer_norm(c: Context) -> None:
    x, scale = c.input(0), c.input(1)
    bias = c.input(2) if c.has(2) else None
    if norms.layer_axes(c, x) != [x.ndim - 1] or scale.ndim != 1 or c.wants(1) or c.wants(2):
        norms.layer_norm(c)
        return
    weight, bias = (each if each is None else each.astype(x.dtype) for each in (scale, bias))
    c.give(mx.fast.layer_norm(x, weight, bias, norms.epsilon_of(c)))


def _rms_norm(c: Context) -> None:
    x, scale = c.input(0), c.input(1)
    axis, epsilon = positive(int(c.attributes.get("axis", -1)), x.ndim), norms.epsilon_of(c)
    if axis == x.ndim - 1 and scale.ndim == 1:
        c.give(mx.fast.rms_norm(x, scale.astype(x.dtype), epsilon))
        return
    wide = x.astype(mx.float32)
    root = mx.rsqrt(mx.mean(wide * wide, axis=list(range(axis, x.ndim)), keepdims=True) + epsilon)
    c.give((wide * root).astype(x.dtype) * scale)


def fused_rms_norm(c: Context) -> None:
    """Compute the pattern `rms_norm` of `graph.fused`, which has the inputs x and scale, and the attribute eps."""
    x, scale = c.input(0), c.input(1)
    epsilon = float(c.attributes["eps"])
    if scale.size == x.shape[-1]:
        c.give(mx.fast.rms_norm(x, scale.reshape(-1).astype(x.dtype), epsilon))
        return
    ones: Value = mx.fast.rms_norm(x, None, epsilon)
    c.give(ones * scale)


TABLE: Mapping[str, Lowering] = {"LayerNormalization": _layer_norm, "RMSNormalization": _rms_norm}
