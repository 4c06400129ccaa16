"""Random nodes with shapes, constants and attributes that fit are never refused; with one number changed, they are
refused exactly where ONNX Runtime refuses them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from support.apple_interpreter import Apart
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.normalize import normalize

Draw = Callable[..., Any]
SIZE = st.integers(1, 5)


@dataclass
class Node:
    """A node to be: the shapes of its inputs (None for one that is left out), or their elements if they are constants,
    and its attributes.
    """

    op: str
    operands: list[tuple[int, ...] | list[int] | None]
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    integers: tuple[int, ...] = ()
    num_outputs: int = 1


def shape(draw: Draw, least: int = 1, most: int = 4) -> tuple[int, ...]:
    return tuple(draw(st.lists(SIZE, min_size=least, max_size=most)))


def axis_of(draw: Draw, rank: int) -> int:
    return draw(st.integers(-rank, rank - 1))


def softmax(draw: Draw) -> Node:
    x = shape(draw)
    return Node(draw(st.sampled_from(["Softmax", "LogSoftmax", "Hardmax"])), [x], {"axis": axis_of(draw, len(x))})


def transpose(draw: Draw) -> Node:
    x = shape(draw)
    return Node("Transpose", [x], {"perm": list(draw(st.permutations(range(len(x)))))})


def gather(draw: Draw) -> Node:
    x = shape(draw)
    axis = axis_of(draw, len(x))
    indices = draw(st.lists(st.integers(-x[axis], x[axis] - 1), min_size=1, max_size=3))
    return Node("Gather", [x, indices], {"axis": axis})


def top_k(draw: Draw) -> Node:
    x = shape(draw)
    axis = axis_of(draw, len(x))
    return Node("TopK", [x, [draw(st.integers(0, x[axis]))]], {"axis": axis}, num_outputs=2)


def concat(draw: Draw) -> Node:
    x = shape(draw)
    axis = axis_of(draw, len(x))
    other = list(x)
    other[axis] = draw(SIZE)
    return Node("Concat", [x, tuple(other)], {"axis": axis})


def split(draw: Draw) -> Node:
    parts = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    x = list(shape(draw))
    axis = axis_of(draw, len(x))
    x[axis] = sum(parts)
    return Node("Split", [tuple(x), parts], {"axis": axis}, num_outputs=len(parts))


def reshape(draw: Draw) -> Node:
    wanted = list(shape(draw))
    x = list(draw(st.permutations(wanted)))
    place = draw(st.integers(0, len(wanted)))
    if place < len(wanted):
        wanted[place] = -1
    return Node("Reshape", [tuple(x), wanted])


def expand(draw: Draw) -> Node:
    wanted = shape(draw)
    x = [draw(st.sampled_from([1, size])) for size in wanted]
    return Node("Expand", [tuple(x), list(wanted)])


def squeeze(draw: Draw) -> Node:
    x = list(shape(draw))
    axis = axis_of(draw, len(x))
    x[axis] = 1
    return Node("Squeeze", [tuple(x), [axis]])


def unsqueeze(draw: Draw) -> Node:
    x = shape(draw, most=3)
    return Node("Unsqueeze", [x, [axis_of(draw, len(x) + 1)]])


def tile(draw: Draw) -> Node:
    x = shape(draw, most=3)
    return Node("Tile", [x, [draw(st.integers(0, 3)) for _ in x]])


def pad(draw: Draw) -> Node:
    x, mode = shape(draw, most=3), draw(st.sampled_from(["constant", "reflect", "edge"]))
    pads = [draw(st.integers(0, size - 1 if mode == "reflect" else 3)) for _ in range(2) for size in x]
    return Node("Pad", [x, pads], {"mode": mode})


def cumulative_sum(draw: Draw) -> Node:
    x = shape(draw)
    return Node("CumSum", [x, [axis_of(draw, len(x))]])


def reduction(draw: Draw) -> Node:
    x = shape(draw)
    op = draw(st.sampled_from(["ReduceSum", "ReduceMax", "ReduceMean"]))
    return Node(op, [x, [axis_of(draw, len(x))]])


def depth_to_space(draw: Draw) -> Node:
    block = draw(st.integers(1, 3))
    return Node("DepthToSpace", [(1, draw(st.integers(1, 2)) * block**2, 2, 3)], {"blocksize": block})


def space_to_depth(draw: Draw) -> Node:
    block = draw(st.integers(1, 3))
    return Node("SpaceToDepth", [(1, 2, draw(SIZE) * block, 2 * block)], {"blocksize": block})


def conv(draw: Draw) -> Node:
    group, filters, depth = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel = draw(st.integers(1, 2))
    operands = [(1, group * depth, 7, 8), (group * filters, depth, kernel, 2), (group * filters,)]
    return Node("Conv", [*operands], {"group": group, "kernel_shape": [kernel, 2]})


def conv_transpose(draw: Draw) -> Node:
    group, filters, depth = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    operands = [(1, group * depth, 3, 4), (group * depth, filters, 2, 2), (group * filters,)]
    return Node("ConvTranspose", [*operands], {"group": group})


def gemm(draw: Draw) -> Node:
    rows, inner, columns = draw(SIZE), draw(SIZE), draw(SIZE)
    bias = draw(st.sampled_from([(columns,), (rows, 1), (1, columns), (rows, columns)]))
    left = draw(st.integers(0, 1))
    return Node("Gemm", [(inner, rows) if left else (rows, inner), (inner, columns), bias], {"transA": left})


def matmul(draw: Draw) -> Node:
    batch, inner = draw(SIZE), draw(SIZE)
    return Node("MatMul", [(batch, draw(SIZE), inner), (draw(st.sampled_from([1, batch])), inner, draw(SIZE))])


def batch_norm(draw: Draw) -> Node:
    x = shape(draw, least=3)
    return Node("BatchNormalization", [x, *[(x[1],)] * 4])


def instance_norm(draw: Draw) -> Node:
    x = shape(draw, least=3)
    return Node("InstanceNormalization", [x, (x[1],), (x[1],)])


def layer_norm(draw: Draw) -> Node:
    x = shape(draw, least=2)
    axis = axis_of(draw, len(x))
    return Node("LayerNormalization", [x, x[axis:], x[axis:]], {"axis": axis})


def scatter_elements(draw: Draw) -> Node:
    x = shape(draw, least=2, most=2)
    indices = (draw(st.integers(1, x[0])), draw(st.integers(1, x[1])))
    return Node("ScatterElements", [x, indices, indices], {"axis": axis_of(draw, 2)}, integers=(1,))


def gather_nd(draw: Draw) -> Node:
    x = shape(draw, least=2)
    return Node("GatherND", [x, (draw(SIZE), draw(st.integers(1, len(x))))], integers=(1,))


def scatter_nd(draw: Draw) -> Node:
    x, count = shape(draw, least=2), draw(SIZE)
    length = draw(st.integers(1, len(x)))
    return Node("ScatterND", [x, (count, length), (count, *x[length:])], integers=(1,))


def lstm(draw: Draw) -> Node:
    steps, batch, width, hidden = (draw(st.integers(1, 3)) for _ in range(4))
    state = draw(st.sampled_from([None, (1, batch, hidden)]))
    operands = [(steps, batch, width), (1, 4 * hidden, width), (1, 4 * hidden, hidden), (1, 8 * hidden), None, state]
    return Node("LSTM", [*operands], {"hidden_size": hidden})


MAKERS = [
    *(softmax, transpose, gather, top_k, concat, split, reshape, expand, squeeze, unsqueeze, tile, pad),
    *(cumulative_sum, reduction, depth_to_space, space_to_depth, conv, conv_transpose, gemm, matmul, batch_norm),
    *(instance_norm, layer_norm, scatter_elements, gather_nd, scatter_nd, lstm),
]
CHANGED = st.sampled_from([-3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 9])


def changed(node: Node, draw: Draw) -> Node:
    """The node with one number changed: a size, an element of a constant, or an attribute."""
    places: list[tuple[Any, Any]] = [
        (at, place) for at, each in enumerate(node.operands) for place in range(len(each or ()))
    ]
    for name, value in node.attributes.items():
        places += [(name, place) for place in range(len(value))] if isinstance(value, list) else [(name, None)]
    places = [(at, place) for at, place in places if not isinstance(node.attributes.get(at), str)]
    at, place = draw(st.sampled_from(places))
    operands, attributes = list(node.operands), dict(node.attributes)
    if isinstance(at, str):
        if place is None:
            attributes[at] = draw(CHANGED)
        else:
            attributes[at] = [*attributes[at]]
            attributes[at][place] = draw(CHANGED)
    else:
        whole = list(operands[at] or ())
        whole[place] = draw(CHANGED) if isinstance(operands[at], list) else draw(st.integers(1, 9))
        operands[at] = whole if isinstance(operands[at], list) else tuple(whole)
    return Node(node.op, operands, attributes, node.integers, node.num_outputs)


def model_of(node: Node) -> ModelProto:
    names = [f"x{at}" if each is not None else "" for at, each in enumerate(node.operands)]
    outputs = [f"y{at}" for at in range(node.num_outputs)]
    made = helper.make_node(node.op, names, outputs, **node.attributes)
    inputs, constants = [], []
    for at, (name, each) in enumerate(zip(names, node.operands, strict=True)):
        if isinstance(each, list):
            constants.append(numpy_helper.from_array(np.array(each, np.int64), name))
        elif each is not None:
            kind = TensorProto.INT64 if at in node.integers else TensorProto.FLOAT
            inputs.append(helper.make_tensor_value_info(name, kind, each))
    graph = helper.make_graph([made], "g", inputs, [helper.make_empty_tensor_value_info(each) for each in outputs])
    for value in graph.output:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    if node.op == "TopK":
        graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    graph.initializer.extend(constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def runtime_refuses(serialized: bytes) -> str:
    """Why ONNX Runtime refuses a model, for inputs of zeros."""
    model = ModelProto.FromString(serialized)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
        kinds = {TensorProto.FLOAT: np.float32, TensorProto.INT64: np.int64}
        feeds = {
            value.name: np.zeros(
                [dim.dim_value for dim in value.type.tensor_type.shape.dim], kinds[value.type.tensor_type.elem_type]
            )
            for value in model.graph.input
        }
        session.run(None, feeds)
    # Its errors have no common root.
    except Exception as error:
        return str(error)
    return ""


apart = Apart(runtime_refuses)


def refused(model: ModelProto) -> str:
    try:
        normalize(model)
    except (InvalidArgumentError, UnsupportedError) as error:
        return str(error)
    return ""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(MAKERS))
def test_what_fits_is_never_refused(data: st.DataObject, make: Callable[[Draw], Node]) -> None:
    assert refused(model_of(make(data.draw))) == ""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(MAKERS))
def test_what_fits_no_more_is_refused_where_onnx_runtime_refuses_it(
    data: st.DataObject, make: Callable[[Draw], Node]
) -> None:
    model = model_of(changed(make(data.draw), data.draw))
    ours = refused(model)
    try:
        theirs = apart(model.SerializeToString())
    except EOFError as error:
        theirs = str(error)
    assert bool(ours) == bool(theirs), ours or theirs
