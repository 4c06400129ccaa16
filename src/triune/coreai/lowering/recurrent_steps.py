"""Recurrent layers step by step: written out where there are few steps, else as a loop."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context
from triune.coreai.lowering.dims import as_scalar, cut, dim_of, dims_of, expand, row, spread
from triune.coreai.lowering.gathers import reverse_sequence
from triune.coreai.lowering.loops import loop, with_row
from triune.coreai.lowering.unary import softplus, softsign
from triune.coreai.lowering.values import axes, axis, concat, like, shape_of, transpose
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.recurrent import MOST_STEPS_WRITTEN_OUT, NUM_GATES, Layer, activations_of

Activation: TypeAlias = Callable[[Value], Value]


def step_by_step(c: Context, layer: Layer[Value]) -> tuple[Value, list[Value]]:
    """All hidden states (steps, directions, batch, hidden), and the last states, each (directions, batch, hidden)."""
    wholes: list[Value] = []
    ends: list[list[Value]] = []
    for place, (direction, activations) in enumerate(zip(layer.directions, activations_of(c), strict=True)):
        cell = _Cell(c, layer, place, [_activation(*one) for one in activations])
        x = _turned(layer.x, layer.lengths) if direction == "reverse" else layer.x
        states = [_begun(row(state, place), layer.lengths) for state in layer.states]
        whole, last = _run(cell, x, states, layer.lengths)
        wholes.append(_turned(whole, layer.lengths) if direction == "reverse" else whole)
        ends.append(last)
    return _stacked(wholes, 1), [_stacked(states, 0) for states in zip(*ends, strict=True)]


def _begun(state: Value, lengths: Value | None) -> Value:
    """The initial state: 0 in rows of no steps, in which ONNX Runtime ends with 0. ONNX does not say."""
    if lengths is None:
        return state
    counts = expand(ops.broadcasting_greater(lengths, axis(0)), [1])
    return ops.broadcasting_where(counts, state, like(state, 0))


def _stacked(values: Sequence[Value], place: int) -> Value:
    return concat([expand(value, [place]) for value in values], place)


def _turned(x: Value, lengths: Value | None) -> Value:
    """The steps backwards; of each batch row only those that count."""
    return ops.reverse(x, axes([0])) if lengths is None else reverse_sequence(x, lengths, 0, 1)


_PLAIN: dict[str, Activation] = {
    "Sigmoid": ops.sigmoid,
    "Tanh": ops.tanh,
    "Relu": ops.relu,
    "Softsign": softsign,
    "Softplus": softplus,
}


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    match name:
        case "HardSigmoid":
            line = _line(0.2 if alpha is None else alpha, 0.5 if beta is None else beta)
            return lambda x: ops.broadcasting_minimum(ops.relu(line(x)), like(x, 1))
        case "Affine":
            return _line(1.0 if alpha is None else alpha, 0.0 if beta is None else beta)
        case "ScaledTanh" if alpha is not None and beta is not None:
            return lambda x: _times(ops.tanh(_times(x, beta)), alpha)
        case "LeakyRelu":
            return lambda x: _where_below(x, _times(x, 0.01 if alpha is None else alpha), 0)
        case "ThresholdedRelu":
            limit = 1.0 if alpha is None else alpha
            return lambda x: ops.broadcasting_where(ops.broadcasting_greater(x, like(x, limit)), x, like(x, 0))
        case "Elu":
            return lambda x: _where_below(x, _times(_grown(x), 1.0 if alpha is None else alpha), 0)
        case _ if name in _PLAIN:
            return _PLAIN[name]
        case _:
            raise Refusal(f"activation '{name}' with alpha {alpha} and beta {beta}")


def _line(slope: float, offset: float) -> Activation:
    return lambda x: ops.broadcasting_add(_times(x, slope), like(x, offset))


def _times(x: Value, factor: float) -> Value:
    return ops.broadcasting_mul(x, like(x, factor))


def _grown(x: Value) -> Value:
    """exp(x) - 1 of what is below 0."""
    return ops.broadcasting_sub(ops.exp(ops.broadcasting_minimum(x, like(x, 0))), like(x, 1))


def _where_below(x: Value, below: Value, limit: float) -> Value:
    return ops.broadcasting_where(ops.broadcasting_greater(like(x, limit), x), below, x)


class _Cell:
    """One direction's weights, and what a step computes with them. W, R and B are named as in ONNX's standard."""

    def __init__(self, c: Context, layer: Layer[Value], place: int, activations: list[Activation]) -> None:
        self._kind = c.node.op_type
        gates = NUM_GATES[self._kind]
        self._act = activations
        self._clip = c.attributes.get("clip")
        self._is_coupled = bool(c.attributes.get("input_forget", 0))
        self._resets_after = bool(c.attributes.get("linear_before_reset", 0))
        self.hidden = layer.hidden
        self._weights = transpose(row(c.input(1), place), [1, 0])
        self._recurrence = transpose(row(c.input(2), place), [1, 0])
        self._bias: list[Value] | None = None
        if c.has(3):
            size, bias = gates * layer.hidden, row(c.input(3), place)
            self._bias = [cut(bias, 0, 0, size), cut(bias, 0, size, 2 * size)]
        self._peepholes: list[Value] | None = None
        if c.has(7) and self._kind == "LSTM":
            self._peepholes = self._parts(row(c.input(7), place), 3, 0)

    def _parts(self, x: Value, number: int, place: int) -> list[Value]:
        return [cut(x, place, each * self.hidden, (each + 1) * self.hidden) for each in range(number)]

    def _clipped(self, x: Value) -> Value:
        if self._clip is None:
            return x
        return ops.broadcasting_minimum(ops.broadcasting_maximum(x, like(x, -self._clip)), like(x, self._clip))

    def project(self, x: Value) -> Value:
        """The input's part of all gates, for all steps at once."""
        part = ops.broadcasting_batch_matmul(x, self._weights)
        return part if self._bias is None else ops.broadcasting_add(part, self._bias[0])

    def step(self, part: Value, states: Sequence[Value]) -> list[Value]:
        """The states after a step."""
        match self._kind:
            case "LSTM":
                return self._lstm(part, *states)
            case "GRU":
                return self._gru(part, *states)
            case _:
                return [self._act[0](self._clipped(ops.add(part, self._recur(states[0]))))]

    def _recur(self, hidden: Value) -> Value:
        product = ops.batch_matmul(hidden, self._recurrence)
        return product if self._bias is None else ops.broadcasting_add(product, self._bias[1])

    def _lstm(self, part: Value, hidden: Value, cell: Value) -> list[Value]:
        i, o, f, z = self._parts(ops.add(part, self._recur(hidden)), 4, 1)
        gate, inner, outer = self._act
        if self._peepholes is not None:
            i = ops.add(i, ops.broadcasting_mul(cell, self._peepholes[0]))
            f = ops.add(f, ops.broadcasting_mul(cell, self._peepholes[2]))
        i = gate(self._clipped(i))
        f = ops.broadcasting_sub(like(i, 1), i) if self._is_coupled else gate(self._clipped(f))
        new = ops.add(ops.mul(f, cell), ops.mul(i, inner(self._clipped(z))))
        if self._peepholes is not None:
            o = ops.add(o, ops.broadcasting_mul(new, self._peepholes[1]))
        return [ops.mul(gate(self._clipped(o)), outer(new)), new]

    def _gru(self, part: Value, hidden: Value) -> list[Value]:
        xz, xr, xh = self._parts(part, 3, 1)
        gate, inner = self._act
        if self._resets_after:
            hz, hr, hh = self._parts(self._recur(hidden), 3, 1)
            r = gate(self._clipped(ops.add(xr, hr)))
            new = ops.add(xh, ops.mul(r, hh))
        else:
            weights = self._parts(self._recurrence, 3, 1)
            biases = None if self._bias is None else self._parts(self._bias[1], 3, 0)

            def recur(state: Value, place: int) -> Value:
                product = ops.batch_matmul(state, weights[place])
                return product if biases is None else ops.broadcasting_add(product, biases[place])

            hz = recur(hidden, 0)
            r = gate(self._clipped(ops.add(xr, recur(hidden, 1))))
            new = ops.add(xh, recur(ops.mul(r, hidden), 2))
        z = gate(self._clipped(ops.add(xz, hz)))
        new = inner(self._clipped(new))
        return [ops.add(ops.mul(ops.broadcasting_sub(like(z, 1), z), new), ops.mul(z, hidden))]


