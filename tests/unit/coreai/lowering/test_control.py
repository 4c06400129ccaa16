"""Branches and loops, computed by Apple's interpreter and by ONNX Runtime."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.lowered import BOOL, FLOAT, INT64, model_of
from support.lowered_coreai import check
from triune.core.errors import UnsupportedError
from triune.coreai.lowering import LowerOptions
from triune.coreai.program import load_program, mlir_module
from triune.graph.conversion.options import Precision

INT32 = TensorProto.INT32
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def graph(nodes: Any, inputs: Any, outputs: Any, **constants: Any) -> Any:
    return helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )


def branches(then: Any, other: Any, shape: Any, folder: Path, size: Any = 2) -> None:
    node = helper.make_node("If", ["p"], ["y"], then_branch=then, else_branch=other)
    model = model_of([node], [("p", BOOL, []), ("x", FLOAT, [size, 3])], [("y", FLOAT, shape)])
    check(model, folder, {"p": np.array(True), "x": X}, {"p": np.array(False), "x": X})


def test_branches_that_compute_nothing(tmp_path: Path) -> None:
    then = graph([helper.make_node("Identity", ["x"], ["a"])], [], [("a", FLOAT, [2, 3])])
    other = graph([], [], [("b", FLOAT, [2, 3])], b=X + 7)
    branches(then, other, [2, 3], tmp_path)


def test_branches_of_other_ranks_are_refused_with_what_decides_them(tmp_path: Path) -> None:
    then = graph([helper.make_node("Neg", ["x"], ["a"])], [], [("a", FLOAT, [2, 3])])
    other = graph([helper.make_node("ReduceSum", ["x"], ["b"], keepdims=0)], [], [("b", FLOAT, [])])
    message = (
        r"float32\[2, 3\] and float32\[\]; decide its condition by fixed sizes \(--shape\) or inputs \(--constant\)"
    )
    with pytest.raises(UnsupportedError, match=message):
        branches(then, other, None, tmp_path)


def twice_turned(name: str) -> Any:
    """What is `x` again."""
    turn = helper.make_node("Transpose", ["x"], [f"{name}t"])
    return graph([turn, helper.make_node("Transpose", [f"{name}t"], [name])], [], [(name, FLOAT, [2, 3])])


def test_branches_of_which_nothing_is_left_to_compute(tmp_path: Path) -> None:
    # Core AI makes a selection of them, which it then does not load, unless something stays in the branches.
    constant = graph([], [], [("c", FLOAT, [2, 3])], c=X + 7)
    again = graph([helper.make_node("Neg", ["x"], ["r"])], [], [("r", FLOAT, [2, 3])])
    nodes = [
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("If", ["p"], ["y"], then_branch=twice_turned("a"), else_branch=constant),
        helper.make_node("If", ["p"], ["z"], then_branch=twice_turned("b"), else_branch=again),
    ]
    outputs = [(name, FLOAT, [2, 3]) for name in ("y", "z", "n")]
    model = model_of(nodes, [("p", BOOL, []), ("x", FLOAT, [2, 3])], outputs)
    check(model, tmp_path, {"p": np.array(True), "x": X}, {"p": np.array(False), "x": X})


def test_branches_of_truths_of_which_nothing_is_left(tmp_path: Path) -> None:
    both = [helper.make_node("Not", ["p"], ["a"]), helper.make_node("Not", ["a"], ["b"])]
    then = graph(both, [], [("b", BOOL, [])])
    other = graph([helper.make_node("Not", ["p"], ["c"])], [], [("c", BOOL, [])])
    nodes = [
        helper.make_node("Not", ["p"], ["n"]),
        helper.make_node("If", ["p"], ["y"], then_branch=then, else_branch=other),
    ]
    model = model_of(nodes, [("p", BOOL, [])], [("y", BOOL, []), ("n", BOOL, [])])
    check(model, tmp_path, {"p": np.array(True)}, {"p": np.array(False)})


def test_branches_that_give_masks_computed_outside(tmp_path: Path) -> None:
    """Core AI removed or(x, x), and did not load the selection that it made of the If."""

    def again(mask: str, name: str) -> Any:
        turn = helper.make_node("Transpose", [mask], [f"{name}t"])
        return graph([turn, helper.make_node("Transpose", [f"{name}t"], [name])], [], [(name, BOOL, [2, 3])])

    branch = helper.make_node("If", ["p"], ["y"], then_branch=again("q", "a"), else_branch=again("n", "b"))
    inputs = [("p", BOOL, []), ("q", BOOL, [2, 3])]
    model = model_of(
        [helper.make_node("Not", ["q"], ["n"]), branch], inputs, [("y", BOOL, [2, 3]), ("n", BOOL, [2, 3])]
    )
    check(model, tmp_path, {"p": np.array(True), "q": X > 2}, {"p": np.array(False), "q": X > 2})


@pytest.mark.parametrize("size", [2, "n"])
def test_branches_of_different_shapes(size: Any, tmp_path: Path) -> None:
    then = graph([helper.make_node("Identity", ["x"], ["a"])], [], [("a", FLOAT, [size, 3])])
    other = graph([helper.make_node("Concat", ["x", "x"], ["b"], axis=0)], [], [("b", FLOAT, ["m", 3])])
    branches(then, other, ["k", 3], tmp_path, size)


def looped(body: Any, outputs: Any, folder: Path, count: Any, *calls: Any, size: Any = 2, going: Any = True) -> None:
    """A loop that carries `x`; `count` steps, or computed where it is None."""
    inputs = [("x", FLOAT, [size, 3])] + ([("n", INT64, [])] if count is None else [])
    constants = {"go": np.array(going)} | ({} if count is None else {"n": np.array(count)})
    node = helper.make_node("Loop", ["n", "go", "x"], [each[0] for each in outputs], body=body)
    check(model_of([node], inputs, outputs, **constants), folder, *calls)


STEP: Any = [("i", INT64, []), ("c", BOOL, []), ("v", FLOAT, None)]


def test_loops_whose_number_of_steps_is_computed_collect(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["c"], ["d"]),
        helper.make_node("Add", ["v", "one"], ["w"]),
        helper.make_node("Mul", ["w", "two"], ["s"]),
    ]
    body = graph(
        nodes, STEP, [("d", BOOL, []), ("w", FLOAT, None), ("s", FLOAT, [2, 3])], one=np.float32(1), two=np.float32(2)
    )
    outputs = [("y", FLOAT, [2, 3]), ("z", FLOAT, ["n", 2, 3])]
    looped(body, outputs, tmp_path, None, {"x": X, "n": np.array(3)}, {"x": X, "n": np.array(1)})
    looped(body, [outputs[0], ("z", FLOAT, [4, 2, 3])], tmp_path, 4, {"x": X})


def test_loops_that_end_early_collect_what_was_done(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["v", "one"], ["w"]),
        helper.make_node("Identity", ["w"], ["s"]),
        helper.make_node("Less", ["i", "last"], ["d"]),
    ]
    body = graph(
        nodes,
        STEP,
        [("d", BOOL, []), ("w", FLOAT, [2, 3]), ("s", FLOAT, [2, 3])],
        one=np.float32(1),
        last=np.array(2),
    )
    looped(body, [("y", FLOAT, [2, 3]), ("z", FLOAT, ["n", 2, 3])], tmp_path, 9, {"x": X})


def test_bools_that_a_loop_carries_are_copied(tmp_path: Path) -> None:
    """Core AI removed and(x, x), so that the interpreter wrote a mask of the step over a carried condition: a masked
    Keras LSTM of 20 steps ended after the first.
    """
    nodes = [helper.make_node("Less", ["i", "last"], ["d"]), helper.make_node("Add", ["v", "v"], ["w"])]
    body = graph(nodes, STEP, [("d", BOOL, []), ("w", FLOAT, [2, 3])], last=np.array(2))
    looped(body, [("y", FLOAT, [2, 3])], tmp_path, 9, {"x": X})
    program = str(mlir_module(load_program(tmp_path / "m.aimodel")))
    loop = program[program.index("coreai.while") :]
    numbers = re.findall(r"(%\w+) = coreai.cast %\w+ : tensor<i1> to tensor<si32>", loop)
    assert len([each for each in numbers if f"coreai.maximum {each}, {each}" in loop]) == 2


@pytest.mark.parametrize("size", [2, "n"])
def test_what_is_carried_may_grow(size: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Concat", ["v", "v"], ["w"], axis=0)]
    body = graph(nodes, STEP, [("d", BOOL, []), ("w", FLOAT, None)])
    looped(body, [("y", FLOAT, ["m", 3])], tmp_path, 3, {"x": X}, size=size)


def test_a_condition_that_is_false_from_the_start(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Add", ["v", "v"], ["w"])]
    body = graph(nodes, STEP, [("d", BOOL, []), ("w", FLOAT, None)])
    looped(body, [("y", FLOAT, [2, 3])], tmp_path, 3, {"x": X}, going=False)


@pytest.mark.parametrize("steps", [5, None])
@pytest.mark.parametrize("kind", [FLOAT, INT64, BOOL])
def test_what_is_collected_may_be_of_any_size(kind: int, steps: int | None, tmp_path: Path) -> None:
    """As the distances between a batch and each row of a table, by scikit-learn's neighbours."""
    nodes = [
        helper.make_node("Identity", ["c"], ["d"]),
        helper.make_node("Gather", ["table", "i"], ["r"]),
        helper.make_node("Sub", ["v", "r"], ["difference"]),
        helper.make_node("ReduceSum", ["difference", "axes"], ["total"], keepdims=0),
        helper.make_node("Cast", ["total"], ["s"], to=kind),
        helper.make_node("Identity", ["v"], ["w"]),
    ]
    table = np.arange(15, dtype=np.float32).reshape(5, 3)
    body = graph(nodes, STEP, [("d", BOOL, []), ("w", FLOAT, None), ("s", kind, None)], table=table, axes=np.array([1]))
    outputs = [("y", FLOAT, ["m", 3]), ("z", kind, ["n", "m"])]
    calls = [{"x": np.concatenate([X] * count)} for count in (1, 3)]
    if steps is None:
        calls = [{**call, "n": np.array(count)} for call, count in zip(calls, (5, 2), strict=True)]
    looped(body, outputs, tmp_path, steps, *calls, size="m")


