"""What Apple's compiler joins wrongly stays apart; tests named `still` tell when it does not any more."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import ModelProto, helper, numpy_helper

from support.apple_interpreter import Apart, interpret, raised
from support.lowered import plain_answers
from support.raised import computed
from triune.coreai.lowering import LowerOptions, barriers, lower, lower_functions
from triune.coreai.program import graphs_of, load_program
from triune.graph.conversion.options import Precision
from triune.graph.conversion.sources import MAIN, Source

FLOATS = np.array([[-2.7, -0.3, 0.5, 2.5, 7.9, 1e-9]], np.float32)
LARGE = np.array([[1e38, -2e38, 3.0, 4.0, 5.0, 1e-9]], np.float32)
WHOLE = np.array([[5, 15, 9, -7, 2**24 + 1, 0]], np.int32)
BATCH = np.arange(-8, 8, dtype=np.float32).reshape(1, 1, 4, 4)
F, I, BOOL = 1, 6, 9  # noqa: E741


@dataclass(frozen=True)
class Pattern:
    """Operators that are joined wrongly.

    Attributes:
        steps: each the operator and its operands; "" is what the one before gave.
        x: the input.
        right: the answer.
    """

    steps: tuple[tuple[Any, ...], ...]
    x: Any
    right: Any


def _cast(dtype: int) -> tuple[Any, ...]:
    return ("Cast", "", dtype)


def _reshape(*shape: int) -> tuple[Any, ...]:
    return ("Reshape", "", np.array(shape, np.int64))


def _of(dtype: Any, number: Any) -> Any:
    return np.array(number, dtype)


def f32(number: Any) -> Any:
    return _of(np.float32, number)


def i32(number: Any) -> Any:
    return _of(np.int32, number)


_TRUNCATED = np.trunc(FLOATS)

PATTERNS = {
    "a quotient times its divisor": Pattern(
        (("Div", "", i32(10)), ("Mul", "", i32(10))), WHOLE, np.array([[0, 10, 0, 0, 16777210, 0]])
    ),
    "a product by a larger number": Pattern(
        (("Mul", "", i32(3)), ("Div", "", i32(4))), WHOLE, np.array([[3, 11, 6, -5, 12582912, 0]])
    ),
    "with the factor first": Pattern(
        (("Mul", i32(3), ""), ("Div", "", i32(4))), WHOLE, np.array([[3, 11, 6, -5, 12582912, 0]])
    ),
    "two quotients whose divisors overflow": Pattern(
        (("Div", "", i32(65535)), ("Div", "", i32(65535))), WHOLE * 0 + (2**31 - 1), WHOLE * 0
    ),
    "the other sign of a quotient": Pattern(
        (("Neg", ""), ("Div", "", i32(2))), WHOLE, np.array([[-2, -7, -4, 3, -8388608, 0]])
    ),
    "behind a reshape": Pattern(
        (("Mul", "", i32(3)), _reshape(6), ("Div", "", i32(4))), WHOLE, np.array([3, 11, 6, -5, 12582912, 0])
    ),
    "behind a broadcast": Pattern(
        (("Mul", "", i32(3)), ("Expand", "", np.array([2, 6])), ("Div", "", i32(4))),
        WHOLE,
        np.array([[3, 11, 6, -5, 12582912, 0]] * 2),
    ),
    "behind two transpositions": Pattern(
        (("Mul", "", i32(3)), ("Transpose", ""), ("Transpose", ""), ("Div", "", i32(4))),
        WHOLE,
        np.array([[3, 11, 6, -5, 12582912, 0]]),
    ),
    "a cast to whole numbers and back": Pattern((_cast(I), _cast(F)), FLOATS, _TRUNCATED),
    "such casts behind two reshapes": Pattern((_cast(I), _reshape(6), _reshape(1, 6), _cast(F)), FLOATS, _TRUNCATED),
    "a cast to floats and back": Pattern((_cast(F), _cast(I)), WHOLE, np.array([[5, 15, 9, -7, 2**24, 0]])),
    "a cast to whole numbers and to truths": Pattern((_cast(I), _cast(BOOL)), FLOATS, _TRUNCATED != 0),
    "rounding by 1.5 * 2^23": Pattern(
        (("Add", "", f32(12582912)), ("Sub", "", f32(12582912))), FLOATS, np.rint(FLOATS)
    ),
    "a sum that cancels": Pattern((("Add", "", f32(1)), ("Sub", "", f32(1))), FLOATS * 0 + 1e-9, FLOATS * 0),
    "a difference from the left": Pattern(
        (("Sub", f32(12582912), ""), ("Sub", f32(12582912), "")), FLOATS, np.rint(FLOATS)
    ),
    "a product that overflows": Pattern(
        (("Mul", "", f32(1e3)), ("Div", "", f32(1e3))),
        LARGE,
        np.array([[np.inf, -np.inf, 3, 4, 5, 1e-9]], np.float32),
    ),
    "a product that underflows": Pattern(
        (("Mul", "", f32(1e-38)), ("Mul", "", f32(1e38))), FLOATS * 0 + 1e-9, FLOATS * 0
    ),
    "a convolution by 1 over 0": Pattern(
        (("Conv", "", f32([[[[1, -1]]]])), ("Div", "", f32([[[[0]]]]))),
        BATCH,
        np.full((1, 1, 4, 3), -np.inf, np.float32),
    ),
}


def _model(pattern: Pattern) -> ModelProto:
    nodes: list[Any] = []
    constants: list[Any] = []
    value = "x"
    for number, (op, *operands) in enumerate(pattern.steps):
        names: list[str] = []
        attributes: dict[str, Any] = {}
        for operand in operands:
            if op == "Cast" and isinstance(operand, int):
                attributes["to"] = operand
            elif isinstance(operand, str):
                names.append(value)
            else:
                names.append(f"c{len(constants)}")
                constants.append(numpy_helper.from_array(operand, names[-1]))
        value = f"y{number}"
        nodes.append(helper.make_node(op, names, [value], **attributes))
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(each.dtype)) for each in (pattern.x, pattern.right)]
    kinds[1] = I if pattern.right.dtype == np.int64 else kinds[1]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kinds[0], pattern.x.shape)],
        [helper.make_tensor_value_info(value, kinds[1], pattern.right.shape)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _call(argument: tuple[Path, Any]) -> Any:
    path, x = argument
    (answer,) = interpret(path, {"x": x}).values()
    return answer


_apple = Apart(_call)


@pytest.mark.parametrize("name", PATTERNS)
def test_it_is_kept_apart(name: str, tmp_path: Path) -> None:
    pattern = PATTERNS[name]
    answer = _apple((lower(_model(pattern), tmp_path / "m.aimodel").path, pattern.x))
    assert answer.shape == pattern.right.shape
    np.testing.assert_array_equal(answer, pattern.right)


@pytest.mark.parametrize(
    "name", ["a quotient times its divisor", "such casts behind two reshapes", "a sum that cancels"]
)
def test_raised_a_barrier_is_nothing(name: str, tmp_path: Path) -> None:
    pattern = PATTERNS[name]
    program = raised(lower(_model(pattern), tmp_path / "m.aimodel").path)
    (answer,) = computed(program, {"x": pattern.x}).values()
    np.testing.assert_array_equal(answer, pattern.right)
    assert not [node for node in program.graph.node if node.op_type == "Max" and node.input[0] == node.input[1]]


@pytest.mark.parametrize("name", PATTERNS)
def test_core_ai_still_joins(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barriers, "place_barriers", lambda body: None)
    pattern = PATTERNS[name]
    answer = _apple((lower(_model(pattern), tmp_path / "m.aimodel").path, pattern.x))
    assert not np.array_equal(answer, pattern.right, equal_nan=answer.dtype.kind == "f"), (
        f"Core AI keeps '{name}' apart now: take it out of coreai.lowering.barriers, and out of decision 6"
    )


def _num_barriers(model: ModelProto, folder: Path, precision: Precision = Precision.FP32) -> int:
    """How often `maximum(x, x)` is in what is made of a model."""
    return _num_barriers_in(lower(model, folder / "m.aimodel", LowerOptions(precision=precision)).path)


def _num_barriers_in(asset: Path) -> int:
    program = load_program(asset)
    operations = [each for graph in graphs_of(program).values() for each in graph.regions[0].blocks[0].operations]
    found = [each for each in operations if each.operation.name == "coreai.maximum"]
    return sum(each.operands[0] == each.operands[1] for each in found)


HARMLESS = {
    "sums of whole numbers": Pattern((("Add", "", i32(3)), ("Sub", "", i32(2))), WHOLE, WHOLE),
    "products of whole numbers": Pattern((("Mul", "", i32(3)), ("Mul", "", i32(2))), WHOLE, WHOLE),
    "a cast that is exact": Pattern((_cast(BOOL), _cast(F)), FLOATS, FLOATS),
    "casts to fp32 and from there to fp16": Pattern((_cast(F), _cast(10)), WHOLE, np.zeros((1, 6), np.float16)),
    "another sign": Pattern((("Mul", "", f32(0.3)), ("Neg", "")), FLOATS, FLOATS),
    "a sum and a product": Pattern((("Add", "", f32(0.3)), ("Mul", "", f32(2))), FLOATS, FLOATS),
    "a bias and a mean": Pattern(
        (("Conv", "", f32([[[[1, -1]]]]), f32([2])), ("Sub", "", f32([[[[0.5]]]])), ("Mul", "", f32([[[[3]]]]))),
        BATCH,
        BATCH[..., :3],
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_left_to_the_compiler(name: str, tmp_path: Path) -> None:
    assert _num_barriers(_model(HARMLESS[name]), tmp_path) == 0


def test_in_fp16_joined_constants_are_nearer_to_the_source(tmp_path: Path) -> None:
    # Of an input alone products are in fp32.
    scales = Pattern((("Tanh", ""), ("Mul", "", f32(1e1)), ("Mul", "", f32(1e-1))), FLOATS, FLOATS)
    assert _num_barriers(_model(scales), tmp_path, Precision.FP16) == 0
    beyond = Pattern((("Mul", "", f32(6e4)), ("Mul", "", f32(6e4))), FLOATS, FLOATS)
    assert _num_barriers(_model(beyond), tmp_path, Precision.FP16) == 1


@pytest.mark.parametrize("kind", ["float", "bool"])
def test_barriers_after_all_operations_stay(kind: str, tmp_path: Path) -> None:
    """One for each of two operations, on bools, too: of these, Core AI removes `and(x, x)`."""
    ops = {"float": ("Add", "Mul"), "bool": ("And", "Xor")}[kind]
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 20]>
        two ({kind}[2, 3] a, {kind}[2, 3] b, {kind}[2, 3] c) => ({kind}[2, 3] y)
        {{ d = {ops[0]}(a, b)  y = {ops[1]}(d, c) }}
    """)
    path = tmp_path / "m.aimodel"
    lower_functions({MAIN: Source(model, LowerOptions())}, path, may_fuse=False)
    assert _num_barriers_in(path) == 2
    rng = np.random.default_rng(0)
    given = {name: rng.integers(0, 2, (2, 3)).astype(np.float32 if kind == "float" else np.bool_) for name in "abc"}
    (right,) = plain_answers(model, given)
    (answer,) = interpret(path, given).values()
    np.testing.assert_array_equal(answer, right)
