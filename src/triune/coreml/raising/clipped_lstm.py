"""An LSTM with a clipped cell state, as an ONNX Scan. ONNX's LSTM clips the operands of activations instead."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, helper

from triune.coreml.mil import Array, DType
from triune.coreml.raising.recurrent_activation import activate
from triune.graph.raising.graph import Graph, Tensor, elem_type


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One direction's weights, with the gates in the order input, output, forget, cell.

    Attributes:
        weight_ih: [4 * hidden, features].
        weight_hh: [4 * hidden, hidden].
        bias: [4 * hidden].
        peepholes: [3 * hidden], for the gates input, output and forget.
    """

    weight_ih: Array
    weight_hh: Array
    bias: Array
    peepholes: Array


@dataclass(frozen=True, slots=True)
class Activations:
    """MIL's names of the activations: for the three gates, for the cell gate, and for the cell state before it is
    output.
    """

    gates: str
    cell: str
    output: str


def clipped_lstm(
    graph: Graph,
    x: Tensor,
    cells: Sequence[Cell],
    states: Sequence[Tensor],
    activations: Activations,
    clip: float,
    direction: str,
) -> list[Tensor]:
    """Write an LSTM that clips its cell state to [-clip, clip]. It computes in fp32.

    Args:
        graph: gets the nodes.
        x: [length, batch, features].
        cells: the weights of each direction.
        states: the initial hidden state h and cell state c, each [directions, batch, hidden].
        activations: the activations.
        clip: the limit of the cell state.
        direction: "forward", "reverse" or "bidirectional".

    Returns:
        the outputs of ONNX's LSTM: Y [length, directions, batch, hidden], and Y_h and Y_c [directions, batch, hidden].
    """
    wide = graph.cast(x, DType.FP32)
    directions: list[list[Tensor]] = []
    for index, cell in enumerate(cells):
        start = [
            graph.cast(graph.op("Gather", state, graph.constant(index, DType.INT64), axis=0), DType.FP32)
            for state in states
        ]
        is_backward = int(direction == "reverse" or index == 1)
        # The part of the gates that depends on the input x alone, x @ weight_ih^T + bias, for all steps at once:
        # [length, batch, 4 * hidden].
        product = graph.op("MatMul", wide, graph.constant(cell.weight_ih.T, DType.FP32))
        gates = graph.op("Add", product, graph.constant(cell.bias, DType.FP32))
        body = graph.subgraph()
        last_h, last_c, sequence = graph.ops(
            "Scan",
            [*start, gates],
            [DType.FP32] * 3,
            body=_step(body, cell, activations, clip),
            num_scan_inputs=1,
            scan_input_directions=[is_backward],
            scan_output_directions=[is_backward],
        )
        directions.append([graph.unsqueeze(sequence, 1), graph.unsqueeze(last_h, 0), graph.unsqueeze(last_c, 0)])
    both = zip(*directions, strict=True)
    return [graph.cast(graph.concat(*each, axis=axis), x.dtype) for each, axis in zip(both, (1, 0, 0), strict=True)]


def _step(graph: Graph, cell: Cell, activations: Activations, clip: float) -> GraphProto:
    """The body of the Scan.

    Its inputs are the hidden state h, the cell state c, and x @ weight_ih^T + bias of the step. Its outputs are the new
    h and c, and h again as scan output.
    """
    root = graph.root
    h, c, gates = (Tensor(root.fresh(f"{graph.prefix}/{name}"), DType.FP32) for name in ("h", "c", "gates"))
    weight = graph.constant(cell.weight_hh.T, DType.FP32)
    summed = graph.op("Add", gates, graph.op("MatMul", h, weight))
    given, out, forget, new = graph.ops("Split", [summed], [DType.FP32] * 4, axis=-1, num_outputs=4)
    if np.any(cell.peepholes):
        look = [graph.constant(each, DType.FP32) for each in np.split(cell.peepholes, 3)]
    else:
        look = None
    if look is not None:
        given = graph.op("Add", given, graph.op("Mul", c, look[0]))
        forget = graph.op("Add", forget, graph.op("Mul", c, look[2]))
    given, forget = (activate(graph, activations.gates, each) for each in (given, forget))
    kept = graph.op("Mul", forget, c)
    added = graph.op("Mul", given, activate(graph, activations.cell, new))
    bounds = [graph.constant(each, DType.FP32) for each in (-clip, clip)]
    next_c = graph.op("Clip", graph.op("Add", kept, added), *bounds)
    if look is not None:
        out = graph.op("Add", out, graph.op("Mul", next_c, look[1]))
    out = activate(graph, activations.gates, out)
    next_h = graph.op("Mul", out, activate(graph, activations.output, next_c))
    again = graph.op("Identity", next_h)
    inputs, outputs = (
        [helper.make_tensor_value_info(each.name, elem_type(DType.FP32), None) for each in tensors]
        for tensors in ((h, c, gates), (next_h, next_c, again))
    )
    return graph.proto(f"{graph.prefix}/step", inputs, outputs)
