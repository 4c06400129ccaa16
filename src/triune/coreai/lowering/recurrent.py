"""LSTM, GRU and RNN."""

from collections.abc import Sequence

from triune.coreai.library import Value
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import dim_of, refined, spread
from triune.coreai.lowering.recurrent_steps import step_by_step
from triune.coreai.lowering.values import is_float, like, shape_of, transpose
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.recurrent import Layer, directions_of


def _recurrent(c: Context) -> None:
    # (steps, directions, batch, hidden), and (directions, batch, hidden) for each state.
    whole, states = step_by_step(c, _layer(c))
    is_batch_first = bool(c.attributes.get("layout", 0))
    c.give(transpose(whole, [2, 0, 1, 3]) if is_batch_first else whole)
    for index, state in enumerate(states, start=1):
        c.give(transpose(state, [1, 0, 2]) if is_batch_first else state, index)


def _layer(c: Context) -> Layer[Value]:
    x = c.input(0)
    if not is_float(x):
        raise Refusal("a recurrent layer of whole numbers; cast them to FLOAT")
    is_batch_first = bool(c.attributes.get("layout", 0))
    if is_batch_first:
        x = transpose(x, [1, 0, 2])
    directions = directions_of(c)
    hidden = int(c.attributes.get("hidden_size", 0)) or shape_of(c.input(2))[2]
    if hidden is None:
        raise Refusal("the size of the hidden state is not known; fix the shape of the weights")
    states: list[Value] = []
    for index in (5, 6)[: 2 if c.node.op_type == "LSTM" else 1]:
        if c.has(index):
            state = c.input(index)
            states.append(transpose(state, [1, 0, 2]) if is_batch_first else state)
        else:
            states.append(spread(like(x, 0), [len(directions), dim_of(x, 1), hidden]))
    x, *states = _of_one_batch([x, *states])
    return Layer(x, _lengths(c, x), hidden, directions, states)


def _of_one_batch(values: Sequence[Value]) -> list[Value]:
    """Values whose second dimension is the batch, which is that of any of them that knows its size.

    A model may leave it free in some of them: Core AI does not find out that they are the same.
    """
    known = sorted({size for size in (shape_of(value)[1] for value in values) if size is not None})
    if len(known) > 1:
        raise Refusal(f"its operands have batches of {' and '.join(map(str, known))}; give them one batch")
    if not known:
        return list(values)
    return [refined(value, [None, known[0], None]) for value in values]


def _lengths(c: Context, x: Value) -> Value | None:
    if not c.has(4):
        return None
    known = c.constant(4)
    if known is not None and bool((known == shape_of(x)[0]).all()):
        return None
    return c.input(4)


TABLE: dict[str, Lowering] = {"LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent}
