import re
from typing import Any

import numpy as np
import pytest

from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError
from triune.coreml.mil import Constant, Name, Program
from triune.coreml.mil_text import read_text
from triune.coreml.read_program import read_program
from triune.coreml.weights import NoWeights

# As Apple's compiler writes them, but for the lines, which it does not break within an operation.
OLD = """program(1.0)
[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{"coremlc-version", "3404.23.1"}, {"made-by", "hand"}})]
{
    func main<ios16>(tensor<fp16, [1, 8]> scores) {
            tensor<int32, [1]> axes_0 = const()[name = tensor<string, []>("axes_0"), val = tensor<int32, [1]>([-1])];
            tensor<bool, []> keep = const()[name = tensor<string, []>("keep"), val = tensor<bool, []>(true)];
            tensor<fp16, [1, 1]> best = reduce_max(axes = axes_0, keep_dims = keep, x = scores)
                [name = tensor<string, []>("best")];
            tensor<fp16, [1, 4]> a, tensor<fp16, [1, 4]> b =
                split(axis = tensor<int32, []>(1), num_splits = tensor<int32, []>(2), x = scores);
            tensor<fp16, [1, 9]> all =
                concat(axis = tensor<int32, []>(1), interleave = tensor<bool, []>(false), values = (a, b, best));
        } -> (all, best);
}
"""

STATES = """program(1.3) [buildInfo = dict<string, string>({})] {
    func main<ios18>(state<tensor<fp16, [1, 2]>> total, tensor<fp16, [1, 2]> x) {
        tensor<fp16, [1, 2]> before = read_state(input = total)[name = string("before")];
        tensor<fp16, [1, 2]> y = add(x = before, y = x)[name = string("y")];
        write_state(data = y, input = total)[name = string("write")];
    } -> (y);
    func twice<ios17>(tensor<fp32, [?, 2]> x) [FlexibleShapeInformation =
        tuple<tuple<string, dict<string, tensor<int32, [?]>>>>((("DefaultShapes", {{"x", [1, 2]}})))] {
        tensor<fp32, [?, 2]> y = mul(x = x, y = fp32(0x1p+1));
    } -> (y);
}"""

BLOCKS = """program(1.3)
{
    func main<ios17>(tensor<int32, []> x) {
        tensor<int32, []> n = while_loop(loop_vars = x)[name = string("n")] (tensor<int32, []> i) {
            tensor<bool, []> go = less(x = i, y = int32(10));
        } -> (go), (tensor<int32, []> j) {
            int32 next = add(x = j, y = int32(3));
        } -> (next);
        int32 y = cond(pred = bool(true)) {
            int32 p = add(x = n, y = x);
        } -> (p) {
        } -> (n);
    } -> (y);
}"""


def read(text: str) -> Program:
    return read_program(read_text(text, "model.mil"), NoWeights(), "model.mil")


def test_a_program_of_1_0() -> None:
    function = read(OLD).functions["main"]
    assert function.opset == "CoreML6"
    assert [each.name for each in function.inputs] == ["scores"]
    axes, _, best, split, joined = function.block.operations
    assert [each.op for each in function.block.operations] == ["const", "const", "reduce_max", "split", "concat"]
    assert axes.attributes["val"].array.tolist() == [-1]
    assert best.inputs["x"] == (Name("scores"),)
    assert str(best.attributes["name"].array) == "best"
    assert [each.name for each in split.outputs] == ["a", "b"]
    (axis,) = split.inputs["axis"]
    assert isinstance(axis, Constant)
    assert axis.array == 1
    assert joined.inputs["values"] == (Name("a"), Name("b"), Name("best"))
    assert function.block.outputs == ("all", "best")


def test_states_functions_and_what_gives_nothing() -> None:
    functions = read(STATES).functions
    assert sorted(functions) == ["main", "twice"]
    assert [each.op for each in functions["main"].block.operations] == ["read_state", "add", "write_state"]
    assert functions["main"].block.operations[2].outputs == ()
    assert functions["main"].opset == "CoreML8"
    assert functions["twice"].inputs[0].type.shape == (None, 2)  # type: ignore[union-attr]


def test_blocks() -> None:
    loop, branch = read(BLOCKS).functions["main"].block.operations
    assert [[each.name for each in block.inputs] for block in loop.blocks] == [["i"], ["j"]]
    assert [block.outputs for block in branch.blocks] == [("p",), ("n",)]
    assert branch.blocks[1].operations == ()


