"""Pools of one to three dimensions."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.coreml.raising.window import padding
from triune.graph.raising.graph import Graph, Tensor


def _attributes(given: Given) -> dict[str, Any]:
    x, kernel, strides = given["x"], given.ints("kernel_sizes"), given.ints("strides")
    return {
        "kernel_shape": kernel,
        "strides": strides,
        "ceil_mode": int(given.flag("ceil_mode")),
        **padding(given, x, kernel, strides, [1] * len(kernel)),
    }


def _avg_pool(graph: Graph, given: Given) -> Tensor:
    count_include_pad = int(not given.flag("exclude_padding_from_average"))
    return graph.op("AveragePool", given["x"], count_include_pad=count_include_pad, **_attributes(given))


def _max_pool(graph: Graph, given: Given) -> Tensor:
    return graph.op("MaxPool", given["x"], **_attributes(given))


def _l2_pool(graph: Graph, given: Given) -> Tensor:
    """Write the square root of the sum of squares in each window."""
    return graph.op("LpPool", given["x"], p=2, **_attributes(given))


TABLE: Mapping[str, Raise] = MappingProxyType({"avg_pool": _avg_pool, "l2_pool": _l2_pool, "max_pool": _max_pool})
