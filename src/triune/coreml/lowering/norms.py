"""Normalizations."""

from collections.abc import Sequence

from triune.coreml.lowering.context import Context, Lowering, dtype_of, like
from triune.coreml.lowering.mb import Var, mb
from triune.graph.axes import positive


def _batch_norm(c: Context) -> None:
    """Y = (x - mean) / sqrt(variance + epsilon) * scale + bias, in each channel."""
    x = c.input(0)
    epsilon = c.attributes.get("epsilon", 1e-5)
    if c.attributes.get("training_mode", 0):
        _train_batch_norm(c, x, epsilon)
        return
    known = [c.constant(index) for index in range(1, 5)]
    if 3 <= x.rank <= 5 and all(each is not None and each.dtype == dtype_of(x) for each in known):
        scale, bias, mean, variance = known
        c.give(mb.batch_norm(x=x, mean=mean, variance=variance, gamma=scale, beta=bias, epsilon=like(x, epsilon)))
        return
    scale, bias, mean, variance = (_per_channel(c.input(index), x) for index in range(1, 5))
    factor = mb.real_div(x=scale, y=mb.sqrt(x=mb.add(x=variance, y=like(variance, epsilon))))
    c.give(mb.add(x=mb.mul(x=mb.sub(x=x, y=mean), y=factor), y=bias))


def _train_batch_norm(c: Context, x: Var, epsilon: float) -> None:
    """By the batch's own mean and variance; the running ones move towards them."""
    axes = [axis for axis in range(x.rank) if axis != 1]
    normal, mean, _ = _normalize(x, axes, epsilon)
    scale, bias = (_per_channel(c.input(index), x) for index in (1, 2))
    c.give(mb.add(x=mb.mul(x=normal, y=scale), y=bias))
    if not c.wants(1) and not c.wants(2):
        return
    centered = mb.sub(x=x, y=mean)
    variance = mb.reduce_mean(x=mb.mul(x=centered, y=centered), axes=axes, keep_dims=False)
    found = [mb.reduce_mean(x=x, axes=axes, keep_dims=False), variance]
    momentum = c.attributes.get("momentum", 0.9)
    for index, value in enumerate(found, start=1):
        before = mb.mul(x=c.input(index + 2), y=like(value, momentum))
        c.give(mb.add(x=before, y=mb.mul(x=value, y=like(value, 1 - momentum))), index)


def _per_channel(value: Var, x: Var) -> Var:
    """A vector with an element for each channel, the second dimension of `x`."""
    after = max(x.rank - 2, 0)
    return mb.expand_dims(x=value, axes=list(range(1, 1 + after))) if after else value


def _instance_norm(c: Context) -> None:
    """As batch normalization, by the mean and variance of each image's channel."""
    x = c.input(0)
    epsilon = c.attributes.get("epsilon", 1e-5)
    scale, bias = c.constant(1), c.constant(2)
    if x.rank in (3, 4) and scale is not None and bias is not None and scale.dtype == dtype_of(x):
        c.give(mb.instance_norm(x=x, gamma=scale, beta=bias, epsilon=like(x, epsilon)))
        return
    normal, _, _ = _normalize(x, list(range(2, x.rank)), epsilon)
    scale, bias = (_per_channel(c.input(index), x) for index in (1, 2))
    c.give(mb.add(x=mb.mul(x=normal, y=scale), y=bias))


def _layer_norm(c: Context) -> None:
    x = c.input(0)
    epsilon = c.attributes.get("epsilon", 1e-5)
    axes = list(range(positive(int(c.attributes.get("axis", -1)), x.rank), x.rank))
    scale, bias = c.constant(1), c.constant(2)
    form = tuple(x.shape[axis] for axis in axes)
    is_known = scale is not None and scale.shape == form and scale.dtype == dtype_of(x)
    if c.has(2):
        is_known = is_known and bias is not None and bias.shape == form
    if is_known and not c.wants(1) and not c.wants(2):
        c.give(mb.layer_norm(x=x, axes=axes, gamma=scale, beta=bias, epsilon=like(x, epsilon)))
        return
    normal, mean, inverse = _normalize(x, axes, epsilon)
    result = mb.mul(x=normal, y=c.input(1))
    c.give(mb.add(x=result, y=c.input(2)) if c.has(2) else result)
    c.give(mean, 1)
    c.give(inverse, 2)


def _normalize(x: Var, axes: Sequence[int], epsilon: float) -> tuple[Var, Var, Var]:
    """`x` of mean 0 and variance 1, the mean, and one over the deviation."""
    mean = mb.reduce_mean(x=x, axes=axes, keep_dims=True)
    centered = mb.sub(x=x, y=mean)
    variance = mb.reduce_mean(x=mb.mul(x=centered, y=centered), axes=axes, keep_dims=True)
    inverse = mb.real_div(x=like(x, 1), y=mb.sqrt(x=mb.add(x=variance, y=like(x, epsilon))))
    return mb.mul(x=centered, y=inverse), mean, inverse


TABLE: dict[str, Lowering] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
}
