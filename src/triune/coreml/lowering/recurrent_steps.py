"""Recurrent layers step by step: written out where there are few steps, else as a loop."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from triune.coreml.lowering.broadcast import as_vector, select, sizes_of
from triune.coreml.lowering.context import Context, Refusal, like
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.graph.conversion.recurrent import MOST_STEPS_WRITTEN_OUT, NUM_GATES, Layer, activations_of

Activation: TypeAlias = Callable[[Var], Var]


def step_by_step(c: Context, layer: Layer[Var]) -> tuple[Var, list[Var]]:
    """All hidden states (steps, directions, batch, hidden), and the last states, each (directions, batch, hidden)."""
    wholes: list[Var] = []
    ends: list[list[Var]] = []
    for place, (direction, activations) in enumerate(zip(layer.directions, activations_of(c), strict=True)):
        cell = _Cell(c, layer, place, [_activation(*one) for one in activations])
        x = _turned(layer.x, layer.lengths) if direction == "reverse" else layer.x
        states = [_begun(_row(state, place), layer.lengths) for state in layer.states]
        whole, last = _run(cell, x, states, layer.lengths)
        wholes.append(_turned(whole, layer.lengths) if direction == "reverse" else whole)
        ends.append(last)
    joined = mb.stack(values=wholes, axis=1)
    return joined, [mb.stack(values=list(states), axis=0) for states in zip(*ends, strict=True)]


def _begun(state: Var, lengths: Var | None) -> Var:
    """The initial state: 0 in rows of no steps, in which ONNX Runtime ends with 0. ONNX does not say."""
    if lengths is None:
        return state
    counts = mb.expand_dims(x=mb.greater(x=lengths, y=np.int32(0)), axes=[1])
    return select(counts, state, mb.const(val=like(state, 0)))


def _row(value: Var, place: int) -> Var:
    return mb.gather(x=value, indices=np.int32(place), axis=0)


def _turned(x: Var, lengths: Var | None) -> Var:
    """The steps backwards; of each batch row only those that count."""
    if lengths is None:
        return mb.reverse(x=x, axes=[0])
    return mb.reverse_sequence(x=x, lengths=lengths, seq_axis=0, batch_axis=1)


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    plain = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "Softsign": "softsign", "Softplus": "softplus"}
    if name in plain:
        return lambda x: getattr(mb, plain[name])(x=x)
    match name:
        case "HardSigmoid":
            a, b = (0.2 if alpha is None else alpha), (0.5 if beta is None else beta)
            return lambda x: mb.sigmoid_hard(x=x, alpha=like(x, a), beta=like(x, b))
        case "LeakyRelu":
            return lambda x: mb.leaky_relu(x=x, alpha=like(x, 0.01 if alpha is None else alpha))
        case "Elu":
            return lambda x: mb.elu(x=x, alpha=like(x, 1.0 if alpha is None else alpha))
        case _:
            raise Refusal(f"activation '{name}'")


class _Cell:
    """One direction's weights, and what a step computes with them. W, R and B are named as in ONNX's standard."""

    def __init__(self, c: Context, layer: Layer[Var], place: int, activations: list[Activation]) -> None:
        self._kind = c.node.op_type
        self._gates = NUM_GATES[self._kind]
        self._act = activations
        self._clip = c.attributes.get("clip")
        self._is_coupled = bool(c.attributes.get("input_forget", 0))
        self._resets_after = bool(c.attributes.get("linear_before_reset", 0))
        self.hidden = layer.hidden
        self._weights = _row(c.input(1), place)
        recurrence = _row(c.input(2), place)
        self._recurrence = mb.transpose(x=recurrence, perm=[1, 0])
        self._bias: list[Var] | None = None
        if c.has(3):
            size = self._gates * layer.hidden
            self._bias = list(mb.split(x=_row(c.input(3), place), split_sizes=[size, size], axis=0))
        self._peepholes: list[Var] | None = None
        if c.has(7) and self._kind == "LSTM":
            self._peepholes = self._parts(_row(c.input(7), place), 3, 0)

    def _parts(self, x: Var, number: int, axis: int) -> list[Var]:
        return list(mb.split(x=x, split_sizes=[self.hidden] * number, axis=axis)) if number > 1 else [x]

    def _clipped(self, x: Var) -> Var:
        if self._clip is None:
            return x
        return mb.clip(x=x, alpha=like(x, -self._clip), beta=like(x, self._clip))

    def project(self, x: Var) -> Var:
        """The input's part of all gates, for all steps at once."""
        part = mb.matmul(x=x, y=self._weights, transpose_y=True)
        return part if self._bias is None else mb.add(x=part, y=self._bias[0])

    def step(self, part: Var, states: Sequence[Var]) -> list[Var]:
        """The states after a step."""
        match self._kind:
            case "LSTM":
                return self._lstm(part, *states)
            case "GRU":
                return self._gru(part, *states)
            case _:
                total = mb.add(x=part, y=self._recur(states[0]))
                return [self._act[0](self._clipped(total))]

    def _recur(self, hidden: Var) -> Var:
        product = mb.matmul(x=hidden, y=self._recurrence)
        return product if self._bias is None else mb.add(x=product, y=self._bias[1])

    def _lstm(self, part: Var, hidden: Var, cell: Var) -> list[Var]:
        i, o, f, z = self._parts(mb.add(x=part, y=self._recur(hidden)), 4, 1)
        gate, inner, outer = self._act
        if self._peepholes is not None:
            i = mb.add(x=i, y=mb.mul(x=self._peepholes[0], y=cell))
            f = mb.add(x=f, y=mb.mul(x=self._peepholes[2], y=cell))
        i = gate(self._clipped(i))
        f = mb.sub(x=like(i, 1), y=i) if self._is_coupled else gate(self._clipped(f))
        new = mb.add(x=mb.mul(x=f, y=cell), y=mb.mul(x=i, y=inner(self._clipped(z))))
        if self._peepholes is not None:
            o = mb.add(x=o, y=mb.mul(x=self._peepholes[1], y=new))
        return [mb.mul(x=gate(self._clipped(o)), y=outer(new)), new]

    def _gru(self, part: Var, hidden: Var) -> list[Var]:
        xz, xr, xh = self._parts(part, 3, 1)
        gate, inner = self._act
        if self._resets_after:
            hz, hr, hh = self._parts(self._recur(hidden), 3, 1)
            r = gate(self._clipped(mb.add(x=xr, y=hr)))
            new = mb.add(x=xh, y=mb.mul(x=r, y=hh))
        else:
            recurrences = self._parts(self._recurrence, 3, 1)
            products = [mb.matmul(x=hidden, y=each) for each in recurrences[:2]]
            biases = self._parts(self._bias[1], 3, 0) if self._bias is not None else None
            hz, hr = (
                product if biases is None else mb.add(x=product, y=bias)
                for product, bias in zip(products, biases or [None, None], strict=False)
            )
            r = gate(self._clipped(mb.add(x=xr, y=hr)))
            reset = mb.matmul(x=mb.mul(x=r, y=hidden), y=recurrences[2])
            new = mb.add(x=xh, y=reset if biases is None else mb.add(x=reset, y=biases[2]))
        z = gate(self._clipped(mb.add(x=xz, y=hz)))
        new = inner(self._clipped(new))
        return [mb.add(x=mb.mul(x=mb.sub(x=like(z, 1), y=z), y=new), y=mb.mul(x=z, y=hidden))]


