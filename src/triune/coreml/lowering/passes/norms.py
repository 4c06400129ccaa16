"""A pass that fuses the operations of layer normalization into one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from triune.coreml.lowering.context import dtype_of
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.coreml.lowering.passes.blocks import blocks_of, only_reader, replace
from triune.coreml.lowering.passes.mil_pass import MilPass


class FuseLayerNorm(MilPass):
    """Replace z / sqrt(mean(z * z) + epsilon) * gamma + beta, where z = x - mean(x), by layer_norm.

    Both means are over the last axes, or over axis 1 of x of shape (B, C, 1, S). Gamma and beta may be missing.
    coremltools' `fuse_layernorm_or_instancenorm` does not check that both means are over the same axes, nor the shapes
    of gamma and beta, and does not find the mean over axis 1.
    """

    name = "fuse_layer_norm"

    def change(self, program: Any) -> None:
        """Fuse each layer normalization of `program`, which is changed in place."""
        for block in blocks_of(program):
            with block:
                for op in list(block.operations):
                    if op.op_type == "sub" and op.enclosing_block is not None:
                        _fuse(block, op)


def _fuse(block: Any, centred: Any) -> None:
    z = centred.outputs[0]
    axes = _mean_axes(centred.y, centred.x)
    if axes is None or not _can_normalize(centred.x, axes) or z in block.outputs:
        return
    square = _square_of(z, "mul", "pow", "square")
    variance = None if square is None else only_reader(square.outputs[0])
    if square is None or variance is None or _mean_axes(variance.outputs[0], square.outputs[0]) != axes:
        return
    sum_ = only_reader(variance.outputs[0])
    epsilon = None if sum_ is None or sum_.op_type != "add" else _scalar(sum_.x if sum_.y.op is variance else sum_.y)
    end = None if epsilon is None else _normalized(z, sum_)
    # Fuse only if z is read by its square and its product with 1 / sqrt(mean(z * z) + epsilon), and by nothing else.
    if (
        end is None
        or end.enclosing_block is not block
        or {id(each) for each in z.child_ops} != {id(square), id(end)}
        or z.consuming_blocks
    ):
        return
    gamma, end = _scale_or_shift(end, "mul", centred.x, axes)
    beta, end = _scale_or_shift(end, "add", centred.x, axes)
    kind = dtype_of(centred.x).type
    if gamma is None and beta is not None:
        # Make a gamma of ones: coremltools' layer_norm takes no beta without a gamma.
        gamma = np.ones(np.shape(beta), kind)
    result = mb.layer_norm(
        x=centred.x,
        axes=axes,
        gamma=gamma,
        beta=beta,
        epsilon=kind(epsilon),
        name=end.outputs[0].name,
        before_op=end,
    )
    replace(block, end, result)


def _mean_axes(mean: Var, of: Var) -> Sequence[int] | None:
    """The sorted, non-negative axes if `mean` is reduce_mean of `of` with keep_dims; else None."""
    op = mean.op
    if op is None or op.op_type != "reduce_mean" or op.x is not of or not op.keep_dims.val or op.axes is None:
        return None
    return sorted(int(axis) % of.rank for axis in op.axes.val)


def _can_normalize(x: Var, axes: Sequence[int]) -> bool:
    """Whether `axes` have fixed sizes and MIL's layer_norm takes them: the last ones, or axis 1 of rank 4."""
    is_last = list(axes) == list(range(x.rank - len(axes), x.rank))
    return (is_last or (x.rank == 4 and list(axes) == [1])) and all(is_fixed(x.shape[axis]) for axis in axes)


def _square_of(value: Var, *kinds: str) -> Any:
    """The operation, of one of the types `kinds`, that computes value * value; None if there is none."""
    return next((op for op in value.child_ops if op.op_type in kinds and _is_square(op, value)), None)


def _is_square(op: Any, value: Var) -> bool:
    match op.op_type:
        case "mul":
            return op.x is value and op.y is value
        case "pow":
            return op.x is value and _scalar(op.y) == 2
        case _:
            return op.op_type == "square" and op.x is value


def _scalar(value: Var) -> float | None:
    return None if value.val is None or np.size(value.val) != 1 or value.rank > 0 else float(value.val)


def _normalized(z: Var, sum_: Any) -> Any:
    """The operation that computes z / sqrt(s), where `sum_` computes s; None if there is none."""
    root = only_reader(sum_.outputs[0])
    if root is None:
        return None
    end = only_reader(root.outputs[0])
    if end is None:
        return None
    if root.op_type == "rsqrt" and root.epsilon.val == 0 and end.op_type == "mul":
        return end if z in (end.x, end.y) else None
    is_root = root.op_type == "sqrt" or (root.op_type == "pow" and _scalar(root.y) == 0.5)
    return end if is_root and end.op_type == "real_div" and end.x is z and end.y is root.outputs[0] else None


def _scale_or_shift(op: Any, kind: str, x: Var, axes: Sequence[int]) -> tuple[Any, Any]:
    """Find gamma or beta: the constant that the next operation multiplies by (`kind` "mul") or adds ("add").

    Args:
        op: the operation whose result is multiplied or added to.
        kind: the type of the next operation.
        x: the operand of the normalization.
        axes: the axes that are normalized. The constant must have one number for each element along them.

    Returns:
        the constant and the next operation; None and `op` if the next operation is different.
    """
    reader = only_reader(op.outputs[0])
    if reader is None or reader.op_type != kind or reader.enclosing_block is not op.enclosing_block:
        return None, op
    other = reader.y if reader.x is op.outputs[0] else reader.x
    sizes = [int(x.shape[axis]) for axis in axes]
    form = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    if other.val is None or other.rank > x.rank or [1] * (x.rank - other.rank) + list(other.shape) != form:
        return None, op
    return np.reshape(other.val, sizes), reader
