"""Convolutions of com.microsoft that are fused with activations, transposed convolutions with computed pads, and
convolutions and pools of NHWC images (channels last).
"""

from typing import Any

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.decompose.microsoft.activations import activated, in_order

_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_POOL = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")


def channels_first(c: Context, name: str) -> str | None:
    """Transpose (N, ..., C) to (N, C, ...); None while the rank is unknown."""
    rank = c.values.rank(name)
    return None if rank is None else c.build.op("Transpose", name, perm=[0, rank - 1, *range(1, rank - 1)])


def channels_last(c: Context, name: str, rank: int) -> str:
    """Transpose (N, C, ...) to (N, ..., C)."""
    return c.build.op("Transpose", name, perm=[0, *range(2, rank), 1])


def _own(c: Context, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: c.attributes[name] for name in names if name in c.attributes}


def fused_conv(c: Context) -> bool:
    """FusedConv: activation(Conv(X, W) + B + Z), with the bias B and a tensor Z of the result's shape."""
    elem_type = c.values.elem_type(c.input(0)) or c.values.elem_type(c.input(1))
    if not elem_type:
        return False
    c.give(_fused(c, c.input(0), c.input(3), elem_type))
    return True


def nhwc_conv(c: Context) -> bool:
    """NhwcConv and NhwcFusedConv: FusedConv with channels last in X, Z and the result."""
    rank, elem_type = c.values.rank(c.input(0)), c.values.elem_type(c.input(0)) or c.values.elem_type(c.input(1))
    first, added = channels_first(c, c.input(0)), channels_first(c, c.input(3)) if c.input(3) else ""
    if rank is None or first is None or added is None or not elem_type:
        return False
    c.give(channels_last(c, _fused(c, first, added, elem_type), rank))
    return True


def _fused(c: Context, x: str, added: str, elem_type: int) -> str:
    inputs = [each for each in (x, c.input(1), c.input(2)) if each]
    result = c.build.op("Conv", *inputs, **_own(c, _CONV))
    if added:
        result = c.build.op("Add", result, added)
    activation = c.attributes.get("activation", "")
    parameters = in_order(activation, c.attributes.get("activation_params", []))
    return activated(c.build, result, activation, parameters, elem_type)


def nhwc_max_pool(c: Context) -> bool:
    """NhwcMaxPool: MaxPool with channels last."""
    rank, first = c.values.rank(c.input(0)), channels_first(c, c.input(0))
    if rank is None or first is None:
        return False
    c.give(channels_last(c, c.build.op("MaxPool", first, **_own(c, _POOL)), rank))
    return True


def conv_transpose_with_dynamic_pads(c: Context) -> bool:
    """ConvTransposeWithDynamicPads: ConvTranspose whose pads are an input, which must be constant."""
    own = _own(c, (*_CONV, "output_padding"))
    if c.input(2):
        pads = c.values.constant(c.input(2))
        if pads is None:
            raise Refusal("its pads are computed while the model runs; fix the sizes that they depend on with --shape")
        own["pads"] = [int(each) for each in pads.reshape(-1)]
    inputs = [each for each in (c.input(0), c.input(1), c.input(3)) if each]
    c.give(c.build.op("ConvTranspose", *inputs, **own))
    return True


TABLE: dict[str, Decomposition] = {
    "FusedConv": fused_conv,
    "NhwcConv": nhwc_conv,
    "NhwcFusedConv": nhwc_conv,
    "NhwcMaxPool": nhwc_max_pool,
    "ConvTransposeWithDynamicPads": conv_transpose_with_dynamic_pads,
}
