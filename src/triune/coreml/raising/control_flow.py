"""Raise cond to If, while_loop to Loop, and the reads and writes of states, which may be in the blocks of both."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from triune.core.errors import InvalidArgumentError
from triune.coreml.mil import Argument, Block, ListType, Name, Operation, TensorType, Type
from triune.coreml.raising.block import BlockRaiser, ControlFlow
from triune.graph.raising.graph import Shape, Tensor
from triune.graph.raising.subgraphs import Subgraph, put_if, put_loop, put_states


def raise_cond(raiser: BlockRaiser, operation: Operation) -> Sequence[Tensor]:
    """Raise cond to If: `pred` chooses the first or the second block. States that a block writes become outputs."""
    predicate = raiser.graph.scalar(raiser.argument(_only(operation, "pred")))
    if len(operation.blocks) != 2:
        raise InvalidArgumentError(f"it has {len(operation.blocks)} blocks instead of 2")
    written = sorted({name for block in operation.blocks for name in _written_states(block)})
    branches: list[Subgraph] = []
    for block in operation.blocks:
        inner = raiser.inner(raiser.graph.subgraph())
        values = inner.block(block)
        branches.append((inner.graph, [*values, *(inner.states[name] for name in written)]))
    then, other = branches
    return put_states(raiser.states, written, put_if(raiser.graph, operation.name, predicate, then, other))


def raise_while_loop(raiser: BlockRaiser, operation: Operation) -> Sequence[Tensor]:
    """Raise while_loop to Loop. The first block is the condition, the second the body.

    States that a block writes become loop variables.
    """
    if len(operation.blocks) != 2:
        raise InvalidArgumentError(f"it has {len(operation.blocks)} blocks instead of 2")
    condition, body = operation.blocks
    start = [raiser.argument(each) for each in operation.inputs.get("loop_vars", ())]
    written = sorted({name for block in operation.blocks for name in _written_states(block)})
    start += [raiser.states[name] for name in written]

    outer = raiser.inner(raiser.graph)
    _enter(outer, condition, start, written)
    is_first_step = raiser.graph.scalar(_one(outer.block(condition)))

    graph = raiser.graph.subgraph()
    names = [*(each.name for each in body.inputs), *written]
    shapes = [*(_shape(each.type) for each in body.inputs), *(raiser.states[name].shape for name in written)]
    step_inputs = [
        Tensor(graph.root.fresh(f"{operation.name}/{name}"), value.dtype, shape)
        for name, shape, value in zip(names, shapes, start, strict=True)
    ]
    inner = raiser.inner(graph)
    _enter(inner, body, step_inputs, written)
    ended = [*inner.block(body), *(inner.states[name] for name in written)]
    if len(ended) != len(start):
        raise InvalidArgumentError(f"its body has {len(ended)} outputs for {len(start)} variables")
    ended = [graph.cast(given, want.dtype) for given, want in zip(ended, start, strict=True)]
    _enter(inner, condition, ended, written)
    again = _one(inner.block(condition))
    results = put_loop(raiser.graph, operation.name, is_first_step, start, (graph, [again, *ended]), step_inputs)
    return put_states(raiser.states, written, results)


def raise_read_state(raiser: BlockRaiser, operation: Operation) -> Sequence[Tensor]:
    """Read the current value of the state."""
    return [raiser.states[_state(raiser, operation)]]


def raise_write_state(raiser: BlockRaiser, operation: Operation) -> Sequence[Tensor]:
    """Set the state to a new value. coremltools' `coreml_update_state` is a write_state, then a read_state."""
    name = _state(raiser, operation)
    data = raiser.argument(_only(operation, "data"))
    state = raiser.states[name]
    raiser.states[name] = Tensor(data.name, state.dtype, state.shape, data.constant)
    return []


def _enter(raiser: BlockRaiser, block: Block, values: Sequence[Tensor], states: Sequence[str]) -> None:
    """Bind the inputs of a block to the first of `values`, and `states` to the remaining ones."""
    count = len(block.inputs)
    if count + len(states) != len(values):
        raise InvalidArgumentError(f"a block has {count} inputs for {len(values) - len(states)} variables")
    raiser.values.update({each.name: value for each, value in zip(block.inputs, values, strict=False)})
    raiser.states.update(zip(states, values[count:], strict=True))


def _shape(kind: Type) -> Shape | None:
    match kind:
        case TensorType(shape=shape):
            return shape
        case ListType(element=element):
            # A list is represented by the tensor of its stacked elements.
            return None if element.shape is None else (None, *element.shape)
        case _:
            raise InvalidArgumentError("a block's input is neither a tensor nor a list")


def _written_states(block: Block) -> Iterator[str]:
    """Yield the name of each state that a block, or a block within it, writes."""
    for operation in block.operations:
        for argument in operation.inputs.get("input", ()) if operation.op == "write_state" else ():
            if isinstance(argument, Name):
                yield argument.name
        for inner in operation.blocks:
            yield from _written_states(inner)


def _state(raiser: BlockRaiser, operation: Operation) -> str:
    argument = _only(operation, "input")
    if not isinstance(argument, Name) or argument.name not in raiser.states:
        raise InvalidArgumentError("its input is not a state of the function")
    return argument.name


def _only(operation: Operation, name: str) -> Argument:
    given = operation.inputs.get(name, ())
    if len(given) != 1:
        raise InvalidArgumentError(f"the parameter '{name}' has {len(given)} values instead of one")
    return given[0]


def _one(values: Sequence[Tensor]) -> Tensor:
    if len(values) != 1:
        raise InvalidArgumentError(f"its condition has {len(values)} outputs instead of one")
    return values[0]


CONTROL_FLOW: Mapping[str, ControlFlow] = MappingProxyType(
    {
        "cond": raise_cond,
        "while_loop": raise_while_loop,
        "read_state": raise_read_state,
        "write_state": raise_write_state,
    }
)
