"""Lower LSTM, GRU and RNN step by step: unrolled if there are few steps, else as a loop."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TypeAlias

import numpy as np

from triune.graph.conversion.context import Lowering, NodeContext
from triune.graph.conversion.lowering.builder import Builder
from triune.graph.conversion.lowering.recurrent import Layer, activations_of, give_layer, layer_of
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import V

MOST_STEPS_WRITTEN_OUT: Final = 16
"""The largest number of steps that is unrolled; a layer of more steps becomes a loop."""

_NUM_GATES: Final = {"LSTM": 4, "GRU": 3, "RNN": 1}

_Activation: TypeAlias = Callable[[V], V]


def _recurrent(c: NodeContext[V]) -> None:
    """Lower LSTM, GRU or RNN."""
    give_layer(c, *step_by_step(c, layer_of(c)))


def step_by_step(c: NodeContext[V], layer: Layer[V]) -> tuple[V, list[V]]:
    """Compute all hidden states (steps, directions, batch, hidden), and the last states, each (directions, batch,
    hidden).
    """
    b = c.builder
    hidden_states: list[V] = []
    ends: list[list[V]] = []
    for position, (direction, activations) in enumerate(zip(layer.directions, activations_of(c), strict=True)):
        cell = _Cell(c, layer, position, [_activation(b, *one) for one in activations])
        is_reverse = direction == "reverse"
        x = _reversed_steps(b, layer.x, layer.lengths) if is_reverse else layer.x
        states = [_initial_state(b, b.take(state, position), layer.lengths) for state in layer.states]
        whole, last = _run(cell, b, x, states, layer.lengths)
        hidden_states.append(_reversed_steps(b, whole, layer.lengths) if is_reverse else whole)
        ends.append(last)
    return b.stack(hidden_states, 1), [b.stack(states, 0) for states in zip(*ends, strict=True)]


def _initial_state(b: Builder[V], state: V, lengths: V | None) -> V:
    """The initial state, set to 0 in rows of the batch of length 0.

    In these rows ONNX Runtime's last state is 0; ONNX does not define it.
    """
    if lengths is None:
        return state
    return b.where(b.unsqueeze(b.greater(lengths, 0), [1]), state, 0)


def _reversed_steps(b: Builder[V], x: V, lengths: V | None) -> V:
    """Reverse the order of the steps. With `lengths`, reverse only the first `lengths[i]` steps of batch row i."""
    return b.reverse(x, 0) if lengths is None else b.reverse_sequence(x, lengths, 0, 1)


def _activation(b: Builder[V], name: str, alpha: float | None, beta: float | None) -> _Activation[V]:
    def of(default: float, given: float | None) -> float:
        return default if given is None else given

    match name:
        case "Sigmoid" | "Tanh" | "Relu" | "Softsign" | "Softplus":
            return lambda x: b.elementwise(name, x)
        case "HardSigmoid":
            return lambda x: b.elementwise(name, x, alpha=of(0.2, alpha), beta=of(0.5, beta))
        case "LeakyRelu":
            return lambda x: b.elementwise(name, x, alpha=of(0.01, alpha))
        case "Elu":
            return lambda x: b.elementwise(name, x, alpha=of(1.0, alpha))
        case "Affine":
            return lambda x: b.add(b.mul(x, of(1.0, alpha)), of(0.0, beta))
        case "ScaledTanh" if alpha is not None and beta is not None:
            return lambda x: b.mul(b.elementwise("Tanh", b.mul(x, beta)), alpha)
        case "ThresholdedRelu":
            return lambda x: b.where(b.greater(x, of(1.0, alpha)), x, 0)
        case _:
            raise Refusal(f"activation '{name}' with alpha {alpha} and beta {beta}")


class _Cell(Generic[V]):
    """The weights of one direction, and the computation of a step: gates = X W^T + H R^T + B, with ONNX's names."""

    def __init__(self, c: NodeContext[V], layer: Layer[V], position: int, activations: list[_Activation[V]]) -> None:
        b = self._b = c.builder
        self._kind = c.node.op_type
        self._act = activations
        self._clip = c.attributes.get("clip")
        self._is_coupled = bool(c.attributes.get("input_forget", 0))
        self._resets_after = bool(c.attributes.get("linear_before_reset", 0))
        self.hidden = layer.hidden
        self._weights = b.take(c.input(1), position)
        self._recurrence = b.transpose(b.take(c.input(2), position), [1, 0])
        self._bias: list[V] | None = None
        if c.has(3):
            self._bias = b.split(b.take(c.input(3), position), [_NUM_GATES[self._kind] * layer.hidden] * 2, 0)
        self._peepholes: list[V] | None = None
        if c.has(7) and self._kind == "LSTM":
            self._peepholes = self._parts(b.take(c.input(7), position), 3, 0)

    def _parts(self, x: V, number: int, axis: int) -> list[V]:
        return self._b.split(x, [self.hidden] * number, axis)

    def _clipped(self, x: V) -> V:
        return x if self._clip is None else self._b.clip(x, -self._clip, self._clip)

    def project(self, x: V) -> V:
        """X W^T + B, the part of all gates that does not depend on the hidden state, for all steps at once."""
        part = self._b.matmul(x, self._weights, is_transposed=True)
        return part if self._bias is None else self._b.add(part, self._bias[0])

    def step(self, part: V, states: Sequence[V]) -> list[V]:
        """The states after a step. `part` is the result of `project` for the step's input."""
        match self._kind:
            case "LSTM":
                return self._lstm(part, *states)
            case "GRU":
                return self._gru(part, *states)
            case _:
                return [self._act[0](self._clipped(self._b.add(part, self._recur(states[0]))))]

    def _recur(self, hidden: V) -> V:
        product = self._b.matmul(hidden, self._recurrence)
        return product if self._bias is None else self._b.add(product, self._bias[1])

    def _lstm(self, part: V, hidden: V, cell: V) -> list[V]:
        b = self._b
        i, o, f, z = self._parts(b.add(part, self._recur(hidden)), 4, 1)
        gate, inner, outer = self._act
        if self._peepholes is not None:
            i = b.add(i, b.mul(self._peepholes[0], cell))
            f = b.add(f, b.mul(self._peepholes[2], cell))
        i = gate(self._clipped(i))
        f = b.sub(1, i) if self._is_coupled else gate(self._clipped(f))
        new = b.add(b.mul(f, cell), b.mul(i, inner(self._clipped(z))))
        if self._peepholes is not None:
            o = b.add(o, b.mul(self._peepholes[1], new))
        return [b.mul(gate(self._clipped(o)), outer(new)), new]

    def _gru(self, part: V, hidden: V) -> list[V]:
        b = self._b
        xz, xr, xh = self._parts(part, 3, 1)
        gate, inner = self._act
        if self._resets_after:
            hz, hr, hh = self._parts(self._recur(hidden), 3, 1)
            r = gate(self._clipped(b.add(xr, hr)))
            new = b.add(xh, b.mul(r, hh))
        else:
            weights = self._parts(self._recurrence, 3, 1)
            biases = None if self._bias is None else self._parts(self._bias[1], 3, 0)

            def recur(state: V, position: int) -> V:
                product = b.matmul(state, weights[position])
                return product if biases is None else b.add(product, biases[position])

            hz = recur(hidden, 0)
            r = gate(self._clipped(b.add(xr, recur(hidden, 1))))
            new = b.add(xh, recur(b.mul(r, hidden), 2))
        z = gate(self._clipped(b.add(xz, hz)))
        new = inner(self._clipped(new))
        return [b.add(b.mul(b.sub(1, z), new), b.mul(z, hidden))]


