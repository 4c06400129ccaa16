"""Lowering of BatchNormalization, InstanceNormalization and LayerNormalization to MIL's operations for them.

MIL needs constants for scale and bias; other nodes are lowered by `graph.conversion.lowering.norms`.
"""

from triune.coreml.lowering.context import Context, Lowering, dtype_of, like
from triune.coreml.lowering.mb import mb
from triune.graph.conversion.lowering import norms


def _batch_norm(c: Context) -> None:
    x, known = c.input(0), [c.constant(index) for index in range(1, 5)]
    is_known = all(each is not None and each.dtype == dtype_of(x) for each in known)
    if c.attributes.get("training_mode", 0) or not 3 <= x.rank <= 5 or not is_known:
        norms.batch_norm(c)
        return
    scale, bias, mean, variance = known
    epsilon = like(x, norms.epsilon_of(c))
    c.give(mb.batch_norm(x=x, mean=mean, variance=variance, gamma=scale, beta=bias, epsilon=epsilon))


def _instance_norm(c: Context) -> None:
    x, scale, bias = c.input(0), c.constant(1), c.constant(2)
    if x.rank in (3, 4) and scale is not None and bias is not None and scale.dtype == dtype_of(x):
        c.give(mb.instance_norm(x=x, gamma=scale, beta=bias, epsilon=like(x, norms.epsilon_of(c))))
    else:
        norms.instance_norm(c)


def _layer_norm(c: Context) -> None:
    x, scale, bias = c.input(0), c.constant(1), c.constant(2)
    axes = norms.layer_axes(c, x)
    form = tuple(x.shape[axis] for axis in axes)
    is_known = scale is not None and scale.shape == form and scale.dtype == dtype_of(x)
    if c.has(2):
        is_known = is_known and bias is not None and bias.shape == form
    if is_known and not c.wants(1) and not c.wants(2):
        c.give(mb.layer_norm(x=x, axes=axes, gamma=scale, beta=bias, epsilon=like(x, norms.epsilon_of(c))))
    else:
        norms.layer_norm(c)


TABLE: dict[str, Lowering] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
}
