"""Import Apple's `coreai-core` in the only order that works. Importing this module requires that package."""

import contextlib
import re
from collections.abc import Callable, Generator
from typing import Any, Final, TypeAlias

# This import comes first: without it the dialect's import is circular.
import coreai.authoring
from coreai._compiler import ir as _ir
from coreai._compiler.dialects import coreai as _dialect

ir: Final[Any] = _ir
"""MLIR's own classes: types, attributes, modules."""

authoring: Final[Any] = coreai.authoring

dialect: Final[Any] = _dialect
"""Core AI's dialect: all of its operations."""

Value: TypeAlias = Any
"""A tensor within a program: an MLIR value."""

_NOISE = re.compile(
    r"^(Verification failed:|error: .*?loc\S*: |error: [^:]*: )|note: .*$|see current operation: .*$", re.S | re.M
)


class _Checked:
    """The dialect's functions, which verify each result at once: a check of the module would not name operations."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        add = getattr(_dialect, name)

        def added(*arguments: Any, **named: Any) -> Any:
            value = add(*arguments, **named)
            owner = getattr(value, "owner", None)
            if owner is not None:
                owner.verify()
            return value

        setattr(self, name, added)
        return added


ops: Final[Any] = _Checked()
"""The dialect's operations without regions: each is a function that adds the operation and returns its result."""


@contextlib.contextmanager
def is_silent(module: Any) -> Generator[None]:
    """A context in which the library reports errors only by exceptions, not also on standard error."""

    def pass_over(_diagnostic: Any) -> bool:
        return True

    handler = module._mlir_module.context.attach_diagnostic_handler(pass_over)
    try:
        yield
    finally:
        handler.detach()


def located(error: Exception) -> str | None:
    """The node that an exception of the library names by its location, if it has one."""
    found = re.search(r'loc\("([^"]*)"', str(error))
    return found[1] if found else None


def plain(error: Exception) -> str:
    """The message of an exception of the library, without the source locations that it names."""
    return " ".join(_NOISE.sub("", str(error)).split()) or repr(error)
