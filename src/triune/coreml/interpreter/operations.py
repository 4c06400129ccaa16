"""The functions that compute all operations, by MIL's names."""

from collections.abc import Mapping
from types import MappingProxyType

from triune.coreml.interpreter import (
    activation,
    constexpr,
    conv,
    elementwise,
    image_resizing,
    linear,
    lists,
    normalization,
    pool,
    quantization,
    random,
    recurrent,
    reduction,
    scatter_gather,
    suppression,
    tensor_operation,
    tensor_transformation,
)
from triune.coreml.interpreter.values import Compute, Family

_FAMILIES: tuple[Family, ...] = (
    activation.FAMILY,
    constexpr.FAMILY,
    conv.FAMILY,
    elementwise.FAMILY,
    image_resizing.FAMILY,
    linear.FAMILY,
    lists.FAMILY,
    normalization.FAMILY,
    pool.FAMILY,
    quantization.FAMILY,
    random.FAMILY,
    recurrent.FAMILY,
    reduction.FAMILY,
    scatter_gather.FAMILY,
    suppression.FAMILY,
    tensor_operation.FAMILY,
    tensor_transformation.FAMILY,
)

OPERATIONS: Mapping[str, Compute] = MappingProxyType(
    {name: compute for family in _FAMILIES for name, compute in family.items()}
)
