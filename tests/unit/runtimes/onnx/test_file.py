from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from contract.runtimes.models import model, node, save, tensor
from support.graphs import model_of
from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.tensors import TensorSpec
from triune.graph.precision import precision_of
from triune.runtimes.onnx.file import broken_part, read_signature


def read(built: ModelProto, folder: Path) -> tuple[TensorSpec, ...]:
    signature = read_signature(save(built, folder / "model.onnx"))
    return (*signature.inputs, *signature.outputs)


def test_fixed_named_and_free_dimensions(tmp_path: Path) -> None:
    built = model([node("Neg", "x", "y")], [tensor("x", (2, "batch", None))], [tensor("y", (2, "batch", None))])
    x, y = read(built, tmp_path)
    assert x == TensorSpec("x", DataType.FP32, (2, -1, -1), (None, "batch", None))
    assert (y.shape, y.axes) == (x.shape, x.axes)


def test_a_question_mark_is_no_name(tmp_path: Path) -> None:
    # Paddle's exporter writes "?" for every dimension that it does not know.
    built = model([node("Neg", "x", "y")], [tensor("x", ("?", "?", "n"))], [tensor("y", ("?", "?", "n"))])
    x, _ = read(built, tmp_path)
    assert x.shape == (-1, -1, -1)
    assert x.axes == (None, None, "n")


def test_a_negative_dimension_is_free(tmp_path: Path) -> None:
    # Some exporters write -1 in place of leaving the dimension out.
    built = model([node("Neg", "x", "y")], [tensor("x", (-1, 3))], [tensor("y", (-1, 3))])
    assert read(built, tmp_path)[0].shape == (-1, 3)


def test_an_outputs_shape_is_inferred_where_the_file_is_silent(tmp_path: Path) -> None:
    inputs = [tensor("x", ("n", 3))]
    for silent in (tensor("y", None), ValueInfoProto(name="y")):
        y = read(model([node("Neg", "x", "y")], inputs, [silent]), tmp_path)[1]
        assert y == TensorSpec("y", DataType.FP32, (-1, 3), ("n", None))


def test_an_output_of_unknown_rank_has_no_dimensions(tmp_path: Path) -> None:
    built = model(
        [node("Reshape", "x s", "y")], [tensor("x", ("n",)), tensor("s", ("m",), DataType.INT64)], [tensor("y", None)]
    )
    assert read(built, tmp_path)[2].shape == ()


def test_an_output_of_which_nothing_is_known(tmp_path: Path) -> None:
    built = model([node("Magic", "x", "y", domain="nobody")], [tensor("x", (1,))], [ValueInfoProto(name="y")])
    built.opset_import.append(helper.make_opsetid("nobody", 1))
    with pytest.raises(UnsupportedError, match="output 'y'.*no type"):
        read(built, tmp_path)


def test_an_input_of_unknown_rank_says_so(tmp_path: Path) -> None:
    x, _ = read(model([node("Neg", "x", "y")], [tensor("x", None)], [tensor("y", None)]), tmp_path)
    assert (x.shape, x.has_rank) == ((), False)
    assert str(x) == "x: FP32[...]"
    scalar, _ = read(model([node("Neg", "x", "y")], [tensor("x", ())], [tensor("y", ())]), tmp_path)
    assert scalar.has_rank


def test_weights_that_old_files_list_as_inputs(tmp_path: Path) -> None:
    from numpy import float32, ones

    inputs = [tensor("x", ("n",)), tensor("w", (1,))]
    weights = {"w": ones(1, float32)}
    old = model([node("Add", "x w", "y")], inputs, [tensor("y", ("n",))], weights, opset=8, ir_version=3)
    assert [spec.name for spec in read(old, tmp_path)] == ["x", "y"]
    new = model([node("Add", "x w", "y")], inputs, [tensor("y", ("n",))], weights)
    assert [(spec.name, spec.is_optional) for spec in read(new, tmp_path)] == [("x", False), ("w", True), ("y", False)]


