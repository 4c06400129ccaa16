"""What every implementation of the seam computes, over all datatypes and shapes."""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from contract.runtimes.conftest import Bench
from contract.runtimes.models import ELEMENT_TYPES, add_sub, identity, matmul, model, node, sample, tensor
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, UnsupportedError

NOT_EVERYWHERE = (DataType.FP64, DataType.BYTES)
"""What OpenVINO and MLX do not compute."""
NUMBERS = tuple(datatype for datatype in DataType if datatype not in (DataType.BOOL, DataType.BYTES))


def refuses(bench: Bench, datatype: DataType) -> bool:
    return (bench.is_openvino or bench.is_mlx) and datatype in NOT_EVERYWHERE


def assert_same(found: Array, expected: Array) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tolist() == expected.tolist()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("datatype", DataType)
@pytest.mark.parametrize("shape", [(5,), (), (0,), (3, 0, 2), (2, 1, 3)], ids=str)
def test_identity(bench: Bench, datatype: DataType, shape: tuple[int, ...]) -> None:
    built = identity(datatype, [f"axis{index}" for index in range(len(shape))])
    if refuses(bench, datatype):
        with pytest.raises(UnsupportedError, match=f"'x'.*{datatype.value}"):
            bench.load(built)
        return
    given = sample(datatype, shape)
    found = bench.load(built).run({"x": given}, ["y"])
    assert list(found) == ["y"]
    assert_same(found["y"], given)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_add_and_subtract(bench: Bench, datatype: DataType) -> None:
    if refuses(bench, datatype):
        with pytest.raises(UnsupportedError, match="INPUT0"):
            bench.load(add_sub(datatype))
        return
    if bench.name == "onnxruntime" and datatype is DataType.BF16:
        # Its CPU has no such kernel, and it says so.
        with pytest.raises(UnsupportedError, match="Add"):
            bench.load(add_sub(datatype))
        return
    left = np.arange(32).reshape(2, 16).astype(datatype.dtype)
    right = np.ones((2, 16), datatype.dtype)
    left += right
    found = bench.load(add_sub(datatype)).run({"INPUT0": left, "INPUT1": right}, ["OUTPUT0", "OUTPUT1"])
    assert_same(found["OUTPUT0"], left + right)
    assert_same(found["OUTPUT1"], left - right)


@pytest.mark.parametrize(("source", "target"), [(DataType.BF16, DataType.FP32), (DataType.FP32, DataType.BF16)])
def test_bf16_means_the_same_everywhere(bench: Bench, source: DataType, target: DataType) -> None:
    cast = model(
        [node("Cast", "x", "y", to=ELEMENT_TYPES[target])],
        [tensor("x", ("n",), source)],
        [tensor("y", ("n",), target)],
    )
    given = np.array([1 / 3, -2.71828, 1e30, 1e-30, np.inf, 0.0]).astype(source.dtype)
    found = bench.load(cast).run({"x": given}, ["y"])["y"]
    assert found.dtype == target.dtype
    expected = given.astype(target.dtype).astype(np.float64)
    # OpenVINO without AMX cuts where the others round: one unit in bf16's last place.
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=2**-7)


def test_bf16_beside_other_datatypes(bench: Bench) -> None:
    built = model(
        [node("Identity", "a", "c"), node("Identity", "b", "d"), node("Cast", "a", "e", to=TensorProto.FLOAT)],
        [tensor("a", ("n",), DataType.BF16), tensor("b", ("m",), DataType.INT64)],
        [tensor("c", ("n",), DataType.BF16), tensor("d", ("m",), DataType.INT64), tensor("e", ("n",))],
    )
    a = np.array([1.5, -2.0]).astype(ml_dtypes.bfloat16)
    b = np.array([3, 4, 5])
    found = bench.load(built).run({"a": a, "b": b}, ["e", "c", "d"])
    assert list(found) == ["e", "c", "d"]
    assert_same(found["c"], a)
    assert_same(found["d"], b)
    assert_same(found["e"], a.astype(np.float32))


