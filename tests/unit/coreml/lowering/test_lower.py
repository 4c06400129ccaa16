"""Small graphs converted, and computed by both executors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from support.graphs import model_of as model_of_text
from support.graphs import old_model
from support.lowered import BOOL, FLOAT, INT64, Value, check, model_of
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering import LowerOptions, Target, lower
from triune.coreml.package import read_package
from triune.graph.check import sample_inputs
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import InputShape, Range


@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_integers_divide_as_onnx_does(op: str, tmp_path: Path) -> None:
    node = helper.make_node(op, ["x", "y"], ["z"], **({"fmod": 1} if op == "Mod" else {}))
    model = model_of([node], [("x", INT64, [6]), ("y", INT64, [6])], [("z", INT64, [6])])
    x, y = np.array([7, -7, 7, -7, 6, 0]), np.array([2, 2, -2, -2, -3, 5])
    check(model, {"x": x, "y": y}, tmp_path)


def test_models_of_old_operator_sets_answer_as_they_did(tmp_path: Path) -> None:
    model = old_model()
    check(model, sample_inputs(model), tmp_path)


def test_logarithms_of_zero_are_infinite(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Log", ["x"], ["y"])], [("x", FLOAT, [2])], [("y", FLOAT, [2])])
    results = check(model, {"x": np.array([0, 1], np.float32)}, tmp_path)
    assert np.isneginf(results["y"][0])


def test_truths_and_scalars_cross_the_interface(tmp_path: Path) -> None:
    nodes = [helper.make_node("Not", ["flag"], ["other"]), helper.make_node("Add", ["a", "a"], ["sum"])]
    model = model_of(nodes, [("flag", BOOL, [2]), ("a", FLOAT, [])], [("other", BOOL, [2]), ("sum", FLOAT, [])])
    results = check(model, {"flag": np.array([True, False]), "a": np.array(3, np.float32)}, tmp_path)
    assert results["other"].dtype == np.int32
    assert results["sum"].shape == (1,)


def test_names_that_core_ml_refuses_are_changed_and_recorded(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x.1", "x_1"], ["tensor"])]
    model = model_of(nodes, [("x.1", FLOAT, [2]), ("x_1", FLOAT, [2])], [("tensor", FLOAT, [2])])
    lowered = lower(model, tmp_path / "m.mlpackage")
    assert lowered.inputs == {"x.1": "x_1_1", "x_1": "x_1"}
    assert lowered.outputs == {"tensor": "tensor_"}
    import coremltools

    spec: Any = coremltools.utils.load_spec(str(lowered.path))
    source = json.loads(spec.description.metadata.userDefined["triune.source"])
    assert source["inputs"]["x_1_1"] == {"source": "x.1", "type": "FLOAT", "rank": 1}
    assert [each.name for each in spec.description.output] == ["tensor_"]


def test_outputs_may_be_inputs_constants_and_each_other(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Identity", ["c"], ["fixed"]),
        helper.make_node("Relu", ["x"], ["one"]),
        helper.make_node("Identity", ["one"], ["two"]),
    ]
    outputs: list[Value] = [(name, FLOAT, [2]) for name in ("same", "fixed", "one", "two")]
    model = model_of(nodes, [("x", FLOAT, [2])], outputs, c=np.array([1, 2], np.float32))
    check(model, {"x": np.array([-1, 1], np.float32)}, tmp_path)


def test_every_node_that_cannot_be_converted_is_listed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ImageDecoder", ["x"], ["u"], name="first"),
        helper.make_node("Abs", ["u"], ["r"]),
        helper.make_node("Det", ["m"], ["d"], name="second"),
    ]
    inputs: list[Value] = [("x", TensorProto.UINT8, [4]), ("m", FLOAT, [5, 5])]
    model = model_of(nodes, inputs, [("r", TensorProto.UINT8, ["h", "w", "c"]), ("d", FLOAT, [])])
    with pytest.raises(UnsupportedError) as caught:
        lower(model, tmp_path / "m.mlpackage")
    assert "ImageDecoder 'first': it decodes the bytes of a file" in str(caught.value)
    assert "Det 'second'" in str(caught.value)
    assert "Abs" not in str(caught.value)


def test_free_dimensions_need_limits(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, ["n", 4])], [("y", FLOAT, ["n", 4])])
    with pytest.raises(UnsupportedError, match=r"dimension 0 \('n'\) of input 'x' is free.*--shape"):
        lower(model, tmp_path / "m.mlpackage")
    with pytest.raises(InvalidArgumentError, match="there is no input 'z'"):
        lower(model, tmp_path / "m.mlpackage", LowerOptions(shapes={"z": InputShape(((1,),))}))
    with pytest.raises(InvalidArgumentError, match="rank 1"):
        lower(model, tmp_path / "m.mlpackage", LowerOptions(shapes={"x": InputShape(((1,),))}))
    with pytest.raises(InvalidArgumentError, match="dimension 1"):
        lower(model, tmp_path / "m.mlpackage", LowerOptions(shapes={"x": InputShape(((1, 5),))}))


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_ranges_hold_for_every_size(rows: int, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "zero", "one"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("Expand", ["bias", "n"], ["spread"]),
        helper.make_node("Unsqueeze", ["spread", "axes"], ["column"]),
        helper.make_node("Add", ["r", "column"], ["y"]),
    ]
    model = model_of(
        nodes,
        [("x", FLOAT, ["n", 4])],
        [("y", FLOAT, ["n", 2, 2])],
        zero=np.array([0]),
        one=np.array([1]),
        rest=np.array([2, 2]),
        bias=np.array([0.5], np.float32),
        axes=np.array([1, 2]),
    )
    options = LowerOptions(shapes={"x": InputShape(((Range(1, 8), 4),))})
    check(model, {"x": np.random.default_rng(0).random((rows, 4), np.float32)}, tmp_path, options)


def test_several_shapes_are_enumerated(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, [1, "n"])], [("y", FLOAT, [1, "n"])])
    options = LowerOptions(shapes={"x": InputShape(((1, 4), (1, 9)))})
    check(model, {"x": np.ones((1, 9), np.float32)}, tmp_path, options)
    feature = read_package(tmp_path / "m.mlpackage").description
    assert "(1, 9)" in str(feature)


def test_what_coremltools_says_of_its_own_numbers_is_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """It counts the places of a band in int64, which it then says that it narrows."""
    nodes = [helper.make_node("Trilu", ["x", "k"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, [3, 4])], [("y", FLOAT, [3, 4])], k=np.array(1))
    pooled = [helper.make_node("MaxPool", ["x"], ["y", "at"], kernel_shape=[2])]
    places = model_of(pooled, [("x", FLOAT, [1, 2, 6])], [("y", FLOAT, [1, 2, 5]), ("at", INT64, [1, 2, 5])])
    for each in (model, places):
        lower(each, tmp_path / "m.mlpackage")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("coremltools")]
    assert (said, *capfd.readouterr()) == ([], "", "")


@pytest.mark.parametrize("target", list(Target))
def test_packages_are_for_the_target(target: Target, tmp_path: Path) -> None:
    model = model_of([helper.make_node("Softmax", ["x"], ["y"])], [("x", FLOAT, [2, 3])], [("y", FLOAT, [2, 3])])
    check(model, {"x": np.ones((2, 3), np.float32)}, tmp_path, LowerOptions(target=target))
    assert read_package(tmp_path / "m.mlpackage").specification_version == target.value


def test_precision_is_that_of_each_node(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("Add", ["a", "c"], ["y"], name="shifts"),
    ]
    weights, shift = np.full((4, 4), 3, np.float32), np.float32(2048.5)
    model = model_of(nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])], w=weights, c=shift)
    x = np.ones((1, 4), np.float32)
    # fp16 has no halves above 1024.
    results = check(model, {"x": x}, tmp_path, LowerOptions(precision=Precision.MIXED, keep_fp32=frozenset(["shifts"])))
    assert (results["y"] == 2060.5).all()
    lower(model, tmp_path / "half.mlpackage", LowerOptions(precision=Precision.FP16))
    results, _ = Interpreter(read_package(tmp_path / "half.mlpackage")).run({"x": x}, {})
    assert (results["y"] == 2060).all()
    assert results["y"].dtype == np.float32


def test_the_path_says_what_is_written(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, [1])], [("y", FLOAT, [1])])
    with pytest.raises(InvalidArgumentError, match=r"\.mlpackage"):
        lower(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "agraph (float[1,2,4] x, float[2,2,3] w) => (float[1,2,1] y) { y = Conv <dilations=[2]> (x, w) }",
            "a window of 5 is larger than 'x' ",
        ),
        (
            """agraph (float[6,2] x) => (float[?,?,?] y)
                 <int64[3] to = {-1, -3, 2}> { y = Reshape (x, to) }""",
            r"the shape \[-1, -3, 2\] holds -3",
        ),
        (
            "agraph (float[1,8,2,2] x) => (float[1,2,4,4] y) { y = DepthToSpace <blocksize=-1> (x) }",
            "'blocksize' is -1, and has to be 1 or more",
        ),
        (
            "agraph (float[3] x) => (float[3] y) <int64 axis = {2}> { y = CumProd (x, axis) }",
            r"'axis' is 2, and 'x' \(3\) has 1 dimensions",
        ),
    ],
)
def test_what_contradicts_itself_says_where(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        lower(model_of_text(text), tmp_path / "m.mlpackage")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("agraph (float[2] x) => (int32[2] y) { y = BitCast <to=6> (x) }", "cast the values"),
        (
            "agraph (float[1,1,4,4] x, float[2,4] b, int64[2] i) => (float[2,1,1,1] y) { y = RoiAlign (x, b, i) }",
            "give it a sampling_ratio",
        ),
        (
            """agraph (float[2,3] x, int64 at) => (float[2,1] y) {
                 s = SplitToSequence <axis=1> (x)  y = SequenceAt (s, at) }""",
            "an index, is not constant",
        ),
        (
            "agraph (float[1,2,4,4] x) => (float[1,2,1,1] y) { y = AveragePool <kernel_shape=[5,2]> (x) }",
            "a window of 5 does not fit into an image of 4 with padding of 0 and 0",
        ),
        (
            "agraph (int64[4] x) => (float[2] y)"
            """ { t = Cast <to=8> (x)  y = TfIdfVectorizer <mode="TF", min_gram_length=1, max_gram_length=1, """
            "max_skip_count=0, ngram_counts=[0], ngram_indexes=[0, 1], pool_int64s=[2, 3]> (t) }",
            "it works on text",
        ),
    ],
)
def test_what_is_left_says_why_and_what_to_do(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        lower(model_of_text(text), tmp_path / "m.mlpackage")


@pytest.mark.parametrize(
    "makes",
    [
        [helper.make_node("ConstantOfShape", ["n"], ["r"])],
        [helper.make_node("Expand", ["one", "n"], ["r"])],
        [helper.make_node("Tile", ["one", "n"], ["r"])],
        [
            helper.make_node("Tile", ["one", "column"], ["a"]),
            helper.make_node("Tile", ["one", "row"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["r"]),
        ],
    ],
)
def test_what_constants_make_has_a_limit(makes: list[Any], tmp_path: Path) -> None:
    """coremltools computes it beforehand: this would take 14 GB, for one row of it."""
    rows = 60_000
    nodes = [*makes, helper.make_node("Slice", ["r", "s", "e"], ["q"]), helper.make_node("Add", ["x", "q"], ["y"])]
    sizes = {"n": np.array([rows, rows]), "column": np.array([rows, 1]), "row": np.array([1, rows])}
    ends = {"s": np.array([0, 5]), "e": np.array([1, 8])}
    shape = [("x", FLOAT, [1, 3])], [("y", FLOAT, [1, 3])]
    model = model_of(nodes, *shape, one=np.ones((1, 1), np.float32), **sizes, **ends)
    with pytest.raises(UnsupportedError, match=f"'r': its result is constant, of {rows * rows} elements"):
        lower(model, tmp_path / "m.mlpackage")
