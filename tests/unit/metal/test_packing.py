"""Weights of few bits: MLX multiplies by them packed where its groups fit, and by their numbers elsewhere."""

from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from support.packed_models import FORMS, packed_model, x_of
from triune.graph.packed import small_tensor
from triune.metal import packing
from triune.metal.function import Function
from triune.metal.lower import lower
from triune.metal.packing import Quantized


def answers(model: ModelProto, inputs: dict[str, Any]) -> list[Any]:
    """ONNX Runtime's answers, without the optimizations that round activations to 8 bits."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
        None, inputs
    )


TYPES = {"int8": (-128, 128), "uint8": (0, 256), "int4": (-8, 8), "uint4": (0, 16)}


def model_of_blocks(kind: str, block: int, rows: int, columns: int, *, has_zeros: bool) -> ModelProto:
    """`x` [n, columns] times the transpose of packed weights [rows, columns]."""
    rng = np.random.default_rng(block)
    elem_type, limits = getattr(TensorProto, kind.upper()), TYPES[kind]
    shape = (rows, columns // block)
    constants = [
        small_tensor("q", elem_type, rng.integers(*limits, (rows, columns))),
        numpy_helper.from_array(rng.uniform(0.01, 0.1, shape).astype(np.float32), "s"),
    ]
    if has_zeros:
        constants.append(small_tensor("z", elem_type, rng.integers(*limits, shape)))
    nodes = [
        helper.make_node("DequantizeLinear", [each.name for each in constants], ["w"], axis=1, block_size=block),
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("x", columns), ("y", rows))
    )
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("block", [32, 64, 128, 256])
@pytest.mark.parametrize("has_zeros", [True, False])
def test_blocks_stay_packed_and_mean_the_same(kind: str, block: int, *, has_zeros: bool) -> None:
    model = model_of_blocks(kind, block, 48, 256, has_zeros=has_zeros)
    program = lower(model)
    assert program.num_packed == 1
    x = np.random.default_rng(1).standard_normal((3, 256)).astype(np.float32)
    (found,), (right,) = Function(program)({"x": x}, ["y"]), answers(model, {"x": x})
    np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-4)


def test_packed_weights_that_others_read_too_are_numbers_for_these() -> None:
    model = model_of_blocks("uint8", 32, 48, 256, has_zeros=True)
    model.graph.node.append(helper.make_node("ReduceMax", ["t"], ["largest"], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("largest", TensorProto.FLOAT, []))
    # The packed operand itself is an output, as well.
    model.graph.output.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, [256, 48]))
    program = lower(model)
    assert program.num_packed == 1
    x = np.random.default_rng(1).standard_normal((3, 256)).astype(np.float32)
    found, right = Function(program)({"x": x}, ["y", "largest", "t"]), answers(model, {"x": x})
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_blocks_that_no_group_of_mlx_fits_become_numbers() -> None:
    model = model_of_blocks("int4", 16, 48, 256, has_zeros=True)
    program = lower(model)
    assert program.num_packed == 0
    x = np.random.default_rng(1).standard_normal((3, 256)).astype(np.float32)
    (found,), (right,) = Function(program)({"x": x}, ["y"]), answers(model, {"x": x})
    np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_exporters_computes_the_same(form: Any) -> None:
    model, x = packed_model(form), x_of(form)
    (found,), (right,) = Function(lower(model))({"x": x}, ["y"]), answers(model, {"x": x})
    np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-4)


def test_on_a_gpu_with_free_memory_several_rows_are_multiplied_by_weights_of_16_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of_blocks("uint4", 32, 48, 256, has_zeros=True)
    x = np.random.default_rng(1).standard_normal((packing.FEWEST_ROWS, 256)).astype(np.float32)
    first = found_by_bf16(model, x)
    monkeypatch.setattr(packing, "is_nvidia", lambda: True)
    monkeypatch.setattr(packing, "FEWEST_WEIGHTS", 48 * 256)
    least = 48 * 256 * 2 * 4
    monkeypatch.setattr(mx, "device_info", lambda: {"free_memory": least - 1})
    assert all(each.matrix is None for each in packed_of(model))
    monkeypatch.setattr(mx, "device_info", lambda: {"free_memory": least})
    (weights,) = packed_of(model)
    assert weights.matrix.shape == (256, 48)
    assert weights.matrix.dtype == mx.bfloat16
    # Both ways multiply the same rounded weights, but add up in different orders.
    assert np.allclose(found_by_bf16(model, x), first, rtol=2e-2, atol=2e-2 * np.abs(first).max())
    few = mx.array(x[1:]).astype(mx.bfloat16)
    assert mx.array_equal(weights.product(few), replace(weights, matrix=None).product(few))
    monkeypatch.setattr(packing, "FEWEST_WEIGHTS", 48 * 256 + 1)
    assert all(each.matrix is None for each in packed_of(model))


def test_in_fp32_weights_are_packed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "is_nvidia", lambda: True)
    monkeypatch.setattr(packing, "FEWEST_WEIGHTS", 1)
    monkeypatch.setattr(mx, "device_info", lambda: {"free_memory": 1 << 40})
    program = lower(model_of_blocks("uint4", 32, 48, 256, has_zeros=True))
    assert [each.matrix for each in program._quantized.values()] == [None]


def packed_of(model: ModelProto) -> list[Quantized]:
    return list(lower(model, "bf16")._quantized.values())


def found_by_bf16(model: ModelProto, x: Any) -> Any:
    """The result in bf16 of several rows whose inputs are rounded to bf16 first."""
    program = lower(model, "bf16")
    (found,), _ = program({"x": mx.array(x).astype(mx.bfloat16)}, ["y"])
    return np.array(found.astype(mx.float32))
