"""coremltools' MIL builder and types. Importing this module needs coremltools, so only lowering imports it."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from coremltools.converters.mil import Builder
from coremltools.converters.mil import mil as _mil
from coremltools.converters.mil.mil import Function as _Function
from coremltools.converters.mil.mil import Program as _Program
from coremltools.converters.mil.mil import types as _types
from coremltools.converters.mil.mil.types import symbolic as _symbolic

# coremltools' registry adds operations at run time without type hints, so that all of them are Any here.
mb: Any = Builder
types: Any = _types
Program: Any = _Program
Function: Any = _Function
symbolic: Any = _symbolic
mil: Any = _mil
get_new_symbol: Any = mil.get_new_symbol
Var: TypeAlias = Any


def typed_var(name: str, shape: Sequence[Any], kind: str) -> Var:
    """A value that no operation computes, of `shape` and of the element type that MIL calls `kind`, such as "fp16"."""
    element = types.string_to_builtin(kind)
    return mil.Var(name, types.tensor(element, tuple(shape)) if len(shape) else element)


def is_fixed(dim: Any) -> bool:
    """Whether a size is an integer, not a symbol."""
    return not bool(symbolic.is_symbolic(dim))
