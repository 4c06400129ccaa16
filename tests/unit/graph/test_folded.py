"""What ONNX Runtime may make of a model's constants when it loads the model."""

import numpy as np
import psutil
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from triune.graph.folded import most_folded_bytes
from triune.graph.session import GraphSession

MIB = 1 << 20


def long_range(name: str, end: float, start: float = 0) -> tuple[list[NodeProto], list[TensorProto]]:
    """A Range from `start` to `end`, and its limits."""
    limits = {f"{name}/start": start, f"{name}/end": end, f"{name}/step": 1.0}
    constants = [numpy_helper.from_array(np.array(value, np.float32), key) for key, value in limits.items()]
    return [helper.make_node("Range", list(limits), [name])], constants


def of_ranges(num: int, end: float) -> ModelProto:
    """A model whose output is its input plus the last element of each of some ranges."""
    nodes: list[NodeProto] = []
    constants = [numpy_helper.from_array(np.array([-1]), "last")]
    for each in range(num):
        # Equal ranges would become one.
        made, given = long_range(f"r{each}", end, each)
        nodes += [*made, helper.make_node("Mul", [f"r{each}", "x"], [f"m{each}"])]
        nodes += [helper.make_node("Gather", [f"m{each}", "last"], [f"y{each}"])]
        constants += given
    nodes.append(helper.make_node("Sum", [f"y{each}" for each in range(num)], ["y"]))
    return of(nodes, constants)


def of(nodes: list[NodeProto], constants: list[TensorProto]) -> ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        nodes, "g", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])], constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(("num", "most"), [(1, 256 * MIB), (4, 64 * MIB), (256, MIB)])
def test_what_grows_out_of_constants_shares_a_limit(num: int, most: int) -> None:
    assert most_folded_bytes(of_ranges(num, 5)) == most


def test_calls_of_a_function_count_each_time() -> None:
    nodes, constants = long_range("r", 5)
    twice = [helper.make_node("once", ["x"], ["a"], domain="f"), helper.make_node("once", ["a"], ["y"], domain="f")]
    model = of([helper.make_node("twice", ["x"], ["y"], domain="f")], [])
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    limits = [helper.make_node("Constant", [], [each.name], value=each) for each in constants]
    once = [*limits, *nodes, helper.make_node("Add", ["x", "r"], ["y"])]
    model.functions.append(helper.make_function("f", "once", ["x"], ["y"], once, opset))
    model.functions.append(helper.make_function("f", "twice", ["x"], ["y"], twice, opset))
    assert most_folded_bytes(model) == 128 * MIB


def test_what_grows_with_a_request_does_not_count() -> None:
    limits = [numpy_helper.from_array(np.array(value, np.float32), key) for key, value in (("s", 0), ("d", 1))]
    nodes = [helper.make_node("Squeeze", ["x"], ["e"]), helper.make_node("Range", ["s", "e", "d"], ["y"])]
    assert most_folded_bytes(of(nodes * 9, limits)) == 256 * MIB


def test_a_cast_of_a_large_weight_may_be_kept() -> None:
    weight = numpy_helper.from_array(np.zeros(64 * MIB, np.bool_), "w")
    assert most_folded_bytes(of([helper.make_node("Cast", ["w"], ["c"], to=TensorProto.INT64)], [weight])) == 512 * MIB


def test_a_session_keeps_no_long_ranges() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    session = GraphSession(of_ranges(32, 2.5e6), "ranges")
    assert process.memory_info().rss - before < 128 * MIB
    answer, _ = session.run({"x": np.ones(1, np.float32)}, {})
    assert answer["y"].item() == pytest.approx(32 * (2.5e6 - 1))
