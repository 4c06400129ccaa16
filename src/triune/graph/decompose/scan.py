"""Decompose Scan into a Loop."""

import numpy as np
from onnx import GraphProto, TensorProto, helper

from triune.graph.builder import Builder
from triune.graph.decompose.context import Context, Decomposition


def scan(c: Context) -> bool:
    """Scan: a Loop over the steps that gathers a slice of each scanned input and collects a slice of each scan
    output.
    """
    body: GraphProto = c.attributes["body"]
    num_scanned: int = c.attributes["num_scan_inputs"]
    num_states = len(c.node.input) - num_scanned
    num_outputs = len(c.node.output) - num_states
    input_axes: list[int] = c.attributes.get("scan_input_axes", [0] * num_scanned)
    output_axes: list[int] = c.attributes.get("scan_output_axes", [0] * num_outputs)
    input_ways: list[int] = c.attributes.get("scan_input_directions", [0] * num_scanned)
    output_ways: list[int] = c.attributes.get("scan_output_directions", [0] * num_outputs)
    b = c.build
    scanned = list(c.node.input[num_states:])
    count = b.op("Gather", b.op("Shape", scanned[0]), b.constant(input_axes[0], np.int64))
    inner = Builder(b.name())
    step, going = inner.name(), inner.name()
    for name, axis, way, value in zip(scanned, input_axes, input_ways, body.input[num_states:], strict=True):
        position = step
        if way:
            position = inner.op("Sub", inner.op("Sub", count, inner.constant(1, np.int64)), step)
        inner.put("Gather", [name, position], [value.name], axis=axis)
    inner.nodes.extend(body.node)
    is_going = inner.op("Identity", going)
    loop_body = helper.make_graph(
        inner.nodes,
        f"{body.name}/loop",
        [
            helper.make_tensor_value_info(step, TensorProto.INT64, []),
            helper.make_tensor_value_info(going, TensorProto.BOOL, []),
            *body.input[:num_states],
        ],
        [helper.make_tensor_value_info(is_going, TensorProto.BOOL, []), *body.output],
        list(body.initializer),
    )
    results = b.ops("Loop", len(c.node.output), count, "", *c.node.input[:num_states], body=loop_body)
    for index in range(num_states):
        c.give(results[index], index)
    for index, (axis, way) in enumerate(zip(output_axes, output_ways, strict=True)):
        name = results[num_states + index]
        if way:
            name = b.op("Slice", name, b.ints(-1), b.ints(-(2**31)), b.ints(0), b.ints(-1))
        rank = len(body.output[num_states + index].type.tensor_type.shape.dim) + 1
        axis %= rank
        if axis:
            name = b.op("Transpose", name, perm=[*range(1, axis + 1), 0, *range(axis + 1, rank)])
        c.give(name, num_states + index)
    return True


TABLE: dict[str, Decomposition] = {"Scan": scan}
