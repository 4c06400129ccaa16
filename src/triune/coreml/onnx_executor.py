"""Running a function of an ML Program with ONNX Runtime: raised to ONNX once, then as fast as ONNX Runtime is."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.coreml.half_rounding import keep_half_rounding
from triune.coreml.mil import Array, StateType
from triune.coreml.package import Package
from triune.coreml.raising import new_state, raise_function
from triune.graph.passes.widen import Widen

# Weights from this size on are handed to ONNX Runtime beside the model, which protobuf limits to 2 GiB.
_LARGE_BYTES = 1 << 20
_NO_LOG = 4
_HALF = 10
"""ONNX's TensorProto.FLOAT16."""


class OnnxExecutor:
    """An `Executor` over onnxruntime, on the CPU.

    Thread-safe: a session has no state of its own.
    """

    def __init__(
        self, package: Package, function: str | None = None, *, num_threads: int = 0, is_widened: bool = False
    ) -> None:
        """Raise a function and load it.

        Args:
            package: as `read_package` gives it.
            function: its name; the default function for None.
            num_threads: how many threads compute; 0 leaves it to ONNX Runtime.
            is_widened: compute in fp32 what the program has in fp16: what its precision costs is measured against that.

        Raises:
            NotFoundError: there is no such function.
            InvalidArgumentError: an operation is malformed, or ONNX Runtime finds it so.
            UnsupportedError: an operation has no equivalent in ONNX or ONNX Runtime.
        """
        # Reading and raising packages does not need it.
        import onnxruntime

        library: Any = onnxruntime
        program = package.function(function)
        model: Any = raise_function(package, program.name)
        options = library.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = _NO_LOG
        halves = {value.name for value in model.graph.output if value.type.tensor_type.elem_type == _HALF}
        # What an interface has in fp16 stays so; what is computed between is wider.
        self._narrowed = halves if is_widened else set[str]()
        self._widened = [value.name for value in model.graph.input if value.type.tensor_type.elem_type == _HALF]
        self._widened = self._widened if is_widened else []
        if is_widened:
            Widen()(model)
        else:
            keep_half_rounding(model)
        # Kept alive as long as the session, which reads them where they are.
        self._weights = _set_aside(model, options, library)
        self._name = f"'{package.name}', function '{program.name}'"
        self._failures: tuple[type[Exception], ...] = _failures(library)
        try:
            self._session: Any = library.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except self._failures as error:
            raise UnsupportedError(f"{self._name}: ONNX Runtime does not load it: {error}") from error
        self._states = [each.name for each in program.inputs if isinstance(each.type, StateType)]
        self._inputs = [each.name for each in program.inputs if not isinstance(each.type, StateType)]
        self._outputs = list(program.block.outputs)

    def run(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Compute the outputs and the new states; what is given is not changed.

        Raises:
            InvalidArgumentError: an input or state is missing, or the program cannot compute with its values.
        """
        given = {**{name: inputs[name] for name in self._inputs if name in inputs}, **states}
        missing = [name for name in (*self._inputs, *self._states) if name not in given]
        if missing:
            raise InvalidArgumentError(f"{self._name}: the inputs {missing} are missing")
        names = [*self._outputs, *(new_state(name) for name in self._states)]
        feed = {name: np.ascontiguousarray(given[name]) for name in (*self._inputs, *self._states)}
        for name in self._widened:
            feed[name] = feed[name].astype(np.float32)
        try:
            results: list[Array] = self._session.run(names, feed)
        except self._failures as error:
            raise InvalidArgumentError(f"{self._name}: {error}") from error
        except RuntimeError as error:
            raise InternalError(f"{self._name}: ONNX Runtime: {error}") from error
        if self._narrowed:
            with np.errstate(over="ignore"):
                pairs = zip(names, results, strict=True)
                results = [array.astype(np.float16) if name in self._narrowed else array for name, array in pairs]
        count = len(self._outputs)
        return (
            dict(zip(self._outputs, results[:count], strict=True)),
            dict(zip(self._states, results[count:], strict=True)),
        )


def _failures(library: Any) -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; the pybind11 classes share no base of their own."""
    state = library.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    return tuple(getattr(state, name) for name in names)


def _set_aside(model: Any, options: Any, library: Any) -> list[Any]:
    """Takes large weights out of the model and hands them to ONNX Runtime as arrays."""
    from onnx import TensorProto, numpy_helper

    names: list[str] = []
    values: list[Any] = []
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) >= _LARGE_BYTES:
            values.append(library.OrtValue.ortvalue_from_numpy(numpy_helper.to_array(tensor)))
            names.append(tensor.name)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            # It must name a file, which is never opened.
            tensor.external_data.add(key="location", value="weights")
    if names:
        options.add_external_initializers(names, values)
    return values
