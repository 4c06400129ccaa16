"""Intel's OpenVINO on the CPU: fp32 on `cpu`, bf16 on AMX tiles on `amx`. Backend "openvino".

Unlike ONNX Runtime, OpenVINO's CPU plugin computes integers in 32 bits, and some operators in fp32 (`whole_ranges` says
which), saturates 8-bit integers that overflow, and returns 0 for a Gather index out of range.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import ModelProto

from triune.core.datatypes import Array, DataType
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError, UnsupportedError, reworded
from triune.core.requests import Parameter
from triune.core.runtime import NO_OPTIONS, Executable
from triune.core.tensors import Signature
from triune.core.units import Unit, UnitStatus
from triune.graph.by_values import by_values
from triune.graph.crash_risk import fault_in
from triune.graph.exact_parts import MOST_EXACT
from triune.graph.faults import OPENVINO_FAULTS
from triune.graph.folded import folded_of
from triune.graph.load import external_data, has_external_data, locate_data, read_model
from triune.hosting import FAULT_LIMITS, HostedExecutable
from triune.runtimes.arrays import packed
from triune.runtimes.failures import reason_of, run_failure
from triune.runtimes.onnx.file import broken_part, read_signature
from triune.runtimes.openvino.library import library
from triune.runtimes.openvino.options import OPTION_NAMES, Settings, read_settings
from triune.runtimes.openvino.signed_activations import make_activations_signed
from triune.runtimes.openvino.whole_ranges import inputs_in_floats
from triune.runtimes.openvino.whole_sums import make_sums_exact
from triune.runtimes.served import openvino_units
from triune.runtimes.shared_models import SharedModels

_ELEMENT_TYPES = {
    DataType.BOOL: "boolean",
    DataType.UINT8: "u8",
    DataType.UINT16: "u16",
    DataType.UINT32: "u32",
    DataType.UINT64: "u64",
    DataType.INT8: "i8",
    DataType.INT16: "i16",
    DataType.INT32: "i32",
    DataType.INT64: "i64",
    DataType.FP16: "f16",
    DataType.FP32: "f32",
    DataType.BF16: "bf16",
}
"""The datatypes of the CPU plugin's inputs and outputs. FP64 is left out, since the plugin would compute it in fp32."""

_WIDE = frozenset({DataType.UINT32, DataType.UINT64, DataType.INT64})
_INT32 = np.iinfo(np.int32)


