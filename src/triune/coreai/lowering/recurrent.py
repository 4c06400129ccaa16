"""Lowering of LSTM, GRU and RNN."""

from collections.abc import Sequence
from dataclasses import replace

from triune.coreai.library import Value
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import refined
from triune.coreai.lowering.values import shape_of
from triune.graph.conversion.lowering.recurrent import give_layer, layer_of
from triune.graph.conversion.lowering.recurrent_steps import step_by_step
from triune.graph.conversion.problems import Refusal


def _recurrent(c: Context) -> None:
    layer = layer_of(c)
    x, *states = _with_batch([layer.x, *layer.states])
    give_layer(c, *step_by_step(c, replace(layer, x=x, states=states)))


def _with_batch(values: Sequence[Value]) -> list[Value]:
    """Give all values the same known size of dimension 1, the batch, if it is known of any of them.

    A model may leave it free in some of them, and Core AI does not infer that it is the same.
    """
    known = sorted({size for size in (shape_of(value)[1] for value in values) if size is not None})
    if len(known) > 1:
        raise Refusal(f"its operands have batches of {' and '.join(map(str, known))}; give them one batch")
    if not known:
        return list(values)
    return [refined(value, [None, known[0], None]) for value in values]


TABLE: dict[str, Lowering] = {"LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent}
