"""Devices, model structures and compute plans: each rule of the prediction, on real programs."""

from collections.abc import Callable
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.models.compute_device import (
    MLComputeDevice,
    MLCPUComputeDevice,
    MLGPUComputeDevice,
    MLNeuralEngineComputeDevice,
)
from coremltools.models.compute_plan import MLComputePlan, MLModelStructure

from triune.core.units import Unit
from triune.coreml.anywhere.placement import place, refusal, values_of
from triune.coreml.package import read_specification

HALF = np.float16


def test_devices_cannot_be_taken_for_real_ones() -> None:
    devices = MLComputeDevice.get_all_compute_devices()
    assert [type(each).__mro__[1] for each in devices] == [
        MLCPUComputeDevice,
        MLGPUComputeDevice,
        MLNeuralEngineComputeDevice,
    ]
    assert [str(each) for each in devices] == [
        "CPU (Triune)",
        "GPU (emulated by Triune)",
        "Neural Engine (emulated by Triune)",
    ]
    assert devices[2].total_core_count == 16
    assert len(ct.models.MLModel.get_available_compute_devices()) == 3


def test_the_structure_shows_all_operations(layers: Any) -> None:
    structure = MLModelStructure.load_from_path(layers.get_compiled_model_path())
    assert structure.neuralnetwork is None
    assert structure.pipeline is None
    main = structure.program.functions["main"]
    assert [each.name for each in main.inputs] == ["x"]
    assert main.block.output_names == ["y"]
    operations = {each.operator_name: each for each in main.block.operations}
    assert {"cast", "linear", "relu", "softmax"} <= operations.keys()
    linear = operations["linear"]
    assert set(linear.inputs) >= {"x", "weight"}
    assert all(binding.name for argument in linear.inputs.values() for binding in argument.bindings)


def test_plans_of_all_units(layers: Any) -> None:
    path = layers.get_compiled_model_path()
    want = {
        ct.ComputeUnit.CPU_ONLY: [MLCPUComputeDevice],
        ct.ComputeUnit.CPU_AND_GPU: [MLGPUComputeDevice, MLCPUComputeDevice],
        ct.ComputeUnit.CPU_AND_NE: [MLNeuralEngineComputeDevice, MLCPUComputeDevice],
        ct.ComputeUnit.ALL: [MLNeuralEngineComputeDevice, MLGPUComputeDevice, MLCPUComputeDevice],
    }
    for units, classes in want.items():
        plan = MLComputePlan.load_from_path(path, units)
        (linear,) = (
            each
            for each in plan.model_structure.program.functions["main"].block.operations
            if each.operator_name == "linear"
        )
        usage = plan.get_compute_device_usage_for_mlprogram_operation(linear)
        assert isinstance(usage.preferred_compute_device, classes[0])
        assert [type(each).__mro__[1] for each in usage.supported_compute_devices] == classes


def test_costs_are_shares_of_the_work(layers: Any) -> None:
    path = layers.get_compiled_model_path()
    plan = MLComputePlan.load_from_path(path)
    costs: dict[str, float] = {}
    # The same operations, read another time.
    for each in MLModelStructure.load_from_path(path).program.functions["main"].block.operations:
        cost = plan.get_estimated_cost_for_mlprogram_operation(each)
        assert (cost is None) == (each.operator_name == "const")
        if cost is not None:
            costs[each.operator_name] = costs.get(each.operator_name, 0) + cost.weight
    assert sum(costs.values()) == pytest.approx(1)
    assert max(costs, key=lambda name: costs[name]) == "linear"


def build(program: Callable[..., Any], *specs: Any) -> Any:
    """A program whose last operation is what a check is about, in fp16 where it is of floats."""
    made = mb.program(input_specs=list(specs), opset_version=ct.target.iOS18)(program)
    passes = ct.PassPipeline.EMPTY
    model = ct.convert(
        made,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
        pass_pipeline=passes,
        skip_model_load=True,
    )
    package = read_specification(model.get_spec(), model.weights_dir)
    return package.function()


