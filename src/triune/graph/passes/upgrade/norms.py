"""Rules that upgrade normalizations, Softmax, LogSoftmax and Hardmax to the newest operator set."""

import math
from collections.abc import Mapping

from onnx import TensorProto

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.decompose.context import Context
from triune.graph.passes.upgrade.rule import Rule, rank_of, rewrite, typed

_REMOVED = ("consumed_inputs", "is_test", "spatial")


def _softmax(c: Context) -> None:
    """Upgrade Softmax, LogSoftmax and Hardmax. Before operator set 13 they flattened `axis` and all later axes into
    one.
    """
    x, axis = c.input(0), c.attributes.get("axis", 1)
    shape = c.values.shape(x)
    if shape is not None:
        if not -len(shape) <= axis <= len(shape):
            raise InvalidArgumentError(f"it has no axis {axis}: its input is of rank {len(shape)}")
        axis += len(shape) if axis < 0 else 0
        following = shape[axis + 1 :]
        if None not in following and math.prod(each for each in following if each is not None) == 1:
            rewrite(c, axis=axis)
            return
    elif axis == -1:
        rewrite(c)
        return
    flat = c.build.op(c.node.op_type, c.build.op("Flatten", x, axis=axis), axis=-1)
    c.build.put("Reshape", [flat, c.build.op("Shape", x)], [c.output(0)])


def _batch_normalization(c: Context) -> None:
    """Upgrade BatchNormalization: set `training_mode`.

    Training is meant by `is_test = 0` before operator set 7, and by more than one output before 14.
    """
    is_training = any(map(c.output, range(1, 5))) or c.attributes.get("is_test", 1) == 0
    if not c.attributes.get("spatial", 1):
        _write_per_feature(c, is_training=is_training)
        return
    if not is_training:
        rewrite(c, without=_REMOVED)
        return
    rewrite(c, without=_REMOVED, training_mode=1)
    node = c.build.nodes[-1]
    outputs = [c.output(index) or c.build.name() for index in range(3)]
    del node.output[:]
    node.output.extend(outputs)
    if not (c.output(3) or c.output(4)):
        return
    # Outputs 3 and 4, saved_mean and saved_var, are statistics of this batch over all axes except the channel axis.
    axes = c.build.ints(0, *range(2, rank_of(c, c.input(0))))
    mean = c.build.op("ReduceMean", c.input(0), axes, keepdims=1)
    centred = c.build.op("Sub", c.input(0), mean)
    variance = c.build.op("ReduceMean", c.build.op("Mul", centred, centred), axes, keepdims=0)
    c.give(c.build.op("Squeeze", mean, axes), 3)
    c.give(variance, 4)


def _write_per_feature(c: Context, *, is_training: bool) -> None:
    """Write (x - mean) / sqrt(var + epsilon) * scale + bias for spatial = 0, where mean, var, scale and bias have the
    shape of x without the batch axis.
    """
    if is_training:
        raise UnsupportedError(
            "it is in training mode with statistics of each feature (spatial = 0): export the model for inference"
        )
    x, scale, bias, mean, variance = map(c.input, range(5))
    epsilon = typed(c, c.attributes.get("epsilon", 1e-5), x)
    deviation = c.build.op("Sqrt", c.build.op("Add", variance, epsilon))
    normal = c.build.op("Div", c.build.op("Sub", x, mean), deviation)
    c.build.put("Add", [c.build.op("Mul", normal, scale), bias], [c.output(0)])


def group_normalization(c: Context) -> None:
    """Upgrade GroupNormalization. Before operator set 21 it had a scale and bias for each group, not for each
    channel.
    """
    groups = c.attributes["num_groups"]
    channels = c.build.op("Shape", c.input(0), start=1, end=2)
    size = c.build.op("Div", channels, c.build.ints(groups))
    target = c.build.op("Concat", c.build.ints(groups), size, axis=0)

    def of_channels(name: str) -> str:
        column = c.build.op("Reshape", name, c.build.ints(groups, 1))
        return c.build.op("Reshape", c.build.op("Expand", column, target), c.build.ints(-1))

    # Compute in the type of x (`stash_type`), as operator set 18 does; operator set 21 computes in fp32 by default.
    elem_type = c.values.elem_type(c.input(0)) or TensorProto.FLOAT
    rewrite(c, [c.input(0), of_channels(c.input(1)), of_channels(c.input(2))], stash_type=elem_type)


TABLE: Mapping[str, tuple[int, Rule]] = {
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), (13, _softmax)),
    "BatchNormalization": (14, _batch_normalization),
    "GroupNormalization": (21, group_normalization),
}
