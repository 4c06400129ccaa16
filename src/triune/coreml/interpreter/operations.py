"""All operations of the interpreter, by MIL's names."""

from collections.abc import Mapping
from types import MappingProxyType

from triune.coreml.interpreter import (
    activation,
    constexpr,
    conv,
    elementwise,
    linear,
    lists,
    normalization,
    pool,
    quantization,
    reduction,
    scatter_gather,
    tensor_operation,
    tensor_transformation,
)
from triune.coreml.interpreter.values import Compute, Family

_FAMILIES: tuple[Family, ...] = (
    activation.FAMILY,
    constexpr.FAMILY,
    conv.FAMILY,
    elementwise.FAMILY,
    linear.FAMILY,
    lists.FAMILY,
    normalization.FAMILY,
    pool.FAMILY,
    quantization.FAMILY,
    reduction.FAMILY,
    scatter_gather.FAMILY,
    tensor_operation.FAMILY,
    tensor_transformation.FAMILY,
)

OPERATIONS: Mapping[str, Compute] = MappingProxyType(
    {name: compute for family in _FAMILIES for name, compute in family.items()}
)
