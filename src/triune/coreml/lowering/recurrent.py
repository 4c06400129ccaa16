"""LSTM, GRU and RNN: Core ML's own where it computes the same, else step by step."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.coreml.lowering.broadcast import as_vector, sizes_of
from triune.coreml.lowering.context import Context, Lowering, Refusal, is_float, like, static_dim
from triune.coreml.lowering.mb import Var, is_fixed, mb, types
from triune.coreml.lowering.options import Target
from triune.coreml.lowering.recurrent_steps import step_by_step
from triune.graph.conversion.recurrent import Layer, activations_of, directions_of


def _recurrent(c: Context) -> None:
    layer = _layer(c)
    if c.node.op_type == "LSTM" and layer.lengths is None and (native := _native(c, layer)) is not None:
        whole, states = native
    else:
        whole, states = step_by_step(c, layer)
    # (steps, directions, batch, hidden), and (directions, batch, hidden) for each state.
    is_batch_first = bool(c.attributes.get("layout", 0))
    c.give(mb.transpose(x=whole, perm=[2, 0, 1, 3]) if is_batch_first else whole)
    for index, state in enumerate(states, start=1):
        c.give(mb.transpose(x=state, perm=[1, 0, 2]) if is_batch_first else state, index)


def _layer(c: Context) -> Layer[Var]:
    x = c.input(0)
    if not is_float(x):
        raise Refusal("a recurrent layer of whole numbers; cast them to FLOAT")
    is_batch_first = bool(c.attributes.get("layout", 0))
    if is_batch_first:
        x = mb.transpose(x=x, perm=[1, 0, 2])
    directions = directions_of(c)
    hidden = int(c.attributes.get("hidden_size", 0)) or static_dim(c.input(2), 2, "the size of the hidden state")
    states: list[Var] = []
    for index in (5, 6)[: 2 if c.node.op_type == "LSTM" else 1]:
        if c.has(index):
            state = c.input(index)
            states.append(mb.transpose(x=state, perm=[1, 0, 2]) if is_batch_first else state)
        else:
            sizes = [len(directions), sizes_of(x)[1], hidden]
            states.append(mb.fill(shape=as_vector(sizes), value=like(x, 0)))
    return Layer(x, _lengths(c, x), hidden, directions, states)


def _lengths(c: Context, x: Var) -> Var | None:
    if not c.has(4):
        return None
    known = c.constant(4)
    if known is not None and is_fixed(x.shape[0]) and bool((known == int(x.shape[0])).all()):
        return None
    return c.input(4)


def _native(c: Context, layer: Layer[Var]) -> tuple[Var, list[Var]] | None:
    """Core ML's LSTM, for weights that are constants."""
    weights, recurrence = c.constant(1), c.constant(2)
    if weights is None or recurrence is None or any(c.has(i) and c.constant(i) is None for i in (3, 7)):
        return None
    if c.attributes.get("clip") is not None or c.attributes.get("input_forget", 0):
        return None
    allowed = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu"}
    names, *others = [[name for name, _, _ in activations] for activations in activations_of(c)]
    if any(other != names for other in others) or any(name not in allowed for name in names):
        return None
    if layer.x.dtype == types.fp16 and c.target.value < Target.IOS17.value:
        return None
    operands: dict[str, Any] = {}
    for place, _ in enumerate(layer.directions):
        suffix = "_back" if place else ""
        operands["weight_ih" + suffix] = _reordered(weights[place])
        operands["weight_hh" + suffix] = _reordered(recurrence[place])
        bias = c.constant(3)
        if bias is not None:
            both = bias[place].reshape(2, -1)
            operands["bias" + suffix] = _reordered(both[0] + both[1])
        peephole = c.constant(7)
        if peephole is not None:
            i, o, f = np.split(peephole[place], 3)
            operands["peephole" + suffix] = np.concatenate([i, f, o])
    flat = [
        mb.reshape(x=mb.transpose(x=state, perm=[1, 0, 2]), shape=[-1, len(layer.directions) * layer.hidden])
        for state in layer.states
    ]
    whole, *last = mb.lstm(
        x=layer.x,
        initial_h=flat[0],
        initial_c=flat[1],
        direction="bidirectional" if len(layer.directions) == 2 else layer.directions[0],
        output_sequence=True,
        recurrent_activation=allowed[names[0]],
        cell_activation=allowed[names[1]],
        activation=allowed[names[2]],
        **operands,
    )
    if layer.directions == ["reverse"]:
        # Core ML's gives the steps in the order of their computation, the last one first, where the direction is
        # "reverse" alone (coremltools' test_builder_to_backend_smoke_unilstm); ONNX always in the order of the input.
        whole = mb.reverse(x=whole, axes=[0])
    return _by_direction(whole, layer), [_state_by_direction(each, layer) for each in last]


def _reordered(gates: NDArray[Any]) -> NDArray[Any]:
    """From ONNX's order of the gates, input output forget cell, to MIL's: input forget output cell."""
    i, o, f, z = np.split(gates, 4)
    return np.ascontiguousarray(np.concatenate([i, f, o, z]))


def _by_direction(whole: Var, layer: Layer[Var]) -> Var:
    steps, batch, _ = sizes_of(whole)
    split = mb.reshape(x=whole, shape=as_vector([steps, batch, len(layer.directions), layer.hidden]))
    return mb.transpose(x=split, perm=[0, 2, 1, 3])


def _state_by_direction(state: Var, layer: Layer[Var]) -> Var:
    split = mb.reshape(x=state, shape=as_vector([sizes_of(state)[0], len(layer.directions), layer.hidden]))
    return mb.transpose(x=split, perm=[1, 0, 2])


TABLE: dict[str, Lowering] = {"LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent}
