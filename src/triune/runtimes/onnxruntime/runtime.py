"""ONNX Runtime on the CPU, in fp32. Backend "onnxruntime"."""

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from onnx import TensorProto

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from triune.core.requests import Parameter
from triune.core.runtime import NO_OPTIONS, Executable
from triune.core.tensors import Signature
from triune.core.units import Unit
from triune.graph.arenas import NO_LOG, own_arena
from triune.graph.by_values import by_values
from triune.graph.custom.foreign import foreign_nodes
from triune.graph.fatal_fusions import fatal_fusions
from triune.graph.folded import FOLDED_BYTES, folded_of
from triune.graph.load import read_model
from triune.graph.only_nodes import only_nodes
from triune.graph.op_libraries import register_libraries
from triune.graph.precision import precision_of
from triune.graph.session import onnxruntime_library, open_session
from triune.graph.text import reader_of_text
from triune.hosting import FAULT_LIMITS, HostedExecutable
from triune.runtimes.arrays import ordered, packed, to_bytes, to_text
from triune.runtimes.failures import reason_of, run_failure
from triune.runtimes.onnx.file import read_signature, signature_of
from triune.runtimes.onnxruntime.many_strings import host_many_strings
from triune.runtimes.onnxruntime.memory import RunMemory
from triune.runtimes.onnxruntime.options import KNOWN_OPTIONS, run_options_of, session_options_of
from triune.runtimes.onnxruntime.source import source_of
from triune.runtimes.served import onnxruntime_units

# `Any`, since onnxruntime has no type hints. The protocols below describe the parts of it that are used.
_library: Any = onnxruntime_library()
_InvalidArgument: type[Exception] = _library.capi.onnxruntime_pybind11_state.InvalidArgument
_NotImplemented: type[Exception] = _library.capi.onnxruntime_pybind11_state.NotImplemented

_SLOW_FUSIONS = ("SkipLayerNormFusion",)
"""ONNX Runtime's optimizers that are turned off because their results are slower than their sources. On the CPU (1.32)
SkipLayerNormalization takes longer than the sums and the LayerNormalization that it replaces: the norms and sums of
MiniLM's, BERT's and GPT-2's shapes take 0.27 to 0.94 times as long without it, at 12 of 12 sizes (docs/benchmarks.md).
"""


class _Value(Protocol):
    """The part of onnxruntime.OrtValue that is used here."""

    def numpy(self) -> Array: ...

    def shape(self) -> Sequence[int]: ...

    def data_ptr(self) -> int: ...


class _Session(Protocol):
    """The part of onnxruntime.InferenceSession that is used here."""

    def get_providers(self) -> Sequence[str]: ...

    def run(self, output_names: Sequence[str], input_feed: Mapping[str, Any], run_options: Any) -> list[Array]: ...
    def run_with_ort_values(
        self, output_names: Sequence[str], input_dict_ort_values: Mapping[str, Any], run_options: Any
    ) -> list[_Value]: ...