def test_blanks_do_not_matter() -> None:
    tight = re.sub(r"(?<=[,;(){}\[\]<>=])\s+|\s+(?=[,;(){}\[\]<>=])", "", OLD)
    assert len(tight) < len(OLD) - 100
    assert read_text(tight, "a") == read_text(OLD, "b")


def test_every_cut_is_refused() -> None:
    for text in (OLD, STATES, BLOCKS):
        body = text.rstrip()
        for end in range(len(body)):
            # Of `1.0` a 1 is left once, which is no version.
            with pytest.raises(
                (InvalidArgumentError, UnsupportedError), match=r"^'model\.mil', line \d+, column \d+: "
            ):
                read_text(body[:end], "model.mil")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("program(1.0)", "program(2.0)", "line 1, column 9: version 2.0 of the language is not known"),
        ("<ios16>", "<ios99>", "line 4, column 15: the operator set 'ios99' is not known; there are ios13,"),
        ("tensor<fp16, [1, 9]>", "tensor<fp9, [1, 9]>", "line 11, column 20: the type 'fp9' is not known"),
    ],
)
def test_what_is_not_known(old: str, new: str, message: str) -> None:
    assert old in OLD
    with pytest.raises(UnsupportedError, match=message):
        read(OLD.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("best = reduce_max", "best = reduce_max reduce_max", r"line 7, column 52: '\(' is expected, not 'reduce_max'"),
        ("axes = axes_0,", "axes = axes_0, axes = keep,", "line 7.*the parameter 'axes' is given twice"),
        ("-> (all, best)", "-> (all, worst)", "its output 'worst' is not defined"),
        ("x = scores)\n                [", "x = all)[", r"'all' is used before it is defined.*form a cycle"),
        ("x = scores)\n                [", "x = none)[", "'none' is not defined"),
        ("tensor<fp16, [1, 1]> best", "tensor<fp16, [1, 1]> keep", "'keep' is defined twice"),
        ("val = tensor<int32, [1]>([-1])", "val = tensor<int32, [2]>([-1, 1])", "its value is int32.*declared int32"),
        (", val = tensor<bool, []>(true)", "", "a const has one attribute 'val'"),
        ('val = tensor<bool, []>(true)]', 'val = bool(true), val = bool(true)]', "the attribute 'val' is given twice"),
        ("(all, best);\n}", "(all, best);\n    func main<ios16>() {} -> ();\n}", "two functions 'main'"),
        ("    } -> (all, best);\n}", "    } -> (all, best);\n} }", "the end of the text is expected, not '}'"),
        ("[1, 9]> all", "[1, 9, 1, 1, 1, 1]> all", "a tensor of 6 dimensions"),
        ("(a, b, best)", "(a, b, (best))", "the name of a value, or a value with its type is expected"),
        ("func main", "func 7", "the name of a function is expected, not '7'"),
        ("tensor<fp16, [1, 8]> scores", "scores", "the type 'scores' is not known|the name of a value"),
    ],
)  # fmt: skip
def test_what_is_malformed(old: str, new: str, message: str) -> None:
    assert old in OLD
    with pytest.raises(TriuneError, match=f"(?s){message}"):
        read(OLD.replace(old, new))


def _nested(levels: int) -> str:
    opening = "tensor<int32, []> y = cond(pred = bool(true)) {\n" * levels
    return f"program(1.0) {{ func main<ios16>(int32 x) {{ {opening} {'} -> (x) {} -> (x);' * levels} }} -> (x); }}"


def test_blocks_within_each_other() -> None:
    assert read(_nested(8)).functions["main"].block.operations[0].blocks[0].operations[0].op == "cond"
    with pytest.raises(InvalidArgumentError, match="more than 40 types, values or blocks within each other"):
        read(_nested(3000))


def test_a_program_without_functions() -> None:
    with pytest.raises(InvalidArgumentError, match="no functions"):
        read("program(1.0) {}")


def test_large_constants_are_read_as_they_are() -> None:
    numbers = np.random.default_rng(0).standard_normal((100, 50)).astype(np.float32)
    rows = ", ".join(f"[{', '.join(float(each).hex() for each in row)}]" for row in numbers)
    constant = f"tensor<fp32, [100, 50]> w = const()[val = tensor<fp32, [100, 50]>([{rows}])];"
    text = f"program(1.3) {{ func main<ios18>() {{ {constant} }} -> (w); }}"
    operation: Any = read(text).functions["main"].block.operations[0]
    np.testing.assert_array_equal(operation.attributes["val"].array, numbers)