def _run(cell: _Cell, x: Var, states: list[Var], lengths: Var | None) -> tuple[Var, list[Var]]:
    """All hidden states (steps, batch, hidden), and the last states."""
    parts = cell.project(x)

    def advance(part: Var, step: Var, before: Sequence[Var]) -> tuple[Var, list[Var]]:
        after = cell.step(part, before)
        if lengths is None:
            return after[0], after
        counts = mb.expand_dims(x=mb.less(x=step, y=lengths), axes=[1])
        shown = select(counts, after[0], mb.const(val=like(after[0], 0)))
        return shown, [select(counts, new, old) for new, old in zip(after, before, strict=True)]

    if is_fixed(x.shape[0]) and int(x.shape[0]) <= MOST_STEPS_WRITTEN_OUT:
        shown: list[Var] = []
        for number in range(int(x.shape[0])):
            step = mb.const(val=np.int32(number))
            one, states = advance(_row(parts, number), step, states)
            shown.append(one)
        return mb.stack(values=shown, axis=0), states
    return _loop(advance, parts, states, cell.hidden)


def _loop(
    advance: Callable[[Var, Var, Sequence[Var]], tuple[Var, list[Var]]], parts: Var, states: list[Var], hidden: int
) -> tuple[Var, list[Var]]:
    steps, batch, _ = sizes_of(parts)
    limit = np.int32(steps) if isinstance(steps, int) else steps
    buffer = mb.fill(shape=as_vector([steps, batch, hidden]), value=like(parts, 0))

    def go_on(step: Var, *_rest: Var) -> Var:
        return mb.less(x=step, y=limit)

    def run(step: Var, filled: Var, *before: Var) -> Sequence[Var]:
        shown, after = advance(mb.gather(x=parts, indices=step, axis=0), step, before)
        place = mb.expand_dims(x=step, axes=[0])
        updates = mb.expand_dims(x=shown, axes=[0])
        filled = mb.scatter(data=filled, indices=place, updates=updates, axis=0, mode="update")
        return [mb.add(x=step, y=np.int32(1)), filled, *after]

    start = mb.const(val=np.int32(0))
    results = mb.while_loop(_cond=go_on, _body=run, loop_vars=(start, buffer, *states))
    return results[1], list(results[2:])
