from pathlib import Path

import onnx
import pytest
from onnx import FunctionProto, helper

from triune.core.errors import InvalidArgumentError
from triune.graph.calls import problem_of_calls
from triune.graph.load import read_model

IMPORTS = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]


def calling(name: str, callee: str, overload: str = "") -> FunctionProto:
    """A function that calls another one, in a branch of an If."""
    call = helper.make_node(callee, ["x"], ["y"], domain="f" if callee != "Identity" else "")
    then = helper.make_graph([call], "then", [], [helper.make_tensor_value_info("y", 1, None)])
    node = helper.make_node("If", ["x"], ["z"], then_branch=then, else_branch=then)
    function = helper.make_function("f", name, ["x"], ["z"], [node], IMPORTS)
    function.overload = overload
    return function


def chain(count: int) -> list[FunctionProto]:
    return [*(calling(f"F{each}", f"F{each + 1}") for each in range(count - 1)), calling(f"F{count - 1}", "Identity")]


@pytest.mark.parametrize(
    "functions", [[], chain(1), chain(100), [calling("F", "F", "other"), calling("F", "Identity")]]
)
def test_calls_without_a_problem(functions: list[FunctionProto]) -> None:
    assert problem_of_calls(functions) is None


def test_chains_are_limited() -> None:
    assert problem_of_calls(chain(5000)) == "functions call each other 5000 deep; 100 is the limit: inline some of them"


def test_functions_that_call_themselves() -> None:
    assert problem_of_calls([calling("F", "F")]) == "the function 'f::F' calls itself, directly or through others"
    assert "calls itself" in str(problem_of_calls([*chain(3), calling("A", "B"), calling("B", "A")]))


@pytest.mark.parametrize("functions", [chain(101), [calling("F0", "F0")]])
def test_a_file_with_such_functions_is_refused(tmp_path: Path, functions: list[FunctionProto]) -> None:
    values = [helper.make_tensor_value_info(name, 9, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("F0", ["x"], ["y"], domain="f")], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, functions=functions, opset_imports=IMPORTS), tmp_path / "m.onnx")
    with pytest.raises(InvalidArgumentError, match="is not a complete ONNX model.*call"):
        read_model(tmp_path / "m.onnx")