X = mb.TensorSpec((1, 8, 16, 16), dtype=types.fp16)
FLAT = mb.TensorSpec((2, 40000), dtype=types.fp16)
WHOLE = mb.TensorSpec((4,), dtype=types.int32)
REFUSED: dict[str, tuple[str, Callable[..., Any], tuple[Any, ...]]] = {
    "integers": ("add of int32", lambda i: mb.add(x=i, y=i), (WHOLE,)),
    "fp32": ("it computes in fp16", lambda x: mb.relu(x=mb.cast(x=x, dtype="fp32")), (X,)),
    "argmax": ("reduce_argmax", lambda x: mb.reduce_argmax(x=x, axis=1), (X,)),
    "never": ("cumsum does not run there", lambda x: mb.cumsum(x=x, axis=1), (X,)),
    "gather": ("indices that are computed", lambda x, i: mb.gather(x=x, indices=i, axis=1), (X, WHOLE)),
    "slice": (
        "a begin that is computed",
        lambda x, i: mb.slice_by_size(x=x, begin=i, size=[1, 1, 2, 2]),
        (X, WHOLE),
    ),
    "conv": ("a kernel of 16", lambda x: mb.conv(x=x, weight=np.ones((2, 8, 1, 16), HALF)), (X,)),
    "pool": (
        "a window of 9",
        lambda x: mb.max_pool(x=x, kernel_sizes=[9, 9], strides=[1, 1], pad_type="valid"),
        (X,),
    ),
    "matmul": ("inner dimension of 40000", lambda x: mb.matmul(x=x, y=x, transpose_y=True), (FLAT,)),
    "wide": ("a dimension of 80000", lambda x: mb.reshape(x=x, shape=[1, 80000]), (FLAT,)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_neural_engine_refuses(name: str) -> None:
    reason, program, specs = REFUSED[name]
    function = build(program, *specs)
    operation = [each for each in function.block.operations if each.op not in ("const", "cast")][-1]
    values = values_of(function)
    assert reason in refusal(operation, values)
    assert place(operation, values, "CPU_AND_NE").preferred is Unit.CPU
    assert place(operation, values, "ALL").preferred is Unit.GPU


TAKEN: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "gather": (lambda x: mb.gather(x=x, indices=np.array([1, 2], np.int32), axis=1), (X,)),
    "conv": (lambda x: mb.conv(x=x, weight=np.ones((2, 8, 15, 15), HALF)), (X,)),
    "pool": (lambda x: mb.max_pool(x=x, kernel_sizes=[8, 8], strides=[1, 1], pad_type="valid"), (X,)),
    "slice": (lambda x: mb.slice_by_index(x=x, begin=[0, 0, 0, 0], end=[1, 2, 3, 4]), (X,)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_the_neural_engine_takes(name: str) -> None:
    program, specs = TAKEN[name]
    function = build(program, *specs)
    operation = [each for each in function.block.operations if each.op not in ("const", "cast")][-1]
    assert refusal(operation, values_of(function)) == ""


def test_states_and_control_flow_are_not_for_the_neural_engine(counter: Any) -> None:
    function = read_specification(counter.get_spec(), counter.weights_dir).function()
    values = values_of(function)
    reasons = {each.op: refusal(each, values) for each in function.block.operations}
    assert reasons["read_state"] == "states do not run there"

    def choose(x):
        flag = mb.greater(x=mb.reduce_max(x=x, axes=[0, 1, 2, 3]), y=HALF(1))
        return mb.cond(pred=flag, _true_fn=lambda: mb.relu(x=x), _false_fn=lambda: mb.tanh(x=x))

    function = build(choose, X)
    (branch,) = (each for each in function.block.operations if each.op == "cond")
    assert place(branch, values_of(function), "ALL").supported == (Unit.CPU,)


def test_nested_operations_are_in_the_plan() -> None:
    @mb.program(input_specs=[mb.TensorSpec((2, 2))])
    def program(x):
        flag = mb.greater(x=mb.reduce_max(x=x, axes=[0, 1]), y=1.0)
        return mb.cond(pred=flag, _true_fn=lambda: mb.exp(x=x), _false_fn=lambda: mb.tanh(x=x), name="y")

    model = ct.convert(program, convert_to="mlprogram")
    plan = MLComputePlan.load_from_path(model.get_compiled_model_path())
    (branch,) = (
        each for each in plan.model_structure.program.functions["main"].block.operations if each.operator_name == "cond"
    )
    inner = {each.operator_name: each for block in branch.blocks for each in block.operations}
    assert {"exp", "tanh"} <= inner.keys()
    assert plan.get_compute_device_usage_for_mlprogram_operation(inner["exp"]) is not None
    assert plan.get_estimated_cost_for_mlprogram_operation(inner["tanh"]).weight > 0