def test_wide_integers_are_exact_or_refused(bench: Bench) -> None:
    for datatype, value in (
        (DataType.INT64, -(2**63)),
        (DataType.INT64, 2**31),
        (DataType.UINT64, 2**64 - 1),
        (DataType.UINT32, 2**32 - 1),
    ):
        executable = bench.load(identity(datatype))
        given = np.array([value, 5], datatype.dtype)
        if bench.is_openvino:
            with pytest.raises(InvalidArgumentError, match=rf"'x' holds {value}.*32 bits"):
                executable.run({"x": given}, ["y"])
        else:
            assert_same(executable.run({"x": given}, ["y"])["y"], given)
        assert_same(executable.run({"x": given[1:]}, ["y"])["y"], given[1:])


def test_fp16_and_fp32_special_values(bench: Bench) -> None:
    for datatype in (DataType.FP16, DataType.FP32):
        given = np.array([np.nan, np.inf, -np.inf, -0.0], datatype.dtype)
        found = bench.load(identity(datatype)).run({"x": given}, ["y"])["y"]
        np.testing.assert_array_equal(found, given)
        assert np.signbit(found[3])


PICTURE = b"\xff\xd8\xff\xe0JFIF\x00"


def test_bytes_that_are_not_text_reach_a_model_that_only_moves_them(bench: Bench) -> None:
    if refuses(bench, DataType.BYTES):
        with pytest.raises(UnsupportedError, match="'x'.*BYTES"):
            bench.load(identity(DataType.BYTES))
        return
    marked = "\U0010ffffé".encode()
    given = np.array([PICTURE, b"text", "é".encode(), bytes(range(256)), marked, b""], np.object_)
    assert_same(bench.load(identity(DataType.BYTES)).run({"x": given}, ["y"])["y"], given)


@pytest.mark.parametrize("index", [0, 2])
def test_bytes_that_are_not_text_are_refused_by_a_model_that_reads_them(bench: Bench, index: int) -> None:
    if refuses(bench, DataType.BYTES):
        return
    given = np.array([b"a", b"b", b"c"], np.object_)
    given[index] = b"ok\xff\xfe"
    twice = node("StringConcat", "x x", "y", name="twice")
    executable = bench.load(model([twice], [tensor("x", ["n"], DataType.BYTES)], [tensor("y", ["n"], DataType.BYTES)]))
    with pytest.raises(InvalidArgumentError, match=rf"input 'x', element {index} is not UTF-8.*byte 2.*'twice'"):
        executable.run({"x": given}, ["y"])
    given[index] = b"ok"
    assert_same(executable.run({"x": given}, ["y"])["y"], np.array([each * 2 for each in given], np.object_))


def test_bytes_come_back_as_bytes_of_many_shapes(bench: Bench) -> None:
    if refuses(bench, DataType.BYTES):
        with pytest.raises(UnsupportedError):
            bench.load(identity(DataType.BYTES, ("a", "b")))
        return
    given = np.array([[b"one", b""], ["zwölf".encode(), b"\0"]], np.object_)
    found = bench.load(identity(DataType.BYTES, ("a", "b"))).run({"x": given}, ["y"])["y"]
    assert found.dtype == np.object_
    assert all(type(element) is bytes for element in found.flat)
    assert_same(found, given)


def test_dynamic_axes(bench: Bench) -> None:
    executable = bench.load(matmul())
    for rows, inner, columns in ((1, 1, 1), (3, 4, 5), (2, 8, 1), (3, 4, 5), (1, 4, 2)):
        a = np.arange(rows * inner, dtype=np.float32).reshape(rows, inner)
        b = np.ones((inner, columns), np.float32)
        np.testing.assert_allclose(executable.run({"a": a, "b": b}, ["c"])["c"], a @ b)


