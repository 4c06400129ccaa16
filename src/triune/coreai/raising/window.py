"""Raise convolutions and pools of two and three spatial axes. In Core AI, a separate operation before them does the
padding; it becomes the attribute `pads` of the ONNX node.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import is_float, wide
from triune.coreai.raising.padding import padded_by
from triune.coreai.raising.region import Raise
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType


def _kernel(weight: Tensor) -> list[int]:
    sizes = [size for size in (weight.shape or ())[2:] if size is not None]
    if len(sizes) != weight.rank - 2:
        raise UnsupportedError("the kernel's size is only known when the program runs")
    return sizes


def _input(given: Given, fill: float, kernel: list[int] | None = None) -> tuple[Tensor, dict[str, Any]]:
    found = padded_by(given, fill, kernel)
    return (given["input"], {}) if found is None else (found[0], {"pads": found[1]})


def _conv(graph: Graph, given: Given) -> Tensor:
    x, pads = _input(given, 0.0)
    weight = graph.cast(given["weight"], x.dtype)
    if not is_float(x):
        raise UnsupportedError(f"a convolution of {x.dtype.value}")
    return graph.op(
        "Conv",
        x,
        weight,
        kernel_shape=_kernel(weight),
        strides=given.ints("stride"),
        dilations=given.ints("dilation"),
        group=given.integer("groups"),
        **pads,
    )


def _conv_transpose(graph: Graph, given: Given) -> Tensor:
    x = given["input"]
    weight = graph.cast(given["weight"], x.dtype)
    if not is_float(x):
        raise UnsupportedError(f"a convolution of {x.dtype.value}")
    padding, count = given.ints("padding"), x.rank - 2
    pads = [*padding, *padding] if len(padding) == count else [*padding[0::2], *padding[1::2]]
    kernel, strides, dilations = _kernel(weight), given.ints("stride"), given.ints("dilation")
    more = given.ints("output_pad")
    # ONNX's runtimes refuse an output_padding that is not less than the stride. In this case, pad the result with zeros
    # instead.
    limits = [max(stride, dilation) for stride, dilation in zip(strides, dilations, strict=True)]
    outside = [extra if extra >= limit else 0 for extra, limit in zip(more, limits, strict=True)]
    inside = [extra - out for extra, out in zip(more, outside, strict=True)]
    result = graph.op(
        "ConvTranspose",
        x,
        weight,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        group=given.integer("groups"),
        pads=pads,
        output_padding=inside,
    )
    if any(outside):
        result = graph.op("Pad", result, graph.ints(*[0] * (count + 2), 0, 0, *outside))
    return result


def _max_pool(graph: Graph, given: Given) -> Tensor:
    x, pads = _input(given, -np.inf, given.ints("kernel_size"))
    # ONNX Runtime pools only floats and 8-bit integers. Cast others to fp64, which can hold any 32-bit integer.
    carried = x if is_float(x) or x.dtype in (DType.INT8, DType.UINT8) else graph.cast(x, DType.FP64)
    result = graph.op(
        "MaxPool",
        carried,
        kernel_shape=given.ints("kernel_size"),
        strides=given.ints("stride"),
        dilations=given.ints("dilation"),
        ceil_mode=int(given.flag("ceil_mode")),
        **pads,
    )
    return graph.cast(result, x.dtype)


def _sum_pool(graph: Graph, given: Given) -> Tensor:
    """Write AveragePool times the number of elements in the kernel.

    For integers, which must wrap around, add up strided slices, one for each element of the kernel.
    """
    kernel, strides, dilations = (given.ints(name) for name in ("kernel_size", "strides", "dilation"))
    if not is_float(given["input"]):
        return _summed(graph, given["input"], kernel, strides, dilations)
    x, pads = _input(given, 0.0, kernel)
    average = graph.op(
        "AveragePool",
        x,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        count_include_pad=1,
        **pads,
    )
    return graph.op("Mul", average, graph.like(np.prod(kernel), x))


def _summed(graph: Graph, x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]) -> Tensor:
    carried = wide(graph, x)
    axes = graph.ints(*range(2, 2 + len(kernel)))
    total: Tensor | None = None
    for place in np.ndindex(*kernel):
        starts = [at * dilation for at, dilation in zip(place, dilations, strict=True)]
        # The slice has the element at `place` of each window, and ends with that element of the last window.
        ends = [
            start - (size - 1) * dilation or np.iinfo(np.int64).max
            for start, size, dilation in zip(starts, kernel, dilations, strict=True)
        ]
        part = graph.op("Slice", carried, graph.ints(*starts), graph.ints(*ends), axes, graph.ints(*strides))
        total = part if total is None else graph.op("Add", total, part)
    return x if total is None else graph.cast(total, x.dtype)


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "conv2d": _conv,
        "conv3d": _conv,
        "conv_transpose2d": _conv_transpose,
        "conv_transpose3d": _conv_transpose,
        "max_pool_2d": _max_pool,
        "max_pool_3d": _max_pool,
        "sum_pool_2d": _sum_pool,
        "sum_pool_3d": _sum_pool,
    }
)