@pytest.mark.parametrize("order", ["dis", "ids", "sdi"])
def test_loops_may_scatter(order: str, tmp_path: Path) -> None:
    nodes = {
        "d": helper.make_node("Less", ["i", "last"], ["d"]),
        "i": helper.make_node("Reshape", ["i", "form"], ["j"]),
        "s": helper.make_node("Add", ["v", "one"], ["u"]),
    }
    ordered = [nodes[each] for each in order] + [
        helper.make_node("Gather", ["u", "i"], ["r"], axis=0),
        helper.make_node("Unsqueeze", ["r", "zero"], ["q"]),
        helper.make_node("ScatterND", ["u", "j", "q"], ["w"]),
    ]
    body = graph(
        ordered,
        STEP,
        [("d", BOOL, []), ("w", FLOAT, [2, 3])],
        one=np.float32(1),
        last=np.array(0),
        form=np.array([1, 1]),
        zero=np.array([0]),
    )
    looped(body, [("y", FLOAT, [2, 3])], tmp_path, 9, {"x": X})


def test_long_steps_keep_what_they_carry_to_the_last_operation_that_reads_it(tmp_path: Path) -> None:
    # A step makes (v + s u) / (1 + s) for each unit vector u in turn, s = (sum(v_0) - v_0[u]) / k[u], v_0 of its start.
    nodes = [
        helper.make_node("Identity", ["c"], ["d"]),
        helper.make_node("ReduceSum", ["v", "last"], ["sum"], keepdims=1),
    ]
    value = "v"
    for place in range(3):
        named = {name: f"{name}{place}" for name in ("own", "here", "rest", "s", "more", "moved", "sum_u", "w")}
        steps = [
            ("Gather", ["k", f"p{place}"], "own", {"axis": 1}),
            ("Gather", ["v", f"p{place}"], "here", {"axis": 1}),
            ("Sub", ["sum", named["here"]], "rest", {}),
            ("Div", [named["rest"], named["own"]], "s", {}),
            ("Add", ["one", named["s"]], "more", {}),
            ("Mul", [named["s"], f"u{place}"], "moved", {}),
            ("Add", [value, named["moved"]], "sum_u", {}),
            ("Div", [named["sum_u"], named["more"]], "w", {}),
        ]
        nodes += [helper.make_node(op, given, [named[name]], **settings) for op, given, name, settings in steps]
        value = named["w"]
    constants = {"one": np.float32(1), "last": np.array([1])}
    constants |= {f"p{place}": np.array([place]) for place in range(3)}
    constants |= {f"u{place}": np.eye(3, dtype=np.float32)[[place]] for place in range(3)}
    body = graph(nodes, STEP, [("d", BOOL, []), (value, FLOAT, [5, 3])], **constants)
    loop = helper.make_node("Loop", ["n", "go", "x"], ["y"], body=body)
    inputs = [("x", FLOAT, [5, 3]), ("k", FLOAT, [5, 3])]
    model = model_of([loop], inputs, [("y", FLOAT, [5, 3])], go=np.array(True), n=np.array(2))
    x, k = np.random.default_rng(0).uniform(0.2, 0.9, (2, 5, 3)).astype(np.float32)
    check(model, tmp_path, {"x": x, "k": k})


