"""Raise lstm, gru and rnn to ONNX's LSTM, GRU and RNN, which have the gates in another order.

For the direction "reverse", MIL returns the steps in the order in which they are computed, the last one of the input
first. ONNX returns them in the order of the input, and so does MIL for both halves of "bidirectional".
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import Array
from triune.coreml.raising.block import Raise
from triune.coreml.raising.clipped_lstm import Activations, Cell, clipped_lstm
from triune.coreml.raising.given import Given
from triune.coreml.raising.recurrent_activation import attributes
from triune.graph.raising.graph import Graph, Tensor

# ONNX's order of the gates, as indices into MIL's order.
_LSTM_GATES = (0, 2, 1, 3)
_LSTM_PEEPHOLES = (0, 2, 1)
_GRU_GATES = (2, 0, 1)
_INT64_MIN = np.iinfo(np.int64).min


def _directions(given: Given, *allowed: str) -> str:
    direction = given.text("direction").lower()
    if direction not in allowed:
        raise UnsupportedError(f"the direction '{direction}' is not one of {list(allowed)}")
    if given["x"].rank != 3:
        raise InvalidArgumentError(f"'x' has {given['x'].rank} dimensions instead of 3: sequence, batch, features")
    return direction


def _weights(given: Given, gates: Sequence[int], suffix: str = "") -> tuple[Array, Array, Array]:
    """The weights for the input and for the hidden state, and the bias, with the gates in ONNX's order.

    Raises:
        InvalidArgumentError: the shapes of weights and bias do not agree.
    """
    weight_ih, weight_hh = given.array(f"weight_ih{suffix}"), given.array(f"weight_hh{suffix}")
    hidden = weight_hh.shape[-1]
    rows = len(gates) * hidden
    bias = _vector(given, f"bias{suffix}", rows, weight_hh)
    if weight_hh.shape != (rows, hidden) or weight_ih.shape[:-1] != (rows,):
        raise InvalidArgumentError(
            f"weights of shapes {list(weight_ih.shape)} and {list(weight_hh.shape)}: {len(gates)} gates have "
            f"[{rows}, features] and [{rows}, {hidden}]"
        )
    return _reorder(weight_ih, gates), _reorder(weight_hh, gates), _reorder(bias, gates)


def _vector(given: Given, name: str, size: int, like: Array) -> Array:
    """An optional vector; zeros if it is not given."""
    value = given.maybe_array(name)
    if value is None:
        return np.zeros(size, like.dtype)
    if value.shape != (size,):
        raise InvalidArgumentError(f"'{name}' is of shape {list(value.shape)} instead of [{size}]")
    return value


def _reorder(value: Array, gates: Sequence[int]) -> Array:
    return np.concatenate([np.split(value, len(gates))[place] for place in gates])


def _initial_state(graph: Graph, given: Given, name: str, directions: int, hidden: int) -> Tensor:
    """An initial state, [batch, directions * hidden], in ONNX's form [directions, batch, hidden]."""
    state = _batch_rows(graph, graph.cast(given[name], given["x"].dtype), given["x"])
    if directions == 1:
        return graph.unsqueeze(state, 0)
    return graph.op("Transpose", graph.reshape(state, 0, directions, hidden), perm=[1, 0, 2])


def _batch_rows(graph: Graph, state: Tensor, x: Tensor) -> Tensor:
    """The first rows of a state, as many as `x` has in its batch.

    For packed sequences coremltools writes states with more rows; Core ML takes the first of them.
    """
    batch = None if x.shape is None else x.shape[1]
    rows = None if state.shape is None else state.shape[0]
    if batch is not None and batch == rows:
        return state
    ends = graph.ints(batch) if batch is not None else graph.op("Shape", x, start=1, end=2)
    return graph.op("Slice", state, graph.ints(0), ends, graph.ints(0))


def _compute(
    graph: Graph, given: Given, op_type: str, inputs: Sequence[Tensor | None], direction: str, **more: Any
) -> list[Tensor]:
    """Write the ONNX node.

    Returns:
        the node's outputs in MIL's form: see `_mil_outputs`.
    """
    dtype = given["x"].dtype
    dtypes = [dtype if given.flag("output_sequence") else None, *[dtype] * (2 if op_type == "LSTM" else 1)]
    outputs = graph.ops(op_type, inputs, dtypes, direction=direction, **more)
    return _mil_outputs(graph, given, outputs, direction)


