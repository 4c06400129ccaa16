"""Rules for operators that only ONNX Runtime defines in ONNX's domain: ONNX, or the model's operator set, has no such
operator.

`passes.adopt` finds these. The rules follow ONNX Runtime's kernels (`contrib_ops/cpu`), which still include operators
that ONNX has removed.
"""

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from triune.core.errors import InvalidArgumentError
from triune.graph.decompose.context import Context
from triune.graph.passes.upgrade.norms import group_normalization
from triune.graph.passes.upgrade.rule import Rule, rank_of, required, rewrite, typed

ADOPTED = "triune.adopted"
"""The domain to which `passes.adopt` moves operators that only ONNX Runtime has, until a rule replaces them."""

_EPSILON = 1e-5


def _unchanged(c: Context) -> None:
    rewrite(c)


def _simplified_layer_normalization(c: Context) -> None:
    """Write RMSNormalization; the second output is 1 / sqrt(mean(x^2) + epsilon)."""
    x, b = c.input(0), c.build
    axis, epsilon = c.attributes.get("axis", -1), c.attributes.get("epsilon", _EPSILON)
    rewrite(c, op_type="RMSNormalization", axis=axis, epsilon=epsilon)
    del b.nodes[-1].output[1:]
    if c.is_read(1):
        first = axis if axis < 0 else axis - rank_of(c, x)
        wide = b.cast(x, TensorProto.FLOAT)
        mean = b.op("ReduceMean", b.op("Mul", wide, wide), b.ints(*range(first, 0)), keepdims=1)
        root = b.op("Sqrt", b.op("Add", mean, b.constant(epsilon, np.float32)))
        c.give(b.op("Reciprocal", root), 1)


def _affine(c: Context) -> None:
    """Write alpha * x + beta."""
    x = c.input(0)
    scaled = c.build.op("Mul", x, typed(c, c.attributes.get("alpha", 1.0), x))
    c.build.put("Add", [scaled, typed(c, c.attributes.get("beta", 0.0), x)], [c.output(0)])


def _scale(c: Context) -> None:
    c.build.put("Mul", [c.input(0), typed(c, c.attributes.get("scale", 1.0), c.input(0))], [c.output(0)])


def _image_scaler(c: Context) -> None:
    """Write scale * x + bias, with one bias for each channel of x (N, C, H, W)."""
    x = c.input(0)
    scaled = c.build.op("Mul", x, typed(c, c.attributes.get("scale", 1.0), x))
    bias = c.build.op("CastLike", c.build.constant(required(c, "bias"), np.float32), x)
    c.build.put("Add", [scaled, c.build.op("Unsqueeze", bias, c.build.ints(1, 2))], [c.output(0)])


def _scaled_tanh(c: Context) -> None:
    """Write alpha * tanh(beta * x)."""
    x = c.input(0)
    inner = c.build.op("Tanh", c.build.op("Mul", x, typed(c, required(c, "beta"), x)))
    c.build.put("Mul", [inner, typed(c, required(c, "alpha"), x)], [c.output(0)])


def _parametric_softplus(c: Context) -> None:
    """Write alpha * log(exp(beta * x) + 1)."""
    x = c.input(0)
    inner = c.build.op("Softplus", c.build.op("Mul", x, typed(c, required(c, "beta"), x)))
    c.build.put("Mul", [inner, typed(c, required(c, "alpha"), x)], [c.output(0)])


def _crop(c: Context) -> None:
    """Crop images (N, C, H, W) by `border` (left, top, right, bottom).

    With `scale` (height, width), the result has this size and begins at (top, left).
    """
    border, b = required(c, "border"), c.build
    if len(border) != 4:
        raise InvalidArgumentError(f"its border has {len(border)} sides, not 4")
    left, top, right, bottom = border
    if size := c.attributes.get("scale"):
        ends = b.ints(top + size[0], left + size[1])
    else:
        ends = b.op("Sub", b.op("Shape", c.input(0), start=2, end=4), b.ints(bottom, right))
    b.put("Slice", [c.input(0), b.ints(top, left), ends, b.ints(2, 3)], [c.output(0)])


def _dynamic_slice(c: Context) -> None:
    rewrite(c, op_type="Slice")


def _mean_variance_normalization(c: Context) -> None:
    """Normalize x (N, C, H, W) over axes N, H and W, and over C as well if `across_channels` is set."""
    axes = [0, 1, 2, 3] if c.attributes.get("across_channels", 0) else [0, 2, 3]
    if c.attributes.get("normalize_variance", 1):
        rewrite(c, without=["across_channels", "normalize_variance"], axes=axes)
        return
    mean = c.build.op("ReduceMean", c.input(0), c.build.ints(*axes), keepdims=1)
    c.build.put("Sub", [c.input(0), mean], [c.output(0)])


TABLE: Mapping[str, Rule] = {
    "LayerNormalization": _unchanged,
    "ThresholdedRelu": _unchanged,
    "SimplifiedLayerNormalization": _simplified_layer_normalization,
    "GroupNormalization": group_normalization,
    "Affine": _affine,
    "Scale": _scale,
    "ImageScaler": _image_scaler,
    "ScaledTanh": _scaled_tanh,
    "ParametricSoftplus": _parametric_softplus,
    "Crop": _crop,
    "DynamicSlice": _dynamic_slice,
    "MeanVarianceNormalization": _mean_variance_normalization,
}