class OpenVino:
    """OpenVINO's CPU plugin. Options are those of Triton's OpenVINO backend: see `openvino.options`."""

    name = "openvino"
    option_names = OPTION_NAMES
    default_filenames = ("model.onnx",)

    def __init__(self, units: Sequence[UnitStatus], run_bytes: int | None = None) -> None:
        """Args:
        units: this machine's units, from `hardware.units.detect_units`.
        run_bytes: the memory limit of a run whose memory depends on the values of inputs; None sets no limit.
        """
        self._run_bytes = run_bytes
        self._statuses = {status.unit: status for status in units}
        self._core = library.Core()
        # Turn off the mapping of external weight files into memory: a write to such a file would change answers or
        # crash the process.
        self._core.set_property({"ENABLE_MMAP": False})
        # The file's weights are in memory once. Each executable has its own copy in the layout of its kernels.
        self._models = SharedModels(self._core.read_model)

    def __reduce__(self) -> tuple[type["OpenVino"], tuple[Sequence[UnitStatus], int | None]]:
        """Pickle the arguments only: another process makes its own OpenVINO core."""
        return OpenVino, (tuple(self._statuses.values()), self._run_bytes)

    def units(self) -> Sequence[Unit]:
        """`amx`, if this CPU has it, then `cpu`."""
        return openvino_units(tuple(self._statuses.values()))

    def inspect(self, path: Path, options: Mapping[str, Parameter] = NO_OPTIONS) -> Signature:
        """Read the signature of an ONNX file, without optional inputs: OpenVINO compiles their defaults into the model.

        Raises the errors of `read_signature`.
        """
        signature = read_signature(path)
        return replace(signature, inputs=tuple(spec for spec in signature.inputs if not spec.is_optional))

    def load(self, path: Path, *, unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> Executable:
        """Compile for the CPU plugin.

        The model runs in a separate process if requests could crash it (`graph.faults`), or if a run's memory depends
        on the values of inputs, since the plugin has no memory limit.

        Raises:
            InvalidArgumentError: the file is broken, or an option is unknown or wrong.
            UnsupportedError: this machine lacks the unit, or OpenVINO lacks a datatype or an operator of the model.
        """
        if unit not in self.units():
            status = self._statuses.get(unit)
            raise UnsupportedError(f"backend 'openvino' does not run on unit '{unit.value}' here{_because(status)}")
        return self._load(path, unit, read_settings(unit, num_threads, options), is_own_process=False)

    def _load(self, path: Path, unit: Unit, settings: Settings, *, is_own_process: bool) -> Executable:
        """Load a model: see `load`. `is_own_process` says that this is already a separate process for the model."""
        signature = self.inspect(path)
        for spec in (*signature.inputs, *signature.outputs):
            if spec.datatype not in _ELEMENT_TYPES:
                raise UnsupportedError(
                    f"tensor '{spec.name}' of '{path}' is {spec.datatype.value}, which OpenVINO does not compute; "
                    "serve the model with backend 'onnxruntime'"
                )
        graph = read_model(path)
        is_steady = not by_values(graph).time
        if not is_own_process and (not is_steady or _hosting_reason(graph, path)):
            del graph
            load = partial(self._load, path, unit, settings, is_own_process=True)
            limits = replace(FAULT_LIMITS, run_bytes=self._run_bytes)
            return HostedExecutable(load, f"'{path}' on '{unit.value}'", limits=limits)
        others = sorted(external_data(graph, path.absolute()))
        try:
            folded_of(graph).require("OpenVINO")
            del graph
            model = self._models.read(path, others)
            make_sums_exact(model)
            make_activations_signed(model)
            in_floats = inputs_in_floats(model)
            compile_again = partial(self._core.compile_model, model, "CPU", _properties(unit, settings))
            compiled = compile_again()
        except TriuneError as error:
            raise reworded(error, f"'{path}' cannot run on OpenVINO: {error}") from error
        except Exception as error:
            if problem := broken_part(path):
                raise InvalidArgumentError(f"'{path}' is not a correct ONNX model: {problem}") from error
            raise UnsupportedError(f"OpenVINO cannot compile '{path}': {reason_of(error)}") from error
        if unit is Unit.AMX and compiled.get_property("INFERENCE_PRECISION_HINT") != library.Type.bf16:
            raise UnsupportedError(f"OpenVINO does not compute in bf16 on this CPU, so '{path}' cannot run on 'amx'")
        return _OpenVinoExecutable(model, compiled, compile_again, unit, signature, in_floats, is_steady=is_steady)


class _OpenVinoExecutable:
    """A model that OpenVINO has compiled, with one infer request, so that one call runs at a time."""

    def __init__(
        self,
        model: Any,
        compiled: Any,
        compile_again: Callable[[], Any],
        unit: Unit,
        signature: Signature,
        in_floats: Mapping[str, str],
        *,
        is_steady: bool,
    ) -> None:
        self.unit = unit
        self.is_steady = is_steady
        self.precision = "bf16" if unit is Unit.AMX else "fp32"
        self.signature = signature
        self._model = model
        self._compile_again = compile_again
        self._request = compiled.create_infer_request()
        inputs, outputs = _ports(compiled.inputs), _ports(compiled.outputs)
        # An input that no operator reads has None as its port, since OpenVINO removes such inputs.
        self._inputs = [
            (spec.name, inputs.get(spec.name), getattr(library.Type, _ELEMENT_TYPES[spec.datatype]))
            for spec in signature.inputs
        ]
        self._names = {spec.name for spec in signature.inputs}
        self._wide = [spec.name for spec in signature.inputs if spec.datatype in _WIDE and spec.name in inputs]
        self._in_floats = in_floats
        self._outputs = {spec.name: (outputs[spec.name], spec.datatype.dtype) for spec in signature.outputs}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if set(inputs) != self._names:
            raise InvalidArgumentError(
                f"OpenVINO wants exactly the inputs {', '.join(sorted(self._names)) or 'none'}, "
                f"not {', '.join(sorted(inputs)) or 'none'}"
            )
        for name in self._wide:
            _check_range(name, inputs[name])
        for name, operator in self._in_floats.items():
            _check_floats(name, inputs[name], operator)
        # The infer request does not own these arrays: keep them until it has run.
        arrays = {name: packed(inputs[name]) for name, port, _ in self._inputs if port is not None}
        try:
            for name, port, element_type in self._inputs:
                if port is not None:
                    array = arrays[name]
                    bits = array.view(np.uint16) if array.dtype == DataType.BF16.dtype else array
                    self._request.set_input_tensor(port, library.Tensor(bits, array.shape, element_type))
            self._request.infer()
        except Exception as error:
            # After OpenVINO 2026.4 has refused a call in bf16, it also refuses correct calls, naming the old shapes. A
            # new infer request of the same compiled model does not help (seen on AMX): compile again.
            self._request = self._compile_again().create_infer_request()
            raise run_failure(error, inputs) from error
        return {name: self._copy(*self._outputs[name]) for name in outputs}

    @property
    def report(self) -> str:
        """The report of `Executable.report`: the devices, how many kernels are for AMX, and how many are chosen when
        the model runs.
        """
        compiled = self._request.get_compiled_model()
        kernels = [_kernel_of(each) for each in compiled.get_runtime_model().get_ordered_ops()]
        devices = ", ".join(compiled.get_property("EXECUTION_DEVICES"))
        on_amx = sum("_amx" in each for each in kernels)
        # A kernel's name begins with "undef" if the plugin chooses the kernel in each call, as for free shapes.
        open_ones = sum(each.startswith("undef") for each in kernels)
        return f"{devices}: {on_amx} of {len(kernels)} kernels for AMX, {open_ones} chosen in each call"

    def interrupt(self) -> None:
        """Do nothing: the CPU plugin cannot interrupt a run."""

    def close(self) -> None:
        # Freeing memory stops all threads of the process, 0.1 s for 500 MB of weights. So they are freed one by one.
        weights = _weights_of(vars(self).pop("_model")) if "_model" in vars(self) else []
        vars(self).pop("_request", None)
        vars(self).pop("_compile_again", None)
        while weights:
            weights.pop()

    def _copy(self, port: int, dtype: np.dtype[Any]) -> Array:
        # Copy: the infer request writes its next outputs to the same memory.
        array: Array = np.array(self._request.get_output_tensor(port).data)
        if array.dtype == dtype:
            return array
        if array.dtype.itemsize != dtype.itemsize:
            raise InternalError(f"OpenVINO gave {array.dtype} for an output that the model states as {dtype}")
        # View the bits as bf16: numpy has no bf16, so OpenVINO's binding returns them as another 16-bit dtype.
        return array.view(dtype)


def _weights_of(model: Any) -> list[Any]:
    """The constants of a model, for a caller that frees it. Memory is freed under Python's GIL: drop the model first,
    then these constants one by one, so that other threads never wait for more than one constant to be freed.
    """
    return [node for node in model.get_ops() if node.get_type_name() == "Constant"]


def _hosting_reason(model: ModelProto, path: Path) -> str:
    """Why a model must run in a separate process; empty if it need not."""
    if has_external_data(model, path):
        locate_data(model, path.absolute().parent)
    return fault_in(model, OPENVINO_FAULTS)


KEPT_KERNELS: Final = 256
"""The largest number of kernels that a compiled model keeps for shapes that have occurred. Kernels for AMX take about
0.3 MiB for each shape: 350 MiB for 1,200 shapes of a small model with free dimensions.
"""


def _properties(unit: Unit, settings: Settings) -> dict[str, object]:
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if unit is Unit.AMX else "f32",
        "INFERENCE_NUM_THREADS": settings.num_threads,
        # With one thread and one stream, `infer` of OpenVINO 2026.4 ignores errors and returns old outputs. Without
        # streams the calling thread computes, and errors are raised.
        "NUM_STREAMS": 1 if settings.num_threads > 1 else 0,
        "ENABLE_CPU_PINNING": settings.is_pinned,
        "CPU_RUNTIME_CACHE_CAPACITY": KEPT_KERNELS,
    }


