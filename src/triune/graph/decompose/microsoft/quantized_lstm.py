"""DynamicQuantizeLSTM of com.microsoft, by which ONNX Runtime's dynamic quantization replaces an LSTM."""

from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from triune.graph.builder import Builder
from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.decompose.integers import dynamic_levels

_USUAL = ["Sigmoid", "Tanh", "Tanh"]
_W, _R, _B, _LENGTHS, _H, _C, _P = range(1, 8)
_W_SCALE, _W_ZERO, _R_SCALE, _R_ZERO = range(8, 12)


def dynamic_quantize_lstm(c: Context) -> bool:
    """DynamicQuantizeLSTM: an LSTM that quantizes its whole input once, and its hidden state at each step.

    The weights W of the input are (directions, inputs, 4 * hidden). The weights R of the hidden state are (directions,
    hidden, 4 * hidden). The gates are in the order i (input), o (output), f (forget), c (cell). There is a scale and
    a zero point for each direction, or for each column of each direction.
    """
    shape = c.values.shape(c.input(_R))
    if shape is None or shape[0] is None or shape[1] is None:
        return False
    _refuse_others(c, shape[0])
    b, hidden, way = c.build, shape[1], c.attributes.get("direction", "forward")
    levels, scale, zero = dynamic_levels(b, c.input(0))
    x = b.op("Sub", levels, zero)
    weights, recurrent = _minus_zero_point(c, _W, _W_ZERO), _minus_zero_point(c, _R, _R_ZERO)
    results: list[list[str]] = []
    for position in range(shape[0]):
        gates = b.op("MatMul", x, _of_direction(c, weights, position))
        gates = b.op("Mul", gates, b.op("Mul", scale, _of_direction(c, c.input(_W_SCALE), position)))
        if c.input(_B):
            parts = b.ops("Split", 2, _of_direction(c, c.input(_B), position), axis=0, num_outputs=2)
            gates = b.op("Add", gates, b.op("Add", *parts))
        states = [_of_direction(c, c.input(at), position) if c.input(at) else _zeros(c, hidden) for at in (_H, _C)]
        peepholes = _of_direction(c, c.input(_P), position) if c.input(_P) else ""
        step = _Step(
            _of_direction(c, recurrent, position), _of_direction(c, c.input(_R_SCALE), position), peepholes, hidden
        )
        is_reverse = int(way == "reverse" or position == 1)
        results.append(
            b.ops(
                "Scan",
                3,
                *states,
                gates,
                body=step.graph(b.name()),
                num_scan_inputs=1,
                scan_input_directions=[is_reverse],
                scan_output_directions=[is_reverse],
            )
        )
    for index, (of_result, axis) in enumerate(((2, 1), (0, 0), (1, 0))):
        parts = [b.op("Unsqueeze", result[of_result], b.ints(axis)) for result in results]
        c.give(b.op("Concat", *parts, axis=axis) if len(parts) > 1 else parts[0], index)
    return True


def _refuse_others(c: Context, num_directions: int) -> None:
    flags = c.attributes
    if c.input(_LENGTHS):
        raise Refusal("its sequences have lengths of their own; leave sequence_lens out")
    if flags.get("clip", 0) or flags.get("input_forget", 0):
        raise Refusal("it has a clip or coupled gates; quantize another LSTM")
    if flags.get("activations", _USUAL * num_directions) != _USUAL * num_directions:
        raise Refusal("it has other activations than Sigmoid, Tanh and Tanh; quantize another LSTM")


def _of_direction(c: Context, name: str, position: int) -> str:
    """Build the part of a tensor for one direction."""
    return c.build.op("Gather", name, c.build.constant(position, np.int64), axis=0)


def _minus_zero_point(c: Context, weights: int, zero: int) -> str:
    """Build weights minus their zero points, fp32 (directions, rows, 4 * hidden)."""
    b = c.build
    point = b.op("Unsqueeze", b.cast(c.input(zero), TensorProto.FLOAT), b.ints(1))
    if c.values.rank(c.input(zero)) == 1:
        point = b.op("Unsqueeze", point, b.ints(2))
    return b.op("Sub", b.cast(c.input(weights), TensorProto.FLOAT), point)


def _zeros(c: Context, hidden: int) -> str:
    """Build zeros, fp32 (batch, hidden)."""
    b = c.build
    batch = b.op("Gather", b.op("Shape", c.input(0)), b.ints(1))
    return b.op("Expand", b.constant(0, np.float32), b.op("Concat", batch, b.ints(hidden), axis=0))


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of the LSTM in one direction.

    Attributes:
        recurrent: the name of this direction's weights of the hidden state, minus their zero point. They are integers
            as fp32, of shape (hidden, 4 * hidden).
        scale: the name of the scale of `recurrent`.
        peepholes: the name of the weights by which the gates i, o and f read the cell, (3 * hidden); "" for none.
        hidden: the size of the hidden state.
    """

    recurrent: str
    scale: str
    peepholes: str
    hidden: int

    def graph(self, prefix: str) -> GraphProto:
        """The step as the body of a Scan.

        Its inputs are the hidden state h, the cell c, and x W + bias, which are the gates before h R is added. Its
        outputs are the new h, the new c, and h again as scan output.
        """
        b = Builder(prefix)
        h, c, given = b.name(), b.name(), b.name()
        levels, scale, zero = dynamic_levels(b, h)
        product = b.op("MatMul", b.op("Sub", levels, zero), self.recurrent)
        gates = b.op("Add", given, b.op("Mul", product, b.op("Mul", scale, self.scale)))
        i, o, f, new = b.ops("Split", 4, gates, axis=1, num_outputs=4)
        peephole_weights = b.ops("Split", 3, self.peepholes, axis=0, num_outputs=3) if self.peepholes else []
        if peephole_weights:
            i, f = (
                b.op("Add", gate, b.op("Mul", c, weight))
                for gate, weight in ((i, peephole_weights[0]), (f, peephole_weights[2]))
            )
        kept, taken = b.op("Mul", b.op("Sigmoid", f), c), b.op("Mul", b.op("Sigmoid", i), b.op("Tanh", new))
        cell = b.op("Add", kept, taken)
        if peephole_weights:
            o = b.op("Add", o, b.op("Mul", cell, peephole_weights[1]))
        out = b.op("Mul", b.op("Sigmoid", o), b.op("Tanh", cell))

        def value(name: str, width: int = self.hidden) -> ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])

        inputs = [value(h), value(c), value(given, 4 * self.hidden)]
        scan_output = b.op("Identity", out)
        return helper.make_graph(b.nodes, "step", inputs, [value(out), value(cell), value(scan_output)])


TABLE: dict[str, Decomposition] = {"DynamicQuantizeLSTM": dynamic_quantize_lstm}