def test_an_empty_batch(bench: Bench) -> None:
    executable = bench.load(matmul())
    found = executable.run({"a": np.ones((0, 4), np.float32), "b": np.ones((4, 2), np.float32)}, ["c"])["c"]
    assert found.shape == (0, 2)
    assert found.dtype == np.float32


def test_some_of_the_outputs_in_any_order(bench: Bench) -> None:
    executable = bench.load(add_sub(DataType.FP32))
    ones = np.ones((1, 16), np.float32)
    inputs = {"INPUT1": ones, "INPUT0": ones * 3}
    assert list(executable.run(inputs, ["OUTPUT1", "OUTPUT0"])) == ["OUTPUT1", "OUTPUT0"]
    found = executable.run(inputs, ["OUTPUT1"])
    assert list(found) == ["OUTPUT1"]
    assert_same(found["OUTPUT1"], ones * 2)


def test_an_input_that_nothing_reads(bench: Bench) -> None:
    built = model([node("Neg", "x", "y")], [tensor("unused", ("n",)), tensor("x", ("n",))], [tensor("y", ("n",))])
    executable = bench.load(built)
    assert [spec.name for spec in executable.signature.inputs] == ["unused", "x"]
    x = np.ones(2, np.float32)
    assert_same(executable.run({"unused": x, "x": x}, ["y"])["y"], -x)


def test_a_model_without_inputs(bench: Bench) -> None:
    value = helper.make_tensor("value", TensorProto.FLOAT, [2], [1.0, 2.0])
    executable = bench.load(model([node("Constant", "", "y", value=value)], [], [tensor("y", (2,))]))
    assert_same(executable.run({}, ["y"])["y"], np.array([1, 2], np.float32))


def test_an_input_with_a_default(bench: Bench) -> None:
    built = model(
        [node("Add", "x b", "y")],
        [tensor("x", ("n",)), tensor("b", (1,))],
        [tensor("y", ("n",))],
        {"b": np.array([5], np.float32)},
    )
    executable = bench.load(built)
    x, b = np.ones(2, np.float32), np.ones(1, np.float32)
    assert_same(executable.run({"x": x}, ["y"])["y"], x + 5)
    if bench.is_openvino:
        # It compiles the default in: an override must not be lost without a word.
        assert [spec.name for spec in executable.signature.inputs] == ["x"]
        with pytest.raises(InvalidArgumentError, match="exactly the inputs x, not b, x"):
            executable.run({"x": x, "b": b}, ["y"])
        return
    assert [(spec.name, spec.is_optional) for spec in executable.signature.inputs] == [("x", False), ("b", True)]
    assert_same(executable.run({"x": x, "b": b}, ["y"])["y"], x + 1)
    assert_same(executable.run({"x": x}, ["y"])["y"], x + 5)


def test_an_input_of_optional_type(bench: Bench) -> None:
    present = helper.make_graph([node("OptionalGetElement", "o", "p")], "present", [], [tensor("p", ("n",))])
    absent = helper.make_graph([node("Identity", "x", "q")], "absent", [], [tensor("q", ("n",))])
    optional = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"]))
    built = model(
        [node("OptionalHasElement", "o", "has"), node("If", "has", "y", then_branch=present, else_branch=absent)],
        [tensor("x", ("n",)), helper.make_value_info("o", optional)],
        [tensor("y", ("n",))],
        opset=18,
        ir_version=8,
    )
    if bench.is_openvino or bench.is_mlx:
        with pytest.raises(UnsupportedError, match=r"OpenVINO cannot compile|cannot run on MLX"):
            bench.load(built)
        return
    executable = bench.load(built)
    x = np.ones(2, np.float32)
    assert_same(executable.run({"x": x}, ["y"])["y"], x)
    assert_same(executable.run({"x": x, "o": x * 3}, ["y"])["y"], x * 3)
