"""What a graph may take on the heap, past the arena: strings that it multiplies, lists that Loops lengthen."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from triune.graph.growth import growth_of

STRING, INT64, BOOL, FLOAT = TensorProto.STRING, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT


def model(nodes: list[onnx.NodeProto], kinds: dict[str, int], output: int, **constants: Any) -> onnx.ModelProto:
    """Nodes that give y."""
    inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    weights = [
        helper.make_tensor(name, STRING, [len(value)], value)
        if isinstance(value, list)
        else numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", output, None)], weights)
    sets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=9)


def node(op: str, *inputs: str, domain: str = "", output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [output], domain=domain, **attributes)


def turn(kind: int, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    """A Loop's body that carries v to w and gives z."""
    info = helper.make_tensor_value_info
    return helper.make_graph(
        [node("Identity", "go", output="still"), *nodes],
        "turn",
        [info("i", INT64, []), info("go", BOOL, []), info("v", kind, None)],
        [info("still", BOOL, []), info("w", kind, None), *([info("z", kind, None)] if len(nodes) > 1 else [])],
    )


KEEP, SCAN = node("Identity", "v", output="w"), node("Identity", "v", output="z")
DOUBLE = node("Concat", "v", "v", output="w", axis=0)
LABELS = {"keys_int64s": [0, 1], "domain": "ai.onnx.ml"}

MULTIPLIES = {
    "Tile": model([node("Tile", "x", "s")], {"x": STRING, "s": INT64}, STRING),
    "Expand": model([node("Expand", "x", "s")], {"x": STRING, "s": INT64}, STRING),
    "Gather": model([node("Gather", "x", "s")], {"x": STRING, "s": INT64}, STRING),
    "GatherND": model([node("GatherND", "x", "s")], {"x": STRING, "s": INT64}, STRING),
    "GatherElements": model([node("GatherElements", "x", "s")], {"x": STRING, "s": INT64}, STRING),
    "Where": model([node("Where", "c", "x", "x")], {"x": STRING, "c": BOOL}, STRING),
    "OneHot": model([node("OneHot", "s", "d", "x")], {"x": STRING, "s": INT64, "d": INT64}, STRING),
    "Pad": model([node("Pad", "x", "s")], {"x": STRING, "s": INT64}, STRING),
    "StringConcat": model([node("StringConcat", "x", "x")], {"x": STRING}, STRING),
    "StringSplit": model([helper.make_node("StringSplit", ["x"], ["y", "n"], delimiter=" ")], {"x": STRING}, STRING),
    "ConcatFromSequence": model(
        [node("SequenceConstruct", "x", "x", output="l"), node("ConcatFromSequence", "l", axis=0)],
        {"x": STRING},
        STRING,
    ),
    "Tokenizer": model(
        [node("Tokenizer", "x", domain="com.microsoft", mark=0, mincharnum=1, pad_value="")], {"x": STRING}, STRING
    ),
    "an operator that nobody knows": model([node("Whatever", "x", domain="some.where")], {"x": STRING}, STRING),
    "many Concats": model(
        [
            node("Concat", "x", "x", output="x1", axis=0),
            *(node("Concat", f"x{i}", f"x{i}", output=f"x{i + 1}", axis=0) for i in range(1, 6)),
            node("Identity", "x6"),
        ],
        {"x": STRING},
        STRING,
    ),
    "a Loop that carries strings": model(
        [node("Loop", "n", "", "x", body=turn(STRING, DOUBLE))], {"n": INT64, "x": STRING}, STRING
    ),
    "long labels": model([node("LabelEncoder", "x", values_strings=["a" * 1000, "b"], **LABELS)], {"x": INT64}, STRING),
    "a choice of long labels": model([node("Gather", "names", "x")], {"x": INT64}, STRING, names=[b"a" * 1000, b"b"]),
    "within an If": model(
        [
            node(
                "If",
                "c",
                **{
                    f"{name}_branch": helper.make_graph(
                        [node("Tile", "x", "s", output=name)],
                        name,
                        [],
                        [helper.make_tensor_value_info(name, STRING, None)],
                    )
                    for name in ("then", "else")
                },
            )
        ],
        {"c": BOOL, "x": STRING, "s": INT64},
        STRING,
    ),
}

