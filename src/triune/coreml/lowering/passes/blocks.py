"""What Triune's own passes do with PyMIL's blocks."""

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
    """New ops that take the place of others have their marks, such as the precision in which they compute."""
    scope: Any = ScopeInfo(source=_PASS, data=[name])
    with mb.scope(scope):
        yield


def blocks_of(program: Any) -> Iterator[Any]:
    """All blocks of a program, the inner ones before those around them."""
    for function in program.functions.values():
        yield from _inner_first(function)


def _inner_first(block: Any) -> Iterator[Any]:
    for op in block.operations:
        for inner in op.blocks:
            yield from _inner_first(inner)
    yield block


def replace(block: Any, op: Any, new: Var) -> None:
    """`new` takes the place of the one output of `op`, which is removed."""
    block.replace_uses_of_var_after_op(anchor_op=op, old_var=op.outputs[0], new_var=new)
    block.remove_ops([op])


def only_reader(value: Var) -> Any:
    """The op that reads a value; None where there are none or several, or where a block gives it out."""
    readers = value.child_ops
    if len(readers) != 1 or value.consuming_blocks:
        return None
    return readers[0]