def _mil_outputs(graph: Graph, given: Given, outputs: Sequence[Tensor], direction: str) -> list[Tensor]:
    """Convert outputs of ONNX's operators to MIL's form.

    The steps are [length, directions, batch, hidden] in ONNX and [length, batch, directions * hidden] in MIL; the last
    states are [directions, batch, hidden] in ONNX and [batch, directions * hidden] in MIL. Without `output_sequence`
    MIL has only the last step.
    """
    sequence, *last = outputs
    if direction == "bidirectional":
        last = [graph.reshape(graph.op("Transpose", each, perm=[1, 0, 2]), 0, -1) for each in last]
    else:
        last = [graph.squeeze(each, 0) for each in last]
    if not given.flag("output_sequence"):
        return [graph.unsqueeze(last[0], 0), *last]
    if direction == "bidirectional":
        steps = graph.reshape(graph.op("Transpose", sequence, perm=[0, 2, 1, 3]), 0, 0, -1)
    else:
        steps = graph.squeeze(sequence, 1)
    if direction == "reverse":
        axis = graph.ints(0)
        steps = graph.op("Slice", steps, graph.ints(-1), graph.ints(_INT64_MIN), axis, graph.ints(-1))
    return [steps, *last]


def _lstm(graph: Graph, given: Given) -> Sequence[Tensor]:
    """Raise lstm. MIL's order of gates is input, forget, output, cell. The first three gates have peepholes."""
    direction = _directions(given, "forward", "reverse", "bidirectional")
    x = given["x"]
    cells = [_cell(given, suffix) for suffix in (("", "_back") if direction == "bidirectional" else ("",))]
    hidden = cells[0].weight_hh.shape[-1]
    states = [_initial_state(graph, given, name, len(cells), hidden) for name in ("initial_h", "initial_c")]
    if given.maybe_array("clip") is not None:
        names = (given.text(f"{name}activation") for name in ("recurrent_", "cell_", ""))
        outputs = clipped_lstm(graph, x, cells, states, Activations(*names), given.number("clip"), direction)
        return _mil_outputs(graph, given, outputs, direction)
    # ONNX has a bias for the input and one for the hidden state, which are added. MIL has only their sum: take it for
    # the first, and 0 for the second.
    weights = [
        graph.constant(np.stack(each), x.dtype)
        for each in (
            [cell.weight_ih for cell in cells],
            [cell.weight_hh for cell in cells],
            [np.concatenate([cell.bias, np.zeros_like(cell.bias)]) for cell in cells],
            [cell.peepholes for cell in cells],
        )
    ]
    has_peepholes = any(np.any(cell.peepholes) for cell in cells)
    return _compute(
        graph,
        given,
        "LSTM",
        [x, *weights[:3], None, *states, weights[3] if has_peepholes else None],
        direction,
        hidden_size=hidden,
        **attributes(given, ("recurrent_activation", "cell_activation", "activation"), len(cells)),
    )


def _cell(given: Given, suffix: str) -> Cell:
    weight_ih, weight_hh, bias = _weights(given, _LSTM_GATES, suffix)
    peepholes = _vector(given, f"peephole{suffix}", 3 * weight_hh.shape[-1], weight_hh)
    return Cell(weight_ih, weight_hh, bias, _reorder(peepholes, _LSTM_PEEPHOLES))


def _gru(graph: Graph, given: Given) -> Sequence[Tensor]:
    """Raise gru. MIL's order of gates is reset, output, update.

    W and R are the weights of the input x and of the hidden state h. With `reset_after` the reset gate multiplies R h +
    bias, and `input_bias` is added to W x. Without `reset_after` the gate multiplies h, and both biases are added.
    """
    direction = _directions(given, "forward", "reverse")
    x = given["x"]
    weight_ih, weight_hh, bias = _weights(given, _GRU_GATES)
    hidden = weight_hh.shape[-1]
    input_bias = _reorder(_vector(given, "input_bias", 3 * hidden, weight_hh), _GRU_GATES)
    reset_after = given.maybe_array("reset_after")
    inputs = [
        x,
        graph.constant(weight_ih[None], x.dtype),
        graph.constant(weight_hh[None], x.dtype),
        graph.constant(np.concatenate([input_bias, bias])[None], x.dtype),
        None,
        _initial_state(graph, given, "initial_h", 1, hidden),
    ]
    return _compute(
        graph,
        given,
        "GRU",
        inputs,
        direction,
        hidden_size=hidden,
        linear_before_reset=int(reset_after is not None and bool(reset_after)),
        **attributes(given, ("recurrent_activation", "activation"), 1),
    )


def _rnn(graph: Graph, given: Given) -> Sequence[Tensor]:
    direction = _directions(given, "forward", "reverse")
    x = given["x"]
    weight_ih, weight_hh, bias = _weights(given, (0,))
    hidden = weight_hh.shape[-1]
    inputs = [
        x,
        graph.constant(weight_ih[None], x.dtype),
        graph.constant(weight_hh[None], x.dtype),
        graph.constant(np.concatenate([bias, np.zeros_like(bias)])[None], x.dtype),
        None,
        _initial_state(graph, given, "initial_h", 1, hidden),
    ]
    return _compute(graph, given, "RNN", inputs, direction, hidden_size=hidden, **attributes(given, ("activation",), 1))


TABLE: Mapping[str, Raise] = MappingProxyType({"gru": _gru, "lstm": _lstm, "rnn": _rnn})
