"""Model repositories of real ONNX files, and a runtime based on ONNX's reference evaluator that records its calls."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from support.graphs import model_of
from triune.backends.machine_backend import Shared
from triune.config.settings import DEFAULT_SETTINGS, ModelSettings
from triune.core.clock import Clock, MonotonicClock
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.requests import Parameter
from triune.core.runtime import NO_OPTIONS
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Presence, Unit, UnitStatus
from triune.repository.memory.meter import LoadMeter
from triune.repository.repository import Repository
from triune.repository.settings import ControlMode, RepositorySettings
from triune.runtimes.machine import Machine
from triune.runtimes.onnx.rows import rows_of
from triune.scheduling.models import LoadedVersion

FP32, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def affine(
    scale: float = 2.0, shape: Sequence[int | str | None] = ("batch", 4), *, inputs: str = "x", outputs: str = "y"
) -> bytes:
    """A model that computes y = scale * x."""
    graph = helper.make_graph(
        [helper.make_node("Mul", [inputs, "scale"], [outputs])],
        "affine",
        [helper.make_tensor_value_info(inputs, FP32, shape)],
        [helper.make_tensor_value_info(outputs, FP32, shape)],
        [helper.make_tensor("scale", FP32, [], [scale])],
    )
    return _bytes(graph)


def add_sub(datatype: int = TensorProto.INT32, shape: Sequence[int | str] = ("batch", 16)) -> bytes:
    """Triton's `simple`: the sum and the difference of two inputs."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        "simple",
        [helper.make_tensor_value_info(name, datatype, shape) for name in ("INPUT0", "INPUT1")],
        [helper.make_tensor_value_info(name, datatype, shape) for name in ("OUTPUT0", "OUTPUT1")],
    )
    return _bytes(graph)


def identity(datatype: int, shape: Sequence[int | str]) -> bytes:
    """A model that computes y = x."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", datatype, shape)],
        [helper.make_tensor_value_info("y", datatype, shape)],
    )
    return _bytes(graph)


def scaled_by_scalar() -> bytes:
    """A model that computes y = x * rate, with a scalar second input and no batch dimension, like silero-vad."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "rate"], ["y"])],
        "rated",
        [helper.make_tensor_value_info("x", FP32, [2, "n"]), helper.make_tensor_value_info("rate", FP32, [])],
        [helper.make_tensor_value_info("y", FP32, [2, "n"])],
    )
    return _bytes(graph)


_ZEROS = "{ data_type: TYPE_FP32 dims: 4 zero_data: true }"
WARM_UP = f'model_warmup {{ name: "w" batch_size: 1 inputs {{ key: "x" value {_ZEROS} }} }}'
"""Of a model of one input x of FP32 rows."""


def counting() -> bytes:
    """A model that computes y = n by n iterations of a Loop, so that the value of its input determines how long it
    runs.
    """
    return model_of(
        """g (int64[1] n) => (int64[1] y) <int64[1] one = {1}, int64[1] zero = {0}> {
        turns = Squeeze(n)
        y = Loop(turns, , zero) <body = b (int64 i, bool go, int64[1] a) => (bool still, int64[1] c)
            { still = Identity(go)  c = Add(a, one) }> }""",
        opset=17,
    ).SerializeToString()


def ending_itself() -> bytes:
    """A model that crashes ONNX Runtime's first run with SIGABRT: it counts pairs with one more index than its table
    has entries.
    """
    return model_of(
        """g (int64[b,4] x) => (float[b,7] y) {
        y = TfIdfVectorizer<mode = "TF", min_gram_length = 2, max_gram_length = 2, max_skip_count = 0,
                            ngram_counts = [0, 4], ngram_indexes = [0, 1, 2, 3, 4, 5, 6],
                            pool_int64s = [2, 3, 5, 4, 5, 6, 7, 8, 6, 7, 1, 1]>(x) }""",
        opset=17,
    ).SerializeToString()


def turning(num_turns: int) -> bytes:
    """A model that computes y = x after `num_turns` iterations of a Loop. With 2**62 iterations it never ends."""
    return model_of(
        f"""g (float[b,n] x) => (float[b,n] y) <float[1] one = {{1}}, int64 turns = {{{num_turns}}}> {{
        y = Loop(turns, , x) <body = t (int64 i, bool go, float[b,n] a) => (bool still, float[b,n] c)
            {{ still = Identity(go)  c = Mul(a, one) }}> }}""",
        opset=17,
    ).SerializeToString()


