"""Conditions, loops, invoked graphs, and states, which their blocks may read and write."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.program import invoked
from triune.coreai.raising.region import ControlFlow, LostError, RegionRaiser
from triune.coreai.raising.types import tensor_type
from triune.coreai.raising.values import Held, State, Token
from triune.graph.raising.graph import Tensor
from triune.graph.raising.subgraphs import Subgraph, put_if, put_loop, put_states
from triune.graph.raising.types import DType


def raise_if(raiser: RegionRaiser, view: Any) -> Sequence[Held]:
    """Raise if to If: the condition chooses the first or the second block. States that a block writes become
    outputs.
    """
    predicate = raiser.graph.scalar(raiser.graph.cast(raiser.tensor(view.operands[0]), DType.BOOL))
    prefix = raiser.graph.prefix
    written = _written(raiser, view)
    branches: list[Subgraph] = []
    for region in view.regions:
        inner = raiser.inner(raiser.graph.subgraph())
        values = _tensors(inner.block(region.blocks[0])) if len(region.blocks) else []
        branches.append((inner.graph, [*values, *(inner.states[name] for name in written)]))
    then, other = branches
    return put_states(raiser.states, written, put_if(raiser.graph, prefix, predicate, then, other))


def raise_while(raiser: RegionRaiser, view: Any) -> Sequence[Held]:
    """Raise while to Loop. The first block computes the condition and the inputs of the second, which is the body.

    States that the blocks write become loop variables.

    ONNX's Loop computes its condition at the end of a step, but the first block runs at the beginning. So that block is
    raised twice: before the loop, and at the end of the body.
    """
    before, after = (region.blocks[0] for region in view.regions)
    prefix = raiser.graph.prefix
    written = _written(raiser, view)
    outer = raiser.inner(raiser.graph)
    _enter(outer, before, [raiser.held(value) for value in view.operands])
    go_on, *start = _tensors(outer.block(before))
    go_on = raiser.graph.scalar(raiser.graph.cast(go_on, DType.BOOL))
    start += [outer.states[name] for name in written]

    graph = raiser.graph.subgraph()
    fresh = graph.root.fresh
    shapes = [tensor_type(argument.type).shape for argument in after.arguments]
    shapes += [raiser.states[name].shape for name in written]
    round_start = [
        Tensor(fresh(f"{prefix}/variable"), value.dtype, shape) for shape, value in zip(shapes, start, strict=True)
    ]
    inner = raiser.inner(graph)
    count = len(start) - len(written)
    inner.states.update(zip(written, round_start[count:], strict=True))
    _enter(inner, after, round_start[:count])
    carried = inner.block(after)
    _enter(inner, before, carried)
    ended = [*_tensors(inner.block(before)), *(inner.states[name] for name in written)]
    results = put_loop(raiser.graph, prefix, go_on, start, (graph, ended), round_start)
    return put_states(raiser.states, written, results)


def raise_invoke(raiser: RegionRaiser, view: Any) -> Sequence[Held]:
    """Inline an invoked graph of the module, even a composite, which Apple's runtimes run as one operation."""
    name = invoked(view)
    if name not in raiser.program.graphs:
        raise InvalidArgumentError(f"there is no graph '{name}' to invoke")
    block = raiser.program.graphs[name].regions[0].blocks[0]
    inside = RegionRaiser(raiser.program, raiser.graph, {}, raiser.states, raiser.depth + 1)
    return _inlined(raiser, inside, block, view)


def raise_isolated_group(raiser: RegionRaiser, view: Any) -> Sequence[Held]:
    """Inline a block that is meant to run on one compute unit."""
    inside = RegionRaiser(raiser.program, raiser.graph, {}, raiser.states, raiser.depth + 1)
    return _inlined(raiser, inside, view.regions[0].blocks[0], view)


def raise_create_token(raiser: RegionRaiser, view: Any) -> Sequence[Held]:
    """Make a token, which does nothing: reads and writes keep the order of the program."""
    del raiser, view
    return [Token()]


def raise_read_handle(raiser: RegionRaiser, view: Any) -> Sequence[Held]:
    """Raise a read through a handle: it gives the current value of the handle's state."""
    return [raiser.states[_state(raiser, view.operands[0])], Token()]


def raise_write_handle(raiser: RegionRaiser, view: Any) -> Sequence[Held]:
    """Raise a write through a handle: the handle's state has the new value from here on."""
    name = _state(raiser, view.operands[0])
    data, state = raiser.tensor(view.operands[1]), raiser.states[name]
    raiser.states[name] = Tensor(data.name, state.dtype, state.shape, data.constant)
    return [Token()]


def raise_nothing(raiser: RegionRaiser, view: Any) -> Sequence[Held]:
    """Write nothing for an operation that only describes the program."""
    del raiser, view
    return []


def _inlined(raiser: RegionRaiser, inside: RegionRaiser, block: Any, view: Any) -> Sequence[Held]:
    _enter(inside, block, [raiser.held(value) for value in view.operands])
    results = inside.block(block)
    raiser.states.update(inside.states)
    return results


def _enter(raiser: RegionRaiser, block: Any, values: Sequence[Held]) -> None:
    """Bind the arguments of a block to `values`."""
    for argument, value in zip(block.arguments, values, strict=True):
        raiser.values[argument] = value


def _tensors(values: Sequence[Held]) -> list[Tensor]:
    found = [value for value in values if isinstance(value, Tensor)]
    if len(found) < len(values):
        raise UnsupportedError("a block returns a value that is not a tensor of real numbers")
    return found


def _written(raiser: RegionRaiser, view: Any) -> list[str]:
    """The names of the states that the blocks of an operation may write."""
    found = {_state(raiser, value) for value in _handles(view)}
    return sorted(found)


def _handles(view: Any) -> Iterator[Any]:
    for region in view.regions:
        for block in region.blocks:
            for operation in block.operations:
                name = operation.operation.name
                # Yield the handles that an operation gets. A graph or a group that gets a state's handle may write the
                # state.
                if name in ("coreai.write_handle", "coreai.invoke", "coreai.isolated_group"):
                    yield from (each for each in operation.operands if str(each.type).startswith("!coreai.handle"))
                # Do not search within an isolated group: handles have other names there, and the handles that the group
                # gets are yielded above.
                if name != "coreai.isolated_group":
                    yield from _handles(operation)


def _state(raiser: RegionRaiser, value: Any) -> str:
    try:
        held = raiser.held(value)
    except LostError:
        held = None
    if not isinstance(held, State):
        raise UnsupportedError("a handle that is not an argument of the function")
    return held.name


CONTROL_FLOW: Mapping[str, ControlFlow] = MappingProxyType(
    {
        "create_token": raise_create_token,
        "if": raise_if,
        "invoke": raise_invoke,
        "isolated_group": raise_isolated_group,
        "join_token": raise_create_token,
        "read_handle": raise_read_handle,
        "target_spec": raise_nothing,
        "while": raise_while,
        "write_handle": raise_write_handle,
        "debuginfo.record": raise_nothing,
        "debuginfo.value": raise_nothing,
    }
)