class OnnxRuntime:
    """Microsoft's ONNX Runtime.

    Options are those of Triton's onnxruntime backend, as strings: `intra_op_thread_count` (0 lets Triune choose),
    `inter_op_thread_count`, `execution_mode` (0 sequential, 1 parallel), `enable_mem_arena`, `enable_mem_pattern`,
    `memory.enable_memory_arena_shrinkage` ("cpu:0"), four `session.*` switches, and `optimization.graph.level` (-1
    basic, 0 all, 1 extended, 2 none), which is the field of that name in the config.
    """

    name = "onnxruntime"
    option_names = KNOWN_OPTIONS
    default_filenames = ("model.onnx",)

    def __init__(self, run_bytes: int | None = None, op_libraries: Sequence[Path] = ()) -> None:
        """Args:
        run_bytes: the memory limit of a run, without the model's weights; None sets no limit.
        op_libraries: shared libraries of custom operators. They are loaded for models with operators that neither ONNX
            nor ONNX Runtime has. Such a model runs in a separate process, since the libraries may crash.
        """
        self._run_bytes = run_bytes
        self._op_libraries = tuple(op_libraries)
        # Errors are returned to the clients, so ONNX Runtime need not log them.
        _library.set_default_logger_severity(NO_LOG)

    def units(self) -> Sequence[Unit]:
        """The units of this runtime: only the CPU."""
        return onnxruntime_units()

    def inspect(self, path: Path, options: Mapping[str, Parameter] = NO_OPTIONS) -> Signature:
        """Read the signature of an ONNX file; the options do not affect it. Raises the errors of `read_signature`."""
        return read_signature(path)

    def load(self, path: Path, *, unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> Executable:
        """Make a session, in a separate process if requests could crash it (`graph.faults`) or have many strings.

        Raises:
            InvalidArgumentError: the file is broken, or an option is unknown or wrong.
            UnsupportedError: the unit is not `cpu`, or ONNX Runtime lacks an operator.
        """
        if unit is not Unit.CPU:
            raise UnsupportedError(f"backend 'onnxruntime' runs on unit 'cpu', not on '{unit.value}'")
        executable = self._load(path, num_threads, options, is_own_process=False)
        if not isinstance(executable, _OnnxRuntimeExecutable):
            return executable
        host = functools.partial(self._hosted, path, num_threads, options)
        return host_many_strings(
            executable, host, gives_labels=executable.gives_labels, copies=executable.string_copies
        )

    def _hosted(self, path: Path, num_threads: int, options: Mapping[str, Parameter]) -> HostedExecutable:
        load = functools.partial(self._load, path, num_threads, options, is_own_process=True)
        return HostedExecutable(
            load, f"'{path}' on '{Unit.CPU.value}'", limits=replace(FAULT_LIMITS, run_bytes=self._run_bytes)
        )

    def _load(
        self, path: Path, num_threads: int, options: Mapping[str, Parameter], *, is_own_process: bool
    ) -> Executable:
        """Make a session: see `load`. `is_own_process` says that this is already a separate process for the model."""
        session_options = session_options_of(num_threads, options)
        run_options = run_options_of(options)
        model = read_model(path)
        folded, is_steady = folded_of(model), not by_values(model).time
        facts = _Facts(
            signature_of(model, path),
            precision_of(model),
            reader_of_text(model),
            is_steady=is_steady,
            has_small_runs=is_steady and not folded.leaves_some,
            only_nodes=only_nodes(model),
        )
        libraries = self._op_libraries if any(True for _ in foreign_nodes(model)) else ()
        source, without = source_of(model, path), [*fatal_fusions(model), *_SLOW_FUSIONS]
        session_options.add_session_config_entry(FOLDED_BYTES, str(folded.most_bytes))
        del model
        # Use a separate process to enforce the memory limit if the session has no arena, or if the number of strings in
        # the outputs depends on the inputs' values: an arena does not limit strings.
        has_limit = session_options.enable_cpu_mem_arena and (facts.is_steady or not source.gives_labels)
        if (source.hosting_reason or not has_limit or libraries) and not is_own_process:
            del source
            return self._hosted(path, num_threads, options)
        source.give_weights(session_options)
        register_libraries(session_options, libraries)
        try:
            with own_arena(session_options, self._run_bytes, is_returned=not facts.has_small_runs):
                if "optimization.graph.level" in options:
                    providers = ["CPUExecutionProvider"]
                    session: _Session = _library.InferenceSession(
                        source.model, session_options, providers=providers, disabled_optimizers=without
                    )
                else:
                    session = open_session(source.model, session_options, without=without)
        except _NotImplemented as error:
            raise UnsupportedError(f"ONNX Runtime cannot run '{path}': {reason_of(error)}") from error
        except Exception as error:
            raise InvalidArgumentError(f"ONNX Runtime refuses '{path}': {reason_of(error)}") from error
        return _OnnxRuntimeExecutable(
            session,
            run_options,
            facts,
            self._run_bytes,
            gives_labels=source.gives_labels,
            string_copies=source.string_copies,
        )


@dataclass(frozen=True, slots=True)
class _Facts:
    """The properties of a model that were read from its file."""

    signature: Signature
    precision: str
    text_reader: str | None
    is_steady: bool
    has_small_runs: bool
    only_nodes: Mapping[str, str]


class _OnnxRuntimeExecutable:
    """An ONNX Runtime session. It passes tensors as numpy arrays; BF16, which numpy lacks, as OrtValues."""

    unit = Unit.CPU

    def __init__(
        self,
        session: _Session,
        run_options: Any,
        facts: _Facts,
        run_bytes: int | None,
        *,
        gives_labels: bool,
        string_copies: float,
    ) -> None:
        self.gives_labels = gives_labels
        self.string_copies = string_copies
        self.signature = signature = facts.signature
        self.precision = facts.precision
        self.is_steady = facts.is_steady
        self.report = ", ".join(session.get_providers())
        self._only_nodes = facts.only_nodes
        self._is_interrupted = False
        self._session = session
        # Use the native session object, with the same arguments: the checks of its Python wrapper are made here.
        self._run: Callable[[Sequence[str], Mapping[str, Any], Any], list[Array]]
        self._run = getattr(session, "_sess", session).run
        self._run_options = run_options
        self._text_reader = facts.text_reader
        self._required = frozenset(spec.name for spec in signature.inputs if not spec.is_optional)
        specs = (*signature.inputs, *signature.outputs)
        self._text_inputs = {spec.name for spec in signature.inputs if spec.datatype is DataType.BYTES}
        self._text_outputs = {spec.name for spec in signature.outputs if spec.datatype is DataType.BYTES}
        self._bfloat16 = {spec.name for spec in specs if spec.datatype is DataType.BF16}
        self._compute = self._run_values if self._bfloat16 else self._run_arrays
        self._memory = RunMemory(session, signature, run_bytes, is_returned=not facts.has_small_runs)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        feed: dict[str, Array] = {}
        for name, array in inputs.items():
            is_text = name in self._text_inputs
            feed[name] = to_text(name, array, self._text_reader) if is_text else packed(array)
        try:
            try:
                arrays = self._compute(feed, outputs)
            except Exception as error:
                if not self._memory.makes_room(error):
                    raise
                arrays = self._compute(feed, outputs)
            self._memory.watch(arrays)
        except Exception as error:
            if self._is_interrupted:
                self._go_on()
                raise UnavailableError("the run took too long, and was ended") from None
            if missing := ", ".join(sorted(self._required - inputs.keys())):
                raise InvalidArgumentError(f"the model cannot compute these inputs: missing are {missing}") from None
            if (refusal := self._memory.refusal_of(error, inputs, self._only_nodes)) is not None:
                raise refusal from None
            is_refusal = isinstance(error, _InvalidArgument)
            raise run_failure(error, inputs, is_refusal=is_refusal, only_nodes=self._only_nodes) from error
        if self._is_interrupted:
            self._go_on()
        return arrays

    def interrupt(self) -> None:
        self._is_interrupted = True
        self._run_options.terminate = True

    def _go_on(self) -> None:
        self._is_interrupted = False
        self._run_options.terminate = False

    def close(self) -> None:
        self._memory.close()
        vars(self).pop("_session", None)
        vars(self).pop("_run", None)

    def _run_arrays(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        arrays = ordered(outputs, self._run(outputs, feed, self._run_options))
        if self._text_outputs:
            for name in self._text_outputs.intersection(arrays):
                arrays[name] = to_bytes(arrays[name])
        return arrays

    def _run_values(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        values = self._session.run_with_ort_values(
            outputs, {name: self._to_value(name, array) for name, array in feed.items()}, self._run_options
        )
        return {name: self._from_value(name, value) for name, value in ordered(outputs, values).items()}

    def _to_value(self, name: str, array: Array) -> object:
        if name in self._bfloat16:
            return _library.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), TensorProto.BFLOAT16)
        return _library.OrtValue.ortvalue_from_numpy(array)

    def _from_value(self, name: str, value: _Value) -> Array:
        if name in self._bfloat16:
            bits = np.empty(tuple(value.shape()), np.uint16)
            if bits.nbytes:
                ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
            return bits.view(DataType.BF16.dtype)
        array = value.numpy()
        return to_bytes(array) if name in self._text_outputs else array
