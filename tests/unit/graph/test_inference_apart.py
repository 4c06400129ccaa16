"""Shapes of large graphs are inferred in a process of their own, with the same result."""

import itertools
import math
from collections.abc import Callable

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from triune.graph import inference_apart
from triune.graph.inference import infer_shapes
from triune.graph.inference_apart import MOST_NODES, num_inferred, try_infer_shapes
from triune.hosting import Limits

IMPORTS = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]


def model_of(nodes: list[onnx.NodeProto], functions: list[onnx.FunctionProto]) -> ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [x], [y])
    return helper.make_model(graph, opset_imports=IMPORTS, functions=functions, ir_version=10)


def chain(num_nodes: int, last: str = "Relu") -> ModelProto:
    names = ["x", *(f"v{number}" for number in range(num_nodes - 1)), "y"]
    nodes = [helper.make_node("Relu", [before], [after]) for before, after in itertools.pairwise(names)]
    nodes[-1] = helper.make_node(last, [names[-2]], ["y"])
    return model_of(nodes, [])


def doubling(depth: int) -> ModelProto:
    """Functions of which each calls the one before twice."""
    functions: list[onnx.FunctionProto] = []
    for number in range(depth):
        name, domain = (f"F{number - 1}", "own") if number else ("Relu", "")
        calls = [helper.make_node(name, [a], [b], domain=domain) for a, b in (("x", "t"), ("t", "y"))]
        functions.append(helper.make_function("own", f"F{number}", ["x"], ["y"], calls, IMPORTS))
    return model_of([helper.make_node(f"F{depth - 1}", ["x"], ["y"], domain="own")], functions)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ran in processes of its own."""
    names: list[str] = []
    run = inference_apart.run_in_process

    def watched(work: Callable[[], object], name: str, limits: Limits | None = None) -> None:
        names.append(name)
        run(work, name, limits)

    monkeypatch.setattr(inference_apart, "run_in_process", watched)
    return names


@pytest.mark.parametrize("has_data", [False, True])
def test_large_graphs_are_inferred_in_a_process_of_their_own(processes: list[str], has_data: bool) -> None:
    for model in (chain(MOST_NODES + 1), doubling(11)):
        processes.clear()
        assert try_infer_shapes(model, has_data=has_data) == infer_shapes(model, data_prop=has_data)
        assert processes == ["the inference of shapes"]


def test_others_are_not(processes: list[str]) -> None:
    for model in (chain(MOST_NODES), doubling(8)):
        assert try_infer_shapes(model) == infer_shapes(model)
    assert not processes


@pytest.mark.parametrize("num_nodes", [2, MOST_NODES + 1])
def test_nothing_is_inferred_where_that_fails(num_nodes: int, processes: list[str]) -> None:
    # Inference would list the elements of the constant.
    model = chain(num_nodes)
    model.graph.node.append(helper.make_node("Constant", [], ["n"], value_ints=[2**62]))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["n"], ["z"]))
    assert try_infer_shapes(model, has_data=True) is None
    assert len(processes) == (num_nodes > MOST_NODES)


def test_nodes_count_as_often_as_they_are_inferred() -> None:
    assert num_inferred(chain(7)) == 7
    assert num_inferred(doubling(3)) == 1 + 2 + 4 + 8
    assert num_inferred(doubling(100)) == 2**101 - 1
    again = helper.make_function("own", "F", ["x"], ["y"], [helper.make_node("F", ["x"], ["y"], domain="own")], IMPORTS)
    assert num_inferred(model_of([helper.make_node("F", ["x"], ["y"], domain="own")], [again])) == math.inf
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["z"])], "branch", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    either = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    assert num_inferred(model_of([either], [])) == 3