def _run(cell: _Cell[V], b: Builder[V], x: V, states: list[V], lengths: V | None) -> tuple[V, list[V]]:
    """Run all steps of one direction; returns all hidden states (steps, batch, hidden), and the last states."""
    parts = cell.project(x)

    def advance(part: V, step: V, before: Sequence[V]) -> tuple[V, list[V]]:
        after = cell.step(part, before)
        if lengths is None:
            return after[0], after
        counts = b.unsqueeze(b.greater(lengths, step), [1])
        shown = b.where(counts, after[0], 0)
        return shown, [b.where(counts, new, old) for new, old in zip(after, before, strict=True)]

    count = b.shape(x)[0]
    if count is not None and count <= MOST_STEPS_WRITTEN_OUT:
        shown: list[V] = []
        for number in range(count):
            one, states = advance(b.take(parts, number), b.constant(np.int32(number)), states)
            shown.append(one)
        return b.stack(shown, 0), states

    def run(step: V, filled: V, *before: V) -> Sequence[V]:
        one, after = advance(b.take(parts, step), step, before)
        return [b.with_row(filled, one, step), *after]

    steps, batch, _ = b.dims(parts)
    filled, *last = b.loop(steps, [b.full([steps, batch, cell.hidden], 0, b.dtype(parts)), *states], run)
    return filled, last


TABLE: Mapping[str, Lowering] = dict.fromkeys(_NUM_GATES, _recurrent)