@pytest.mark.parametrize("order", [("sum", "a", "b"), ("b", "sum", "a"), ("b", "c", "a"), ("sum", "a", "a")])
def test_what_is_carried_may_become_another_carried_value(order: tuple[str, ...], tmp_path: Path) -> None:
    carried = [(name, FLOAT, [1]) for name in ("a", "b", "c")]
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["a", "b"], ["sum"])]
    # The body gives each output a name of its own.
    nodes += [helper.make_node("Identity", [name], [f"next{place}"]) for place, name in enumerate(order)]
    outputs = [("on", BOOL, []), *((f"next{place}", FLOAT, [1]) for place in range(3))]
    body = graph(nodes, [("step", INT64, []), ("go", BOOL, []), *carried], outputs)
    node = helper.make_node("Loop", ["n", "", "x", "y", "z"], ["p", "q", "r"], body=body)
    given, got = ([(name, FLOAT, [1]) for name in names] for names in ("xyz", "pqr"))
    feeds = {name: np.array([value], np.float32) for name, value in zip("xyz", (1, 2, 3), strict=True)}
    found = check(model_of([node], given, got, n=np.array(6)), tmp_path, feeds, atol=0)
    # The answers are whole numbers, in every bit.
    assert all(float(each[0]).is_integer() for each in found[0].values())


