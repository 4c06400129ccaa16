"""coremltools' benchmarking and debugging utilities, and calibration, which need predictions."""

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.models.compute_device import MLCPUComputeDevice
from coremltools.models.ml_program.experimental.compute_plan_utils import _MLComputePlanRemoteProxy
from coremltools.models.ml_program.experimental.debugging_utils import MLModelInspector, MLModelValidator
from coremltools.models.ml_program.experimental.model_structure_path import map_model_structure_to_path
from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker
from coremltools.models.ml_program.experimental.remote_device import ComputePlan

X = np.array([[1, -2, 3, 0.5]], np.float32)


async def test_benchmarks(package: Path) -> None:
    benchmarker = MLModelBenchmarker(ct.models.MLModel(str(package), compute_units=ct.ComputeUnit.CPU_ONLY))
    loads = await benchmarker.benchmark_load(iterations=2)
    assert len(loads.samples) == 2
    assert loads.statistics.minimum > 0
    predictions = await benchmarker.benchmark_predict(iterations=3, warmup=True)
    assert len(predictions.samples) == 3
    assert predictions.statistics.minimum > 0
    operations = await benchmarker.benchmark_operation_execution(iterations=2)
    measured = {each.spec.type: each for each in operations if each.measurement.samples}
    assert isinstance(measured["linear"].compute_device_usage.preferred_compute_device, MLCPUComputeDevice)
    assert operations[0].spec.type == "linear"


async def test_the_inspector_sees_what_is_inside(layers: Any) -> None:
    inspector = MLModelInspector(layers)
    seen = {name: value async for name, value in inspector.inspect({"x": X})}
    weight = np.linspace(-1, 1, 2048 * 4, dtype=np.float32).reshape(2048, 4)
    (product,) = (value for name, value in seen.items() if inspector.output_name_to_op_map[name].type == "linear")
    np.testing.assert_allclose(product, X @ weight.T, rtol=1e-2, atol=1e-2)


async def test_the_validator_finds_what_overflows() -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(2,))])
    def program(x):
        return mb.relu(x=mb.square(x=mb.mul(x=x, y=300.0), name="too_large"), name="y")

    model = ct.convert(program, convert_to="mlprogram")
    failing = await MLModelValidator(model).find_failing_ops_with_infinite_output({"x": np.array([1.0, 2.0])})
    assert [each.outputs[0].name.split("_cast")[0] for each in failing] == ["too_large"]


def test_remote_proxies_derive_from_the_module(layers: Any) -> None:
    plan = ct.models.compute_plan.MLComputePlan.load_from_path(layers.get_compiled_model_path())
    structure = plan.model_structure
    path_of = {id(each): path for each, path in map_model_structure_to_path(model_structure=structure)}
    (linear,) = (
        each for each in structure.program.functions["main"].block.operations if each.operator_name == "linear"
    )
    usage = ComputePlan.DeviceUsage(ComputePlan.NeuralEngineDevice(16), [ComputePlan.CPUDevice()])
    info = ComputePlan.OperationOrLayerInfo(path=path_of[id(linear)], device_usage=usage, estimated_cost=0.5)
    proxy = _MLComputePlanRemoteProxy(None, ComputePlan({path_of[id(linear)]: info}), structure)
    remote = ct.models.compute_plan.MLComputePlan(proxy)
    assert remote.get_estimated_cost_for_mlprogram_operation(linear).weight == 0.5
    preferred = remote.get_compute_device_usage_for_mlprogram_operation(linear).preferred_compute_device
    # What a real device reports is not ours to relabel.
    assert preferred.__proxy__.total_core_count == 16


@pytest.mark.filterwarnings("ignore")
def test_activations_are_calibrated(layers: Any) -> None:
    import coremltools.optimize.coreml as cto

    config = cto.OptimizationConfig(global_config=cto.experimental.OpActivationLinearQuantizerConfig())
    samples = [{"x": np.random.default_rng(seed).normal(size=(1, 4)).astype(np.float32)} for seed in range(3)]
    quantized = cto.experimental.linear_quantize_activations(layers, config, samples)
    operations = quantized.get_spec().mlProgram.functions["main"].block_specializations["CoreML7"].operations
    assert "quantize" in [each.type for each in operations]
    np.testing.assert_allclose(quantized.predict({"x": X})["y"], layers.predict({"x": X})["y"], atol=2e-2)