def _bytes(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def write_model(repository: Path, name: str, config: str | None = None, **versions: bytes) -> Path:
    """Write a model's folder: `write_model(path, "m", "max_batch_size: 4", v1=affine())`."""
    folder = repository / name
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    for version, content in versions.items():
        version_folder = folder / version.removeprefix("v")
        version_folder.mkdir(exist_ok=True)
        (version_folder / "model.onnx").write_bytes(content)
    return folder


class ReferenceRuntime:
    """A runtime that computes with ONNX's reference evaluator. On `amx` it rounds to bfloat16's 8 bits, so that there
    is an error to measure.
    """

    default_filenames = ("model.onnx",)
    option_names = ("level",)

    def __init__(self, name: str = "onnxruntime", units: Sequence[Unit] = (Unit.CPU,)) -> None:
        self.name = name
        self.loads: list[tuple[Path, Unit, int, dict[str, Parameter]]] = []
        self.executables: list[ReferenceExecutable] = []
        self.on_load: Callable[[Path], object] = lambda _: None
        self.on_run: Callable[[], object] = lambda: None
        self._units = tuple(units)

    def units(self) -> Sequence[Unit]:
        return self._units

    @property
    def num_open(self) -> int:
        return sum(not each.is_closed for each in self.executables)

    def inspect(self, path: Path, options: Mapping[str, Parameter] = NO_OPTIONS) -> Signature:
        try:
            model = onnx.load(path)
        except Exception as error:
            raise InvalidArgumentError(f"{path.name} is not an ONNX model: {error}") from error
        initializers = {each.name for each in model.graph.initializer}
        inputs = tuple(_spec(each, each.name in initializers) for each in model.graph.input)
        outputs = tuple(_spec(each, False) for each in model.graph.output)
        return Signature(inputs, outputs, rows=rows_of(model, inputs, outputs))

    def load(
        self, path: Path, *, unit: Unit, num_threads: int, options: Mapping[str, Parameter]
    ) -> "ReferenceExecutable":
        if unit not in self._units:
            raise UnsupportedError(f"{self.name} has no {unit.value}")
        if set(options) - {"level"}:
            raise InvalidArgumentError(f"unknown option {sorted(set(options) - {'level'})[0]}")
        self.on_load(path)
        self.loads.append((path, unit, num_threads, dict(options)))
        executable = ReferenceExecutable(self.inspect(path), unit, ReferenceEvaluator(onnx.load(path)))
        executable.on_run = lambda: self.on_run()
        self.executables.append(executable)
        return executable


class ReferenceExecutable:
    def __init__(self, signature: Signature, unit: Unit, evaluator: ReferenceEvaluator) -> None:
        self.signature = signature
        self.unit = unit
        self.precision = "fp32" if unit is Unit.CPU else "bf16"
        self.is_steady = True
        self.report = ""
        self.is_closed = False
        self.runs: list[dict[str, Array]] = []
        self.on_run: Callable[[], object] = lambda: None
        self._evaluator = evaluator

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        assert not self.is_closed, "run after close"
        self.runs.append(dict(inputs))
        self.on_run()
        for spec in self.signature.inputs:
            array = inputs[spec.name]
            fits = array.ndim == len(spec.shape) and all(
                dim in (-1, size) for dim, size in zip(spec.shape, array.shape, strict=True)
            )
            if not fits or array.dtype != spec.datatype.dtype:
                raise InvalidArgumentError(f"input {spec.name} is {array.shape}, expected {spec.shape}")
        arrays = dict(zip(outputs, self._evaluator.run(list(outputs), dict(inputs)), strict=True))
        if self.unit is not Unit.CPU:
            arrays = {name: _rounded(array) for name, array in arrays.items()}
        return arrays

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        assert not self.is_closed, "closed twice"
        self.is_closed = True


def _rounded(array: Array) -> Array:
    if array.dtype != np.float32:
        return array
    return (array.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _spec(value: onnx.ValueInfoProto, is_optional: bool) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    datatype = DataType.BYTES if tensor.elem_type == STRING else DataType(_KSERVE[dtype.name])
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    axes = tuple(dim.dim_param or None for dim in tensor.shape.dim)
    return TensorSpec(value.name, datatype, shape, axes, is_optional=is_optional)


_KSERVE = {
    "float32": "FP32",
    "float16": "FP16",
    "float64": "FP64",
    "int64": "INT64",
    "int32": "INT32",
    "uint8": "UINT8",
    "bool": "BOOL",
    "bfloat16": "BF16",
}

ALL_UNITS = (
    UnitStatus(Unit.CPU, Presence.PRESENT, "a CPU"),
    UnitStatus(Unit.AMX, Presence.PRESENT, "its tiles"),
    UnitStatus(Unit.GPU, Presence.ABSENT, reason="no Metal here"),
    UnitStatus(Unit.ANE, Presence.ABSENT, reason="no Neural Engine here"),
)


class NoModels:
    """A server without models."""

    def get(self, name: str, version: int | None = None) -> LoadedVersion:
        raise NotFoundError(f"there is no '{name}'")


class Bench:
    """Two runtimes, and a machine with `cpu` and `amx` but no `gpu`."""

    def __init__(self, num_cores: int = 8) -> None:
        self.onnxruntime = ReferenceRuntime()
        self.openvino = ReferenceRuntime("openvino", (Unit.AMX, Unit.CPU))
        self.runtimes = {"onnxruntime": self.onnxruntime, "openvino": self.openvino}
        self.machine = Machine(self.runtimes, ALL_UNITS, num_cores)

    @property
    def num_open(self) -> int:
        """The number of executables that were not closed."""
        return self.onnxruntime.num_open + self.openvino.num_open

    def repository(
        self,
        *folders: Path,
        mode: ControlMode = ControlMode.NONE,
        clock: Clock | None = None,
        trials: Path | None = None,
        verdicts: Path | None = None,
        models: ModelSettings = DEFAULT_SETTINGS,
        meter: LoadMeter | None = None,
        **options: Any,
    ) -> Repository:
        settings = RepositorySettings(folders, control_mode=mode, models=models, **options)
        return Repository(
            settings,
            self.machine,
            clock or MonotonicClock(),
            trials=trials,
            shared=Shared(verdicts=verdicts),
            meter=meter,
        )
