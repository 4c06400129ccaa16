"""What ONNX Runtime may make of a model's constants when it loads the model."""

import numpy as np
import psutil
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from triune.core.errors import UnsupportedError
from triune.graph.folded import folded_of
from triune.graph.inference import infer_shapes
from triune.graph.passes.fold import Fold
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


@pytest.mark.parametrize(("num", "fits"), [(3, True), (5, False)])
def test_what_follows_from_constants_keeps_to_the_limit(num: int, fits: bool) -> None:
    folded = folded_of(of_ranges(num, 16 * MIB))
    # Each range is one element shorter than the one before.
    assert sorted(folded.sizes)[-num:] == [64 * MIB - 4 * each for each in reversed(range(num))]
    assert (folded.most_bytes >= 64 * MIB) == fits
    assert sum(size for size in folded.sizes if size <= folded.most_bytes) <= folded.limit_bytes


def outer_products(num: int) -> ModelProto:
    """A model that adds to its input one element of each of some matrices of 2**26 elements, which are products of
    constants of 2**13.
    """
    shape = numpy_helper.from_array(np.array([1 << 13, 1]), "shape")
    constants = [shape, numpy_helper.from_array(np.array(0), "first")]
    nodes: list[NodeProto] = []
    for each in range(num):
        constants.append(numpy_helper.from_array(np.full(1 << 13, each, np.float32), f"w{each}"))
        nodes += [helper.make_node("Reshape", [f"w{each}", "shape"], [f"c{each}"])]
        nodes += [helper.make_node("Mul", [f"w{each}", f"c{each}"], [f"p{each}"])]
        nodes += [helper.make_node("Mul", [f"p{each}", "x"], [f"m{each}"])]
        nodes += [helper.make_node("ReduceMax", [f"m{each}"], [f"y{each}"], keepdims=0)]
    nodes.append(helper.make_node("Sum", [f"y{each}" for each in range(num)], ["y"]))
    return of(nodes, constants)


def test_broadcast_constants_count() -> None:
    folded = folded_of(outer_products(3))
    assert sum(folded.sizes) == pytest.approx(3 * 256 * MIB, rel=0.001)
    assert folded.most_bytes < 256 * MIB


def test_calls_of_a_function_count_each_time() -> None:
    nodes, constants = long_range("r", 5)
    twice = [helper.make_node("once", ["x"], ["a"], domain="f"), helper.make_node("once", ["a"], ["y"], domain="f")]
    model = of([helper.make_node("twice", ["x"], ["y"], domain="f")], [])
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    limits = [helper.make_node("Constant", [], [each.name], value=each) for each in constants]
    once = [*limits, *nodes, helper.make_node("Add", ["x", "r"], ["y"])]
    model.functions.append(helper.make_function("f", "once", ["x"], ["y"], once, opset))
    model.functions.append(helper.make_function("f", "twice", ["x"], ["y"], twice, opset))
    folded = folded_of(model)
    assert folded.num_unknown == 2
    assert folded.most_bytes == folded.limit_bytes // 2


def test_what_grows_with_a_request_does_not_count() -> None:
    limits = [numpy_helper.from_array(np.array(value, np.float32), key) for key, value in (("s", 0), ("d", 1))]
    nodes = [helper.make_node("Squeeze", ["x"], ["e"]), helper.make_node("Range", ["s", "e", "d"], ["y"])]
    folded = folded_of(of(nodes * 9, limits))
    assert (folded.sizes, folded.num_unknown) == ((), 0)


def test_the_shape_of_an_input_of_fixed_size_is_a_constant() -> None:
    times = numpy_helper.from_array(np.array([1 << 28]), "times")
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Mul", ["s", "times"], ["t"])]
    nodes += [helper.make_node("ConstantOfShape", ["t"], ["c"]), helper.make_node("Mul", ["c", "x"], ["y"])]
    assert max(folded_of(of(nodes, [times])).sizes) == 4 << 28


def test_a_cast_of_a_large_weight_may_be_kept() -> None:
    weight = numpy_helper.from_array(np.zeros(64 * MIB, np.bool_), "w")
    folded = folded_of(of([helper.make_node("Cast", ["w"], ["c"], to=TensorProto.INT64)], [weight]))
    assert folded.sizes == (512 * MIB,)
    assert folded.most_bytes >= 512 * MIB


def test_the_limit_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    model = of_ranges(1, 5e8)
    with pytest.raises(UnsupportedError, match="take 2000000000 bytes, and OpenVINO .* TRIUNE_FOLDED_BYTES"):
        folded_of(model).require("OpenVINO")
    monkeypatch.setenv("TRIUNE_FOLDED_BYTES", "3000000000")
    folded_of(model).require("OpenVINO")


def test_constants_of_a_graph_that_is_folded_share_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIUNE_FOLDED_BYTES", "1000000")
    folded = Fold()(infer_shapes(of_ranges(5, 100_000)))
    left = [node.op_type for node in folded.graph.node].count("Range")
    # Two of 400 kB keep to it.
    assert left == 3


def test_a_window_of_unknown_size_is_not_computed() -> None:
    size = numpy_helper.from_array(np.array(10**9), "n")
    nodes = [helper.make_node("HannWindow", ["n"], ["w"]), helper.make_node("Mul", ["w", "x"], ["y"])]
    model = of(nodes, [size])
    # Without inference its shape is not known.
    assert [node.op_type for node in Fold()(model).graph.node] == ["HannWindow", "Mul"]


def test_a_session_keeps_no_long_ranges() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    session = GraphSession(of_ranges(32, 2.5e6), "ranges", run_bytes=1 << 30)
    assert process.memory_info().rss - before < 128 * MIB
    answer, _ = session.run({"x": np.ones(1, np.float32)}, {})
    # Nor does a run, which makes them.
    assert process.memory_info().rss - before < 128 * MIB
    assert answer["y"].item() == pytest.approx(32 * (2.5e6 - 1))