@pytest.mark.parametrize("number", [TensorProto.COMPLEX64, TensorProto.FLOAT8E4M3FN, TensorProto.INT4, 9999])
def test_element_types_that_kserve_lacks(tmp_path: Path, number: int) -> None:
    built = model([node("Identity", "x", "y")], [tensor("x", (1,))], [tensor("y", (1,))])
    built.graph.input[0].type.tensor_type.elem_type = number
    with pytest.raises(UnsupportedError, match=r"input 'x' of .*model\.onnx' has the element type"):
        read(built, tmp_path)


def test_sequences_and_optional_outputs_are_refused(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["n"])
    with pytest.raises(UnsupportedError, match="output 'y'.*is a sequence"):
        read(model([node("SequenceConstruct", "x", "y")], [tensor("x", (1,))], [sequence]), tmp_path)
    of = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"]))
    optional = helper.make_value_info("y", of)
    with pytest.raises(UnsupportedError, match="output 'y'.*optional"):
        read(model([node("Optional", "x", "y")], [tensor("x", (1,))], [optional]), tmp_path)


@pytest.mark.parametrize(("offset", "length"), [("x", "4"), ("0", "-4"), ("", "4")])
def test_external_data_of_nonsense_length(tmp_path: Path, offset: str, length: str) -> None:
    built = model([node("Add", "x w", "y")], [tensor("x", (1,))], [tensor("y", (1,))])
    weight = built.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "w.bin"), ("offset", offset), ("length", length)):
        weight.external_data.add(key=key, value=value)
    (tmp_path / "w.bin").write_bytes(b"1234")
    with pytest.raises(InvalidArgumentError, match="not numbers"):
        read(built, tmp_path)


def test_the_checker_explains(tmp_path: Path) -> None:
    good = save(model([node("Neg", "x", "y")], [tensor("x", (1,))], [tensor("y", (1,))]), tmp_path / "good.onnx")
    bad = save(model([node("Neg", "z", "y")], [tensor("x", (1,))], [tensor("y", (1,))]), tmp_path / "bad.onnx")
    assert broken_part(good) is None
    assert "z" in (broken_part(bad) or "")


@pytest.mark.parametrize(
    ("body", "precision"),
    [
        ("(float[2] x) => (float[2] y) { y = Relu (x) }", "fp32"),
        ("(float16[2] x) => (float16[2] y) { y = Relu (x) }", "fp16"),
        ("(float[2] x) => (float[2] y) { h = Cast <to = 10> (x)  r = Relu (h)  y = Cast <to = 1> (r) }", "fp16"),
        ("(float[2] x) => (float[2] y) { h = Cast <to = 16> (x)  y = Cast <to = 1> (h) }", "bf16"),
        # Weights that are only kept so.
        ("(float[2] x) => (float[2] y) <float16[2] w = {1, 2}> { f = Cast <to = 1> (w)  y = Mul (x, f) }", "fp32"),
        (
            "(float[2] x, bool c) => (float[2] y) { y = If (c) <"
            "then_branch = a () => (float[2] p) { h = Cast <to = 10> (x)  p = Cast <to = 1> (h) }, "
            "else_branch = b () => (float[2] q) { q = Relu (x) }> }",
            "fp16",
        ),
        ("(int64[2] x) => (int64[2] y) { y = Neg (x) }", "fp32"),
    ],
)
def test_the_narrowest_floats_are_the_precision(body: str, precision: str) -> None:
    assert precision_of(model_of(f"agraph {body}", opset=21)) == precision


def test_the_checker_explains_a_model_whose_large_weights_it_is_not_given(tmp_path: Path) -> None:
    weights = {"w": np.zeros((256, 256), np.float32)}
    built = model([node("MatMul", "x w", "y")], [tensor("x", (1, 256))], [tensor("y", (1, 256))], weights)
    assert broken_part(save(built, tmp_path / "good.onnx")) is None
    built.graph.node[0].input[0] = "z"
    assert "z" in (broken_part(save(built, tmp_path / "bad.onnx")) or "")
