"""The zoo's models brought to core ops and narrow types, and MiniLM as it is served on `ane`, compute what they did."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto

from support.lowered import plain_answers
from support.real_models import NAMES, inputs_of
from triune.core.datatypes import Array
from triune.core.units import Presence, Unit, UnitStatus
from triune.coreml.package import read_package
from triune.graph.load import load
from triune.graph.normalize import foreign_ops, normalize
from triune.graph.passes.narrow import Narrow
from triune.graph.passes.narrow_values import narrow_array
from triune.graph.precision import TOLERANCES
from triune.graph.weight_files import with_data
from triune.runtimes import missing
from triune.runtimes.compiled_cache import CompiledCache
from triune.runtimes.coreml import CoreMl
from triune.runtimes.coreml.conversion import convert_here
from triune.runtimes.mlx import Mlx


def run(model: ModelProto, inputs: dict[str, Array]) -> list[Array]:
    # ONNX Runtime 1.32 has no kernel for version 28 of DequantizeLinear, which differs from 25 in its types alone.
    model = with_data(model)
    for opset in model.opset_import:
        opset.version = min(opset.version, 25)
    return plain_answers(model, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_normalized_and_narrowed_models_compute_the_same(models: Path, name: str) -> None:
    model, inputs = load(models / name / "1" / "model.onnx"), dict(inputs_of(name))
    expected = run(model, inputs)
    normal = normalize(model)
    assert foreign_ops(normal) == []
    for actual, right in zip(run(normal, inputs), expected, strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-4, atol=2e-5)
    narrow = {key: narrow_array(key, array) for key, array in inputs.items()}
    for actual, right in zip(run(Narrow()(normal), narrow), expected, strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("precision", ["source", "bf16", "fp16"])
@pytest.mark.parametrize("name", NAMES)
def test_mlx_computes_what_onnx_runtime_does(models: Path, name: str, precision: str, stride: int) -> None:
    if reason := missing().get("mlx"):
        pytest.skip(reason)
    if stride > 1 and precision != "source" and name not in ("minilm", "silero_vad"):
        pytest.skip("make conformance compares all models in all precisions")
    path = models / name / "1" / "model.onnx"
    executable = Mlx([UnitStatus(Unit.GPU, Presence.EMULATED, reason="for a test")]).load(
        path, unit=Unit.GPU, num_threads=1, options={"mlx.precision": precision}
    )
    expected = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, dict(inputs_of(name)))
    names = [spec.name for spec in executable.signature.outputs]
    found = executable.run(inputs_of(name), names)
    for each, right in zip(found.values(), expected, strict=True):
        tolerance = 2e-5 if precision == "source" else TOLERANCES[precision]
        np.testing.assert_allclose(each, right, rtol=0, atol=tolerance * np.abs(right).max())


def test_minilm_on_the_emulated_neural_engine(models: Path, tmp_path: Path) -> None:
    """In the Neural Engine's layout and in fp16, with rows and steps free: what ONNX Runtime computes in fp32."""
    units = (UnitStatus(Unit.CPU, Presence.PRESENT), UnitStatus(Unit.ANE, Presence.EMULATED, reason="no Mac"))
    path = models / "minilm" / "1" / "model.onnx"
    source = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    shapes = ";".join(f"{each.name}=1..4,1..128" for each in source.get_inputs())
    runtime = CoreMl(units, CompiledCache(tmp_path), convert=convert_here)
    executable = runtime.load(path, unit=Unit.ANE, num_threads=2, options={"coreml.shapes": shapes})
    (package,) = tmp_path.glob("*.mlpackage")
    ops = [operation.op for operation in read_package(package).function().block.operations]
    # 6 layers of 6 linear layers, and of 2 products for each of 12 heads.
    assert (ops.count("conv"), ops.count("einsum"), ops.count("linear")) == (36, 144, 0)
    names = [each.name for each in source.get_outputs()]
    for length in (12, 100):
        inputs = dict(inputs_of("minilm", length=length))
        expected = dict(zip(names, source.run(names, inputs), strict=True))
        found = executable.run(inputs, names)
        largest = np.abs(expected["last_hidden_state"]).max()
        np.testing.assert_allclose(found["last_hidden_state"], expected["last_hidden_state"], atol=largest * 5e-3)
        # Embeddings of length 1, and of as good as length 1 in fp16.
        ours, theirs = found["sentence_embedding"], expected["sentence_embedding"]
        assert np.all(np.sum(ours * theirs, axis=1) / np.linalg.norm(ours, axis=1) > 0.99999)
