"""Import Apple's `coreai-core`, in the only order that works. Importing this module requires that package."""

import contextlib
import re
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

# Import this first; otherwise the import of the dialect is circular.
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


Rewrite: TypeAlias = Callable[[str, Sequence[Value]], tuple[str, Sequence[Value]]]
"""A function that replaces an operation: it takes the operation's name and operands, and returns those of the operation
to write instead.
"""

_REWRITE: ContextVar[Rewrite | None] = ContextVar("rewrite", default=None)


@contextlib.contextmanager
def rewritten(rewrite: Rewrite) -> Generator[None]:
    """A context in which `rewrite` changes each operation that is added. Operations that `rewrite` itself adds are not
    changed.
    """

    def once(name: str, operands: Sequence[Value]) -> tuple[str, Sequence[Value]]:
        inner = _REWRITE.set(None)
        try:
            return rewrite(name, operands)
        finally:
            _REWRITE.reset(inner)

    token = _REWRITE.set(once)
    try:
        yield
    finally:
        _REWRITE.reset(token)


def is_rewritten() -> bool:
    """Whether the caller is in a context of `rewritten`."""
    return _REWRITE.get() is not None


class _Checked:
    """The functions of the dialect, each of which verifies its result at once.

    If the whole module were verified later, the error would not name the operation.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def checked(*arguments: Any, **named: Any) -> Any:
            rewrite = _REWRITE.get()
            wanted, operands = (name, arguments) if rewrite is None else rewrite(name, arguments)
            value = getattr(_dialect, wanted)(*operands, **named)
            owner = getattr(value, "owner", None)
            if owner is not None:
                owner.verify()
            return value

        setattr(self, name, checked)
        return checked


ops: Final[Any] = _Checked()
"""The dialect's operations without regions: each is a function that adds the operation and returns its result."""


@contextlib.contextmanager
def is_silent(module: Any) -> Generator[None]:
    """A context in which the library reports errors only by exceptions, not also on standard error."""

    def ignore(_diagnostic: Any) -> bool:
        return True

    handler = module._mlir_module.context.attach_diagnostic_handler(ignore)
    try:
        yield
    finally:
        handler.detach()


def located(error: Exception) -> str | None:
    """The name of the node at which the library raised `error`, from MLIR's location; None if it has none."""
    found = re.search(r'loc\("([^"]*)"', str(error))
    return found[1] if found else None


def plain(error: Exception) -> str:
    """The message of an exception of the library, without the locations in source code that it contains."""
    return " ".join(_NOISE.sub("", str(error)).split()) or repr(error)
