"""All operations of the interpreter, by MIL's names."""

from collections.abc import Mapping
from types import MappingProxyType

from triune.coreml.interpreter import elementwise, lists
from triune.coreml.interpreter.values import Compute, Family

_FAMILIES: tuple[Family, ...] = (
    elementwise.FAMILY,
    lists.FAMILY,
)

OPERATIONS: Mapping[str, Compute] = MappingProxyType(
    {name: compute for family in _FAMILIES for name, compute in family.items()}
)
