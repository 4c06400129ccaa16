import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from triune.graph.text import reader_of_text

STRING, INT64 = TensorProto.STRING, TensorProto.INT64


def model(*nodes: NodeProto, functions: tuple[str, ...] = ()) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", STRING, ["n"]), helper.make_tensor_value_info("i", INT64, ["n"])],
        [helper.make_tensor_value_info("y", STRING, None)],
    )
    opsets = [helper.make_opsetid("", 20)]
    bodies = [
        helper.make_function("", name, ["a"], ["b"], [helper.make_node("StringNormalizer", ["a"], ["b"])], opsets)
        for name in functions
    ]
    return helper.make_model(graph, opset_imports=opsets, functions=bodies)


def node(op: str, inputs: str, outputs: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


MOVED = (
    model(node("Identity", "x", "y")),
    model(
        node("Gather", "x i", "a"), node("Concat", "x a", "y", axis=0), node("Shape", "y", "s"), node("Abs", "s", "t")
    ),
    model(node("Equal", "x x", "e"), node("Cast", "e", "y", to=STRING)),
    model(node("Cast", "i", "t", to=STRING), node("StringNormalizer", "t", "y"), node("Identity", "x", "z")),
)
READ = (
    (model(node("StringNormalizer", "x", "y", name="upper")), "StringNormalizer 'upper'"),
    (model(node("Identity", "x", "a"), node("Gather", "a i", "b"), node("StringSplit", "b", "y n")), "StringSplit"),
    (model(node("Cast", "x", "y", to=INT64)), "Cast"),
    (model(node("Identity", "x", "y", domain="com.custom")), "Identity"),
    (model(node("Identity", "x", "y"), functions=("Identity",)), "Identity"),
    (
        model(
            node(
                "If",
                "i",
                "y",
                then_branch=helper.make_graph([node("StringNormalizer", "x", "a")], "t", [], []),
                else_branch=helper.make_graph([], "e", [], []),
            )
        ),
        "If",
    ),
)


@pytest.mark.parametrize("case", range(len(MOVED)))
def test_models_that_move_strings(case: int) -> None:
    assert reader_of_text(MOVED[case]) is None


@pytest.mark.parametrize(("model", "reader"), READ, ids=[str(reader) for _, reader in READ])
def test_models_that_read_strings(model: ModelProto, reader: str) -> None:
    assert reader_of_text(model) == reader