def _kernel_of(operation: Any) -> str:
    """The name of the kernel of an operation of a compiled model; empty if the plugin does not tell it."""
    facts = operation.get_rt_info()
    return str(facts["primitiveType"].get()) if "primitiveType" in facts else ""


def _ports(ports: Sequence[Any]) -> dict[str, int]:
    return {name: index for index, port in enumerate(ports) for name in port.get_names()}


def _check_range(name: str, array: Array) -> None:
    """Refuse integers beyond 32 bits: OpenVINO would truncate them silently, so that token 2**32 would become 0."""
    if not array.size:
        return
    low, high = int(array.min()), int(array.max())
    if low < _INT32.min or high > _INT32.max:
        raise InvalidArgumentError(
            f"input '{name}' holds {low if low < _INT32.min else high}; OpenVINO computes integers in 32 bits, "
            f"{_INT32.min} to {_INT32.max}: serve the model with backend 'onnxruntime'"
        )


def _check_floats(name: str, array: Array, operator: str) -> None:
    """Refuse integers that fp32 cannot represent exactly, since the operator would compute a wrong result with them."""
    if not array.size or array.itemsize < np.dtype(np.int32).itemsize:
        return
    low, high = int(array.min()), int(array.max())
    if low < -MOST_EXACT or high > MOST_EXACT:
        raise InvalidArgumentError(
            f"input '{name}' holds {low if low < -MOST_EXACT else high}; OpenVINO computes {operator} of it in fp32, "
            f"which has whole numbers up to {MOST_EXACT}: serve the model with backend 'onnxruntime'"
        )


def _because(status: UnitStatus | None) -> str:
    return f": {status.reason}" if status is not None and status.reason else ""