def _loop_of(nodes: Any, carried: str, made: str, step: str, **constants: Any) -> Any:
    """The body of a Loop that carries one value and goes on to the end."""
    inputs = [(f"{step}_number", INT64, []), (f"{step}_given", BOOL, []), (carried, FLOAT, [1, 3])]
    outputs = [(f"{step}_goes_on", BOOL, []), (made, FLOAT, [1, 3])]
    goes_on = helper.make_node("Identity", [f"{step}_given"], [f"{step}_goes_on"])
    return graph([*nodes, goes_on], inputs, outputs, **constants)


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_loops_within_loops_keep_every_bit(precision: Precision, is_known: bool, tmp_path: Path) -> None:
    """The first byte of what the outer one carries was lost: 8 for 9.3 in fp16."""
    doubled = [helper.make_node("Add", ["a", "a"], ["aa"]), helper.make_node("Mul", ["aa", "half"], ["a_out"])]
    within = _loop_of(doubled, "a", "a_out", "inner", half=np.float32(0.5))
    loop = helper.make_node("Loop", ["two", "", "b"], ["b_in"], body=within)
    added = helper.make_node("Add", ["b_in", "seven"], ["b_out"])
    whole = helper.make_node(
        "Loop", ["n", "", "x"], ["y"], body=_loop_of([loop, added], "b", "b_out", "outer", seven=np.float32(7))
    )
    counts = {"two": np.array(2), **({"n": np.array(3)} if is_known else {})}
    inputs = [("x", FLOAT, [1, 3]), *([] if is_known else [("n", INT64, [])])]
    model = model_of([whole], inputs, [("y", FLOAT, [1, 3])], **counts)
    x = np.array([[0.3, -0.6, 1.7]], np.float32)
    given = {"x": x, **({} if is_known else {"n": np.array(3)})}
    atol = 1e-5 if precision is Precision.FP32 else 2e-2
    (found,) = check(model, tmp_path, given, options=LowerOptions(precision=precision), atol=atol)
    if precision is Precision.FP32:
        right = ((x + np.float32(7)) + np.float32(7)) + np.float32(7)
        np.testing.assert_array_equal(found["y"], right)
