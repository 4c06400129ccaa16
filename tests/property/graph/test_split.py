"""The pieces of a graph, computed in order, give what the whole graph gives: any graph, any borders."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from support.examples import examples
from triune.graph.inference import infer_shapes
from triune.graph.load import require_valid
from triune.graph.split import Piece, split
from triune.graph.values import subgraphs_of

ROWS, COLUMNS = 2, 3
FREE = ("rows", COLUMNS)
"""The shape of all values of floats, the first dimension of which is free."""


class Drawn:
    """A random graph. Every value of `floats` is of shape [rows, 3]."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[Any] = []
        self.floats = ["x", "y"]
        self.weights = [
            numpy_helper.from_array(np.linspace(-1, 1, COLUMNS).astype(np.float32) * (index + 1), f"weight{index}")
            for index in range(2)
        ]
        self.weights += [
            numpy_helper.from_array(np.array([3, -5, 7], np.int8), "packed"),
            numpy_helper.from_array(np.float32(0.25), "scale"),
            numpy_helper.from_array(np.array(0, np.int64), "zero"),
            numpy_helper.from_array(np.array(2, np.int64), "twice"),
            numpy_helper.from_array(np.array(True), "yes"),
            numpy_helper.from_array(np.array([0], np.int64), "first"),
        ]

    def name(self) -> str:
        return f"v{len(self.nodes)}"

    def value(self) -> str:
        return self.draw(st.sampled_from(self.floats))

    def add(self, op: str, inputs: Sequence[str], num_outputs: int = 1, **attributes: Any) -> list[str]:
        base = self.name()
        outputs = [base if not index else f"{base}.{index}" for index in range(num_outputs)]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=base, **attributes))
        return outputs

    def step(self) -> None:
        kind = self.draw(st.sampled_from(("binary", "unary", "weight", "packed", "shape", "if", "loop", "split")))
        match kind:
            case "binary":
                self.floats += self.add(self.draw(st.sampled_from(("Add", "Sub", "Max"))), [self.value(), self.value()])
            case "unary":
                self.floats += self.add(self.draw(st.sampled_from(("Neg", "Tanh", "Abs"))), [self.value()])
            case "weight":
                self.floats += self.add("Mul", [self.value(), self.draw(st.sampled_from(("weight0", "weight1")))])
            case "packed":
                (weight,) = self.add("DequantizeLinear", ["packed", "scale"])
                self.floats += self.add("Add", [self.value(), weight])
                self.floats += self.add("Mul", [self.value(), weight])
            case "shape":
                (shape,) = self.add("Shape", [self.value()])
                (filled,) = self.add("ConstantOfShape", [shape])
                self.floats += self.add("Add", [filled, self.value()])
            case "split":
                first, second = self.add("TopK", [self.value(), "three"], num_outputs=2, axis=1)
                (as_float,) = self.add("Cast", [second], to=TensorProto.FLOAT)
                self.floats += [first, as_float]
            case "if":
                outer, other = self.value(), self.value()
                base = self.name()
                (size,) = self.add("ReduceSum", [self.value()], keepdims=0)
                (condition,) = self.add("Greater", [size, "scale"])
                branches = {
                    f"{word}_branch": helper.make_graph(
                        [
                            helper.make_node("Mul", [outer, "weight0"], [f"{base}.{word}.a"], name=f"{base}.{word}.a"),
                            helper.make_node(
                                op, [f"{base}.{word}.a", other], [f"{base}.{word}"], name=f"{base}.{word}"
                            ),
                        ],
                        f"{base}.{word}",
                        [],
                        [helper.make_tensor_value_info(f"{base}.{word}", TensorProto.FLOAT, FREE)],
                    )
                    for word, op in (("then", "Add"), ("else", "Sub"))
                }
                self.floats += self.add("If", [condition], **branches)
            case _:
                outer, start = self.value(), self.value()
                base = self.name()
                body = helper.make_graph(
                    [
                        helper.make_node("Identity", [f"{base}.go"], [f"{base}.again"], name=f"{base}.again"),
                        helper.make_node("Add", [f"{base}.state", outer], [f"{base}.next"], name=f"{base}.next"),
                    ],
                    f"{base}.body",
                    [
                        helper.make_tensor_value_info(f"{base}.turn", TensorProto.INT64, ()),
                        helper.make_tensor_value_info(f"{base}.go", TensorProto.BOOL, ()),
                        helper.make_tensor_value_info(f"{base}.state", TensorProto.FLOAT, FREE),
                    ],
                    [
                        helper.make_tensor_value_info(f"{base}.again", TensorProto.BOOL, ()),
                        helper.make_tensor_value_info(f"{base}.next", TensorProto.FLOAT, FREE),
                    ],
                )
                self.floats += self.add("Loop", ["twice", "yes", start], body=body)

    def model(self) -> ModelProto:
        for _ in range(self.draw(st.integers(2, 9))):
            self.step()
        if not any(each.op_type in ("Add", "Sub", "Mul", "Neg", "Tanh", "Abs", "Max") for each in self.nodes):
            self.floats += self.add("Neg", [self.value()])
        made = [name for name in self.floats if name.startswith("v")]
        outputs = self.draw(st.lists(st.sampled_from(made), min_size=1, max_size=4, unique=True))
        self.weights.append(numpy_helper.from_array(np.array([COLUMNS], np.int64), "three"))
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, FREE) for name in ("x", "y")],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, FREE) for name in outputs],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        return infer_shapes(model, data_prop=True)


@st.composite
def models(draw: st.DrawFn) -> ModelProto:
    return Drawn(draw).model()


def run_pieces(pieces: Sequence[Piece], given: dict[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
    known = dict(given)
    for piece in pieces:
        found = ReferenceEvaluator(piece.model).run(None, {name: known[name] for name in piece.inputs})
        known.update(zip(piece.outputs, found, strict=True))
    return [known[name] for name in outputs]


@given(models(), st.data())
@examples(60)
def test_pieces_give_what_the_whole_gives(model: ModelProto, data: st.DataObject) -> None:
    count = len(model.graph.node)
    units = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    borders = [at for at in range(1, count) if units[at] != units[at - 1]]
    pieces = split(model, borders)
    given_inputs = {
        "x": np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS) / 4 - 0.5,
        "y": np.full((ROWS, COLUMNS), 0.375, np.float32),
    }
    outputs = [value.name for value in model.graph.output]
    expected = ReferenceEvaluator(model).run(None, given_inputs)
    for found, wanted in zip(run_pieces(pieces, given_inputs, outputs), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@given(models(), st.data())
@examples(40)
def test_each_piece_is_a_valid_model_and_each_node_is_in_one(model: ModelProto, data: st.DataObject) -> None:
    count = len(model.graph.node)
    borders = sorted(data.draw(st.sets(st.integers(1, count - 1))))
    pieces = split(model, borders)
    seen: set[int] = set()
    for piece in pieces:
        require_valid(piece.model)
        assert not seen.intersection(piece.nodes)
        seen.update(piece.nodes)
        assert list(piece.nodes) == sorted(piece.nodes)
        named = {value.name: value for value in (*piece.model.graph.input, *piece.model.graph.output)}
        for name in (*piece.inputs, *piece.outputs):
            assert named[name].type.tensor_type.elem_type
    # What is computed twice is constant: it reads no input, not even within a subgraph.
    counted = [node.name for piece in pieces for node in piece.model.graph.node]
    for node in model.graph.node:
        if counted.count(node.name) > 1:
            assert node.op_type == "DequantizeLinear"
            assert not list(subgraphs_of(node))
