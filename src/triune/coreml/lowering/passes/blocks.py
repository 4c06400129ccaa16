"""Functions for Triune's own passes that read and change blocks of coremltools' programs."""

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

from coremltools.converters.mil.mil import Block as _Block
from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

from triune.coreml.lowering.mb import Var, mb

Block: Any = _Block
_PASS: Any = ScopeSource.COREMLTOOLS_GRAPH_PASS


@contextlib.contextmanager
def in_pass(name: str) -> Generator[None]:
    """A context for changes by pass `name`: an operation that replaces another takes over its scopes.

    Scopes are marks that coremltools attaches to operations. One mark says that an operation must compute in fp32.
    """
    scope: Any = ScopeInfo(source=_PASS, data=[name])
    with mb.scope(scope):
        yield


def blocks_of(program: Any) -> Iterator[Any]:
    """Iterate over all blocks of a program; a block within another comes before it."""
    for function in program.functions.values():
        yield from _inner_first(function)


def _inner_first(block: Any) -> Iterator[Any]:
    for op in block.operations:
        for inner in op.blocks:
            yield from _inner_first(inner)
    yield block


def replace(block: Any, op: Any, new: Var, *, is_equal: bool = False) -> None:
    """Replace the only output of `op` by `new`, and remove `op`.

    Args:
        block: the block of `op`.
        op: the operation.
        new: the value that takes its place.
        is_equal: whether `new` is computed by an operation equal to `op`. coremltools then replaces packed weights,
            too; otherwise it refuses to, so that no pass folds them.
    """
    block.replace_uses_of_var_after_op(anchor_op=op, old_var=op.outputs[0], new_var=new, force_replace=is_equal)
    block.remove_ops([op])


def only_reader(value: Var) -> Any:
    """The operation that reads `value`, if there is only one and `value` is not an output of a block; else None."""
    readers = value.child_ops
    if len(readers) != 1 or value.consuming_blocks:
        return None
    return readers[0]