def _run(cell: _Cell, x: Value, states: list[Value], lengths: Value | None) -> tuple[Value, list[Value]]:
    """All hidden states (steps, batch, hidden), and the last states."""
    parts = cell.project(x)

    def advance(part: Value, step: Value, before: Sequence[Value]) -> tuple[Value, list[Value]]:
        after = cell.step(part, before)
        if lengths is None:
            return after[0], after
        counts = expand(ops.broadcasting_greater(lengths, step), [1])
        shown = ops.broadcasting_where(counts, after[0], like(after[0], 0))
        return shown, [ops.broadcasting_where(counts, new, old) for new, old in zip(after, before, strict=True)]

    count = shape_of(x)[0]
    if count is not None and count <= MOST_STEPS_WRITTEN_OUT:
        shown: list[Value] = []
        for number in range(count):
            one, states = advance(row(parts, number), axis(number), states)
            shown.append(one)
        return _stacked(shown, 0), states

    limit = as_scalar(dim_of(x, 0))
    steps, batch, _ = dims_of(parts)
    buffer = spread(like(parts, 0), [steps, batch, cell.hidden])

    def go_on(step: Value, *_rest: Value) -> Value:
        return ops.greater(limit, step)

    def run(step: Value, filled: Value, *before: Value) -> Sequence[Value]:
        one, after = advance(row(parts, step), step, before)
        return [with_row(filled, one, step), *after]

    results = loop([buffer, *states], go_on, run)
    return results[1], list(results[2:])
