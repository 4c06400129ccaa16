"""Lowering of LSTM: to MIL's lstm if that computes the same, else step by step."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.coreml.lowering.broadcast import as_vector, sizes_of
from triune.coreml.lowering.context import Context, Lowering
from triune.coreml.lowering.mb import Var, mb, types
from triune.coreml.lowering.options import Target
from triune.graph.conversion.lowering.recurrent import Layer, activations_of, give_layer, layer_of
from triune.graph.conversion.lowering.recurrent_steps import step_by_step


def _lstm(c: Context) -> None:
    layer = layer_of(c)
    native = None if layer.lengths is not None else _native(c, layer)
    give_layer(c, *(native or step_by_step(c, layer)))


def _native(c: Context, layer: Layer[Var]) -> tuple[Var, list[Var]] | None:
    """Write MIL's lstm; return None if weights are not constant, or MIL lacks an attribute's value.

    Returns:
        the hidden states of all steps, and the last hidden and cell states, in the layout of ONNX's outputs.
    """
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
        # Bring the steps to the order of the input, in which ONNX returns them. If the only direction is "reverse",
        # MIL's lstm returns them in the order in which they are computed, the last one of the input first (coremltools'
        # test_builder_to_backend_smoke_unilstm).
        whole = mb.reverse(x=whole, axes=[0])
    return _by_direction(whole, layer), [_state_by_direction(each, layer) for each in last]


def _reordered(gates: NDArray[Any]) -> NDArray[Any]:
    """Reorder gates from ONNX's order (input, output, forget, cell) to MIL's (input, forget, output, cell)."""
    i, o, f, z = np.split(gates, 4)
    return np.ascontiguousarray(np.concatenate([i, f, o, z]))


def _by_direction(whole: Var, layer: Layer[Var]) -> Var:
    """Reshape (steps, batch, directions * hidden) to ONNX's (steps, directions, batch, hidden)."""
    steps, batch, _ = sizes_of(whole)
    split = mb.reshape(x=whole, shape=as_vector([steps, batch, len(layer.directions), layer.hidden]))
    return mb.transpose(x=split, perm=[0, 2, 1, 3])


def _state_by_direction(state: Var, layer: Layer[Var]) -> Var:
    """Reshape (batch, directions * hidden) to ONNX's (directions, batch, hidden)."""
    split = mb.reshape(x=state, shape=as_vector([sizes_of(state)[0], len(layer.directions), layer.hidden]))
    return mb.transpose(x=split, perm=[1, 0, 2])


TABLE: dict[str, Lowering] = {"LSTM": _lstm}
