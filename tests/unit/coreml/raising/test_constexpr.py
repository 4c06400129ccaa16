"""Compressed weights, against coremltools' own values."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from support.mil_programs import make_package, mb, mil_types, run
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import (
    Array,
    Block,
    Constant,
    DType,
    Function,
    Name,
    Operation,
    Output,
    Packed,
    Program,
    TensorType,
)
from triune.coreml.raising import raise_function

generator = np.random.default_rng(3)


def check(target: str, build: Any) -> None:
    """What `build` gives, added to an input of zeros, is what coremltools says it is."""
    expected: list[Array] = []

    def whole(given: Any) -> Any:
        var = build()
        expected.append(var.op.materialized_val_inference())
        dtype = {"uint8": "int32", "int8": "int32"}.get(str(expected[0].dtype), str(expected[0].dtype))
        dense = var if dtype != "int32" else mb.cast(x=var, dtype="int32")
        return mb.add(x=mb.cast(x=given.x, dtype=dtype.replace("float", "fp")), y=dense)

    (output,) = run(whole, {"x": np.zeros(1, np.float32)}, target)
    np.testing.assert_array_equal(output, expected[0])
    assert np.any(output)


@pytest.mark.parametrize(("dtype", "axis"), list(itertools.product(["int8", "uint8"], [0, 1, -1])))
@pytest.mark.parametrize("is_vector", [True, False])
def test_affine_dequantize(dtype: str, axis: int, is_vector: bool) -> None:
    data = generator.integers(0, 100, (2, 3, 4)).astype(dtype)
    size = data.shape[axis] if is_vector else ()
    scale = generator.random(size).astype(np.float32)
    zero_point = generator.integers(0, 100, size).astype(dtype)
    check("iOS16", lambda: mb.constexpr_affine_dequantize(
        quantized_data=data, zero_point=zero_point, scale=scale, axis=axis
    ))  # fmt: skip


def test_cast() -> None:
    values = generator.normal(size=(3, 50)).astype(np.float16)
    check("iOS16", lambda: mb.constexpr_cast(source_val=values, output_dtype="fp32"))
    check("iOS18", lambda: mb.constexpr_cast(source_val=values, output_dtype="fp32"))


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_lut_to_dense_of_ios_16(bits: int, dtype: str) -> None:
    shape = (3, 7)
    indices = generator.integers(0, 1 << bits, shape)
    lut = (generator.normal(size=1 << bits) * 20).astype(dtype)
    stream = np.unpackbits(indices.astype(np.uint8).reshape(-1, 1), axis=1, bitorder="little")[:, :bits]
    packed = np.packbits(stream, bitorder="little")
    # Integers can be cast from iOS 17 on.
    target = "iOS17" if dtype == "int8" else "iOS16"
    check(target, lambda: mb.constexpr_lut_to_dense(indices=packed, lut=lut, shape=np.array(shape, np.uint32)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
def test_sparse_to_dense_of_ios_16(dtype: str) -> None:
    mask = generator.random((5, 13)) > 0.5
    nonzero = (generator.random(int(mask.sum())) * 50 + 1).astype(dtype)
    packed = np.packbits(mask, bitorder="little")
    check("iOS17" if dtype == "uint8" else "iOS16", lambda: mb.constexpr_sparse_to_dense(
        nonzero_data=nonzero, mask=packed, shape=np.array(mask.shape, np.uint32)
    ))  # fmt: skip


def unsigned(bits: int) -> Any:
    return mil_types.np_uint1_dtype if bits == 1 else getattr(mil_types, f"np_uint{bits}_dtype", np.uint8)


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int8", "uint8"])
@pytest.mark.parametrize("scales", [(1, 1, 1), (4, 1, 1), (2, 3, 1), (4, 6, 5)])
@pytest.mark.parametrize("number", [np.float16, np.float32])
def test_blockwise_shift_scale(dtype: str, scales: tuple[int, ...], number: Any) -> None:
    low = -8 if dtype.startswith("int") else 0
    kind: Any = mil_types.nptype_from_builtin(mil_types.string_to_builtin(dtype))
    data = generator.integers(low, low + 16, (4, 6, 10)).astype(kind)
    scale = generator.random(scales).astype(number)
    offset = generator.integers(low, low + 16, scales).astype(kind)
    check("iOS18", lambda: mb.constexpr_blockwise_shift_scale(data=data, scale=scale, offset=offset))
    check("iOS18", lambda: mb.constexpr_blockwise_shift_scale(data=data, scale=scale))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("vector_axis", [None, 0, 1, -1])
def test_lut_to_dense_of_ios_18(bits: int, vector_axis: int | None) -> None:
    indices = generator.integers(0, 1 << bits, (4, 6)).astype(unsigned(bits))
    lut = generator.normal(size=(2, 3, 1 << bits, 1 if vector_axis is None else 4)).astype(np.float16)
    more = {} if vector_axis is None else {"vector_axis": vector_axis}
    check("iOS18", lambda: mb.constexpr_lut_to_dense(indices=indices, lut=lut, **more))


def sparse(bits: int) -> tuple[Array, Array]:
    mask = generator.random((4, 6)) > 0.4
    data = generator.integers(0, 1 << bits, int(mask.sum())).astype(unsigned(bits))
    return mask.astype(unsigned(1)), data


@pytest.mark.parametrize("vector_axis", [None, 0, 1])
def test_lut_to_sparse_to_dense(vector_axis: int | None) -> None:
    mask, data = sparse(2)
    lut = generator.normal(size=(2, 1, 4, 1 if vector_axis is None else 2)).astype(np.float32)
    more = {} if vector_axis is None else {"vector_axis": vector_axis}

    def build() -> Any:
        parts = mb.constexpr_lut_to_sparse(indices_mask=mask, indices_nonzero_data=data, lut=lut, **more)
        return mb.constexpr_sparse_to_dense(mask=parts[0], nonzero_data=parts[1])

    check("iOS18", build)


def test_sparse_blockwise_shift_scale_to_dense() -> None:
    mask, _ = sparse(1)
    data = generator.integers(-8, 8, int(np.sum(mask == 1))).astype(np.int8)
    scale = generator.random((2, 6)).astype(np.float16)
    offset = generator.integers(-8, 8, (2, 6)).astype(np.int8)

    def build() -> Any:
        parts = mb.constexpr_sparse_blockwise_shift_scale(data_mask=mask, nonzero_data=data, scale=scale, offset=offset)
        return mb.constexpr_sparse_to_dense(mask=parts[0], nonzero_data=parts[1])

    check("iOS18", build)


def test_scale_of_a_lut() -> None:
    indices = generator.integers(0, 4, (4, 6)).astype(unsigned(2))
    lut = generator.integers(-100, 100, (1, 1, 4, 1)).astype(np.int8)
    scale = generator.random((4, 1)).astype(np.float16)

    def build() -> Any:
        dense = mb.constexpr_lut_to_dense(indices=indices, lut=lut)
        return mb.constexpr_blockwise_shift_scale(data=dense, scale=scale)

    check("iOS18", build)


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int8", "uint8"])
@pytest.mark.parametrize("scales", [(1, 1), (24, 1), (24, 8), (1, 64), (3, 64)])
@pytest.mark.parametrize("has_offset", [True, False])
def test_weights_stay_quantized(dtype: str, scales: tuple[int, int], has_offset: bool) -> None:
    kind: Any = mil_types.nptype_from_builtin(mil_types.string_to_builtin(dtype))
    data = generator.integers(0, 8, (24, 64)).astype(kind)
    more = {"offset": generator.integers(0, 8, scales).astype(kind)} if has_offset else {}
    scale = generator.random(scales).astype(np.float32)

    def build(given: Any) -> Any:
        weight = mb.constexpr_blockwise_shift_scale(data=data, scale=scale, **more)
        return mb.linear(x=given.x, weight=weight)

    x = generator.normal(size=(2, 64)).astype(np.float32)
    package = make_package(build, {"x": x}, "iOS18")
    dense, kept = raise_function(package), raise_function(package, keep_quantized=True)
    checker: Any = onnx.checker
    checker.check_model(kept, full_check=True)
    assert "DequantizeLinear" in {node.op_type for node in kept.graph.node}
    assert kept.ByteSize() < dense.ByteSize() * 0.6
    np.testing.assert_allclose(_run(kept, x), _run(dense, x), atol=1e-5)


@pytest.mark.parametrize(("bits", "blocks"), [(4, 1), (6, 1), (8, 1), (4, 6), (2, 24)])
def test_palettes_stay_palettes(bits: int, blocks: int) -> None:
    kind: Any = mil_types.nptype_from_builtin(mil_types.string_to_builtin(f"uint{bits}"))
    indices = generator.integers(0, 1 << bits, (24, 256)).astype(kind)
    lut = generator.normal(size=(blocks, 1, 1 << bits, 1)).astype(np.float32)

    def build(given: Any) -> Any:
        return mb.linear(x=given.x, weight=mb.constexpr_lut_to_dense(indices=indices, lut=lut))

    x = generator.normal(size=(2, 256)).astype(np.float32)
    package = make_package(build, {"x": x}, "iOS18")
    kept = raise_function(package, keep_quantized=True)
    checker: Any = onnx.checker
    checker.check_model(kept, full_check=True)
    assert kept.ByteSize() < raise_function(package).ByteSize() * 0.4
    rows = lut[:, 0, :, 0].repeat(24 // blocks, axis=0)
    dense = np.take_along_axis(rows, indices.astype(np.int64), axis=1)
    np.testing.assert_allclose(_run(kept, x), x @ dense.T, atol=1e-4)


def test_weights_that_onnx_has_no_form_for_become_dense() -> None:
    data, scale = np.ones((24, 64), np.int8), generator.random((3, 8)).astype(np.float32)
    package = make_package(
        lambda given: mb.add(x=given.x, y=mb.constexpr_blockwise_shift_scale(data=data, scale=scale)),
        {"x": np.zeros((24, 64), np.float32)},
        "iOS18",
    )
    model = raise_function(package, keep_quantized=True)
    assert [node.op_type for node in model.graph.node] == ["Add"]


def test_weights_that_are_too_few_are_refused() -> None:
    package = make_package(
        lambda given: mb.add(x=given.x, y=mb.constexpr_sparse_to_dense(
            nonzero_data=np.ones(4, np.float32), mask=np.array([15], np.uint8), shape=np.array([8], np.uint32)
        )),
        {"x": np.zeros(8, np.float32)},
        "iOS16",
    )  # fmt: skip
    operations = tuple(_claiming(each, 1 << 31) for each in package.function().block.operations)
    function = replace(package.function(), block=replace(package.function().block, operations=operations))
    with pytest.raises(InvalidArgumentError, match=r"'mask' has 1 bytes; shape \[2147483648\] of 1 bits takes 26843"):
        raise_function(Program({"main": function}))


def _claiming(operation: Operation, size: int) -> Operation:
    """The operation, with another size in its shape."""
    if not operation.op.startswith("constexpr"):
        return operation
    shape = Constant(np.array([size], np.uint32), DType.UINT32)
    inputs = {name: each for name, each in operation.inputs.items() if name != "shape"}
    return replace(operation, inputs=inputs, attributes={**operation.attributes, "shape": shape})


def _run(model: Any, x: Array) -> Array:
    library: Any = onnxruntime
    options = library.SessionOptions()
    # ONNX Runtime's optimizer would quantize x, too.
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = library.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def program_of(operations: list[Operation]) -> Program:
    """A program of such operations, whose output is the value of the last one."""
    block = Block((), tuple(operations), (operations[-1].name,))
    return Program({"main": Function("main", (), "CoreML8", block)})


def looked_up(name: str, indices: Constant, lut: Constant, shape: tuple[int, ...]) -> Operation:
    axis = Constant(np.array(0, np.int32), DType.INT32)
    inputs = {"indices": (indices,), "lut": (lut,), "vector_axis": (axis,)}
    return Operation("constexpr_lut_to_dense", inputs, (Output(name, TensorType(DType.FP32, shape)),))


def test_a_small_look_up_table_of_long_entries_is_refused_before_it_is_looked_up() -> None:
    # 64 KiB of indices with a bit each, of entries of 1 KiB, are 512 MiB.
    indices = Constant(Packed(np.zeros(1 << 16, np.uint8), 1, False, (1 << 19,)), DType.UINT1)
    lut = Constant(np.ones((1, 2, 256), np.float32), DType.FP32)
    program = program_of([looked_up("w", indices, lut, (1 << 27,))])
    with pytest.raises(UnsupportedError, match=r"operation 'w'.*constants of 67588 bytes become 537919488 bytes"):
        raise_function(program)


def test_one_constant_in_many_names_is_refused() -> None:
    stored = np.ones(1 << 20, np.float32)
    kind = TensorType(DType.FP32, stored.shape)
    made = [
        Operation("const", {}, (Output(f"w{each}", kind),), (), {"val": Constant(stored, DType.FP32)})
        for each in range(400)
    ]
    sums = [
        Operation("add", {"x": (Name("w0"),), "y": (Name(f"w{each}"),)}, (Output(f"y{each}", kind),))
        for each in range(400)
    ]
    with pytest.raises(UnsupportedError, match=f"constants of {stored.nbytes} bytes become"):
        raise_function(program_of([*made, *sums]))


def test_weights_of_one_bit_are_not_too_much() -> None:
    indices = Constant(Packed(np.zeros(1 << 16, np.uint8), 1, False, (1 << 19,)), DType.UINT1)
    lut = Constant(np.ones((1, 2, 4), np.float32), DType.FP32)
    operations = [looked_up(f"w{each}", indices, lut, (1 << 21,)) for each in range(2)]
    model = raise_function(program_of(operations))
    assert [tuple(each.dims) for each in model.graph.initializer] == [(1 << 21,)]