LISTS = {
    "as many as a request says": model(
        [helper.make_node("Loop", ["n", "", "x"], ["w", "y"], body=turn(FLOAT, KEEP, SCAN))],
        {"n": INT64, "x": FLOAT},
        FLOAT,
    ),
    "as long as it goes on": model(
        [helper.make_node("Loop", ["", "c", "x"], ["w", "y"], body=turn(FLOAT, KEEP, SCAN))],
        {"c": BOOL, "x": FLOAT},
        FLOAT,
    ),
    "the most turns that there are": model(
        [helper.make_node("Loop", ["n", "c", "x"], ["w", "y"], body=turn(FLOAT, KEEP, SCAN))],
        {"c": BOOL, "x": FLOAT},
        FLOAT,
        n=2**63 - 1,
    ),
}

HARMLESS = {
    "Identity": model([node("Identity", "x")], {"x": STRING}, STRING),
    "Reshape": model([node("Reshape", "x", "s")], {"x": STRING, "s": INT64}, STRING),
    "Concat": model([node("Concat", "x", "z", axis=0)], {"x": STRING, "z": STRING}, STRING),
    "Equal": model([node("Equal", "x", "z")], {"x": STRING, "z": STRING}, BOOL),
    "numbers, chosen by strings": model(
        [
            node("Equal", "x", "z", output="c"),
            node("Where", "c", "a", "b", output="n"),
            node("Tile", "n", "s"),
        ],
        {"x": STRING, "z": STRING, "a": FLOAT, "b": FLOAT, "s": INT64},
        FLOAT,
    ),
    "strings to numbers": model(
        [node("LabelEncoder", "x", keys_strings=["a"], values_int64s=[1], domain="ai.onnx.ml")], {"x": STRING}, INT64
    ),
    "strings cast to numbers": model(
        [node("Cast", "x", to=FLOAT, output="n"), node("Tile", "n", "s")], {"x": STRING, "s": INT64}, FLOAT
    ),
    "a Loop that carries numbers": model(
        [node("Loop", "n", "", "x", body=turn(FLOAT, KEEP))], {"n": INT64, "x": FLOAT}, FLOAT
    ),
    "a Loop of few turns": model(
        [helper.make_node("Loop", ["n", "", "x"], ["w", "y"], body=turn(FLOAT, KEEP, SCAN))], {"x": FLOAT}, FLOAT, n=9
    ),
}

GIVES_LABELS = {
    "LabelEncoder": model([node("LabelEncoder", "x", values_strings=["a", "b"], **LABELS)], {"x": INT64}, STRING),
    "Gather of names": model([node("Gather", "names", "x")], {"x": INT64}, STRING, names=[b"cat", b"dog"]),
    "Where of names": model([node("Where", "x", "yes", "no")], {"x": BOOL}, STRING, yes=[b"yes"], no=[b"no"]),
    "Cast": model([node("Cast", "x", to=STRING)], {"x": FLOAT}, STRING),
}


@pytest.mark.parametrize("name", MULTIPLIES)
def test_strings_that_are_multiplied(name: str) -> None:
    assert growth_of(MULTIPLIES[name]).node.endswith(" multiplies strings")


@pytest.mark.parametrize("name", LISTS)
def test_lists_that_grow_with_each_turn(name: str) -> None:
    assert growth_of(LISTS[name]).node == "Loop 'w' gives as many values as it has turns"


@pytest.mark.parametrize("name", HARMLESS)
def test_what_takes_no_more_than_it_is_given(name: str) -> None:
    found = growth_of(HARMLESS[name])
    assert not found.node
    assert not found.gives_labels


@pytest.mark.parametrize("name", GIVES_LABELS)
def test_labels_are_as_many_as_numbers(name: str) -> None:
    found = growth_of(GIVES_LABELS[name])
    assert not found.node
    assert found.gives_labels


def test_a_function_is_looked_into() -> None:
    proto = model([node("Twice", "x", "s", domain="mine")], {"x": STRING, "s": INT64}, STRING)
    proto.functions.add(
        name="Twice",
        domain="mine",
        input=["a", "r"],
        output=["b"],
        node=[helper.make_node("Tile", ["a", "r"], ["b"])],
        opset_import=[helper.make_opsetid("", 20)],
    )
    assert growth_of(proto).node == "Tile 'b' multiplies strings"
