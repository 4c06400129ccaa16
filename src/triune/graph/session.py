"""Create ONNX Runtime sessions, and run graphs that have states."""

import functools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.graph.arenas import NO_LOG, beyond_arena, own_arena, returning_run
from triune.graph.fatal_fusions import fatal_fusions
from triune.graph.folded import FOLDED_BYTES, folded_of
from triune.graph.guard import guard
from triune.graph.op_libraries import register_libraries
from triune.graph.state_names import new_state
from triune.graph.values import nodes_of_model
from triune.graph.weight_files import array_of, load_data, refer

# Weights of at least this size are passed to ONNX Runtime separately, since protobuf limits the model to 2 GiB.
_LARGE_BYTES = 1 << 20

ACCURACY: Final = "session.qdq_matmulnbits_accuracy_level"
"""ONNX Runtime's option for how exactly products with quantized weights are computed: "1" in fp32; "4", as by default,
with the other operand rounded to 8 bits (onnxruntime_session_options_config_keys.h).
"""

_EXACT = {ACCURACY: "1", "session.x64quantprecision": "1"}
"""Options for exact results: products with quantized weights are computed in fp32, without quantizing the other operand
to 8 bits, and products of uint8 and int8 do not saturate on x86 without VNNI (onnxruntime_session_options_config_keys.h
of ONNX Runtime).
"""

_BY_THREADS = frozenset(["DynamicQuantizeLSTM"])
"""Models with these operators run in one thread, since the operators' results depend on the number of threads: each
thread quantizes the hidden state of its own rows of the batch to 8 bits, by their range (ONNX Runtime's
uni_directional_lstm.cc). With one thread it is the range of all rows, as the operator is defined.
"""

_IN_FP32 = ("session.disable_quant_qdq", "1")
"""An option to compute operators between DequantizeLinear and QuantizeLinear in fp32, as Apple's programs do. The
results of ONNX Runtime's 8-bit kernels differ by one level or more: for instance, its Softmax looks up exponentials in
a table.
"""


_INEXACT = "ConvMulFusion"
"""An optimizer of ONNX Runtime that is turned off: it multiplies a factor after a convolution into the weights. Sums of
integers are then no longer exact, and a product that overflowed before no longer does. Where neither matters, the pass
`ConvAffine` has folded the factor already.
"""

_INEXACT_IN_LEVELS = "MatMulScaleFusion"
"""An optimizer of ONNX Runtime that is turned off for models that quantize values: it multiplies a factor after a
matrix product into an operand. Sums of integers are then rounded before they are quantized, and a sum in the middle
between two levels may become the wrong one.
"""


@functools.cache
def onnxruntime_library() -> Any:
    """Import onnxruntime when it is first needed, with its log turned off. Its log lines are coloured, contain
    unescaped names of the model, and repeat the messages of exceptions.
    """
    import onnxruntime

    library: Any = onnxruntime
    library.set_default_logger_severity(NO_LOG)
    return library


class GraphSession:
    """An `Executor` that runs a graph in ONNX Runtime on the CPU. It is thread-safe, since a session has no state of
    its own.

    Attributes:
        crash_risk: a message with a node with which inputs may crash the process, and how; "" if there is none
            (`graph.faults`).
    """

    def __init__(
        self,
        model: ModelProto,
        name: str,
        *,
        states: Sequence[str] = (),
        num_threads: int = 0,
        weights: "Weights | None" = None,
        optimizes: bool = True,
        run_bytes: int | None = None,
        libraries: Sequence[Path] = (),
    ) -> None:
        """Load a graph.

        Args:
            model: changed in place: nodes whose inputs may crash the process are guarded, and int8 weights get the zero
                points that they lack. Without `weights`, its large weights are removed too.
            name: the graph's name in messages: "'model.mlpackage', function 'main'".
            states: the names of inputs that are states; the output `new_state(name)` is the state's next value.
            num_threads: the number of threads; 0 lets ONNX Runtime choose. Use 1 if results must not depend on it.
            weights: the large weights, which `set_aside` took out of this model, so that sessions share them.
            optimizes: whether ONNX Runtime optimizes the graph, or runs its nodes one by one as they are.
            run_bytes: the memory limit of a run, without the model's weights; None sets no limit.
            libraries: shared libraries of custom operators.

        Raises:
            InvalidArgumentError: a library cannot be loaded.
            UnsupportedError: ONNX Runtime cannot load the graph.
        """
        library = onnxruntime_library()
        options = library.SessionOptions()
        is_by_threads = any(node.op_type in _BY_THREADS for node in nodes_of_model(model))
        options.intra_op_num_threads = 1 if is_by_threads else num_threads
        options.log_severity_level = NO_LOG
        register_libraries(options, libraries)
        _write_zero_points(model)
        self.crash_risk = guard(model).crash_risk
        for key, value in _EXACT.items():
            options.add_session_config_entry(key, value)
        folded = folded_of(model)
        options.add_session_config_entry(FOLDED_BYTES, str(folded.most_bytes))
        self._returning: Any = returning_run(library) if folded.leaves_some else None
        without = [*fatal_fusions(model), _INEXACT]
        if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
            options.add_session_config_entry(*_IN_FP32)
            without.append(_INEXACT_IN_LEVELS)
        self._name = name
        self._states = list(states)
        nexts = {new_state(each) for each in states}
        self._inputs = [value.name for value in model.graph.input if value.name not in states]
        self._defaults = {tensor.name for tensor in model.graph.initializer}
        self._outputs = [value.name for value in model.graph.output if value.name not in nexts]
        # The session reads the weights in place, so they must live as long as it does.
        self._weights = set_aside(model) if weights is None else weights
        if self._weights.names:
            options.add_external_initializers(list(self._weights.names), list(self._weights.values))
        self._failures: tuple[type[Exception], ...] = _failures(library)
        self._run_bytes = run_bytes
        arena = nullcontext() if run_bytes is None else own_arena(options, run_bytes, is_returned=folded.leaves_some)
        try:
            with arena:
                self._session: Any = open_session(
                    model.SerializeToString(), options, optimizes=optimizes, without=without
                )
        except self._failures as error:
            raise UnsupportedError(f"{name}: ONNX Runtime does not load it: {error}") from error

    @property
    def output_types(self) -> dict[str, str]:
        """ONNX Runtime's name of each output's type, such as "tensor(float)"."""
        return {each.name: each.type for each in self._session.get_outputs()}

    def run(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Compute the outputs and the new states; the arguments are not changed.

        Raises:
            InvalidArgumentError: an input or state is missing, the graph cannot compute with its values, or the run
                needs more memory than its limit.
        """
        given = {**{name: inputs[name] for name in self._inputs if name in inputs}, **states}
        missing = [name for name in (*self._inputs, *self._states) if name not in given and name not in self._defaults]
        if missing:
            raise InvalidArgumentError(f"{self._name}: the inputs {missing} are missing")
        names = [*self._outputs, *(new_state(name) for name in self._states)]
        feed = {name: texts_of(np.asarray(array, order="C")) for name, array in given.items()}
        try:
            results: list[Array] = self._session.run(names, feed)
        except self._failures as error:
            if (beyond := beyond_arena(error)) is not None:
                raise InvalidArgumentError(
                    f"{self._name}: a node asks for {beyond[1]} bytes of memory, more than is left of the "
                    f"{self._run_bytes} bytes that a run may take in all, by --run-memory-bytes; send values and "
                    "shapes that need less, or raise it"
                ) from error
            raise InvalidArgumentError(f"{self._name}: {error}") from error
        except RuntimeError as error:
            raise InternalError(f"{self._name}: ONNX Runtime: {error}") from error
        if self._run_bytes is not None:
            # Copy the results out of the arena: later runs need its memory, and clients may take long to read an
            # answer.
            results = [np.array(each) for each in results]
            if self._returning is not None:
                # Run again with options that end the run before its first node and return the arena's memory. Ignore
                # the error that the ended run raises.
                with suppress(*self._failures):
                    self._session.run(names, feed, self._returning)
        count = len(self._outputs)
        return (
            dict(zip(self._outputs, results[:count], strict=True)),
            dict(zip(self._states, results[count:], strict=True)),
        )


def texts_of(array: Array) -> Array:
    """An array with texts in place of their bytes in UTF-8; arrays of other dtypes are returned as they are. ONNX
    Runtime reads an object of bytes as its Python form, "b'...'".

    Raises:
        InvalidArgumentError: an element is not UTF-8.
    """
    if array.dtype.kind not in "OS":
        return array
    try:
        texts = [each.decode() if isinstance(each, bytes) else each for each in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"an element of a text input is not UTF-8: {error.object[:64]!r}") from error
    found = np.empty(array.size, np.object_)
    found[:] = texts
    return found.reshape(array.shape)


def open_session(model: bytes | Path, options: Any, *, optimizes: bool = True, without: Sequence[str] = ()) -> Any:
    """Create an onnxruntime.InferenceSession on the CPU.

    Some of ONNX Runtime's fusions produce a graph that it then refuses: MatMulScaleFusion and MatmulTransposeFusion
    together lose a scaled value that is both operands of a MatMul (1.32). Such a model is loaded with basic
    optimizations only.

    Args:
        model: the bytes of a model, or the path of its file.
        options: the SessionOptions; the optimization level in it is changed.
        optimizes: whether to use all optimizations or none.
        without: the names of optimizers to turn off (`fatal_fusions`).

    Raises:
        Exception: any error of ONNX Runtime (with all optimizations, if `optimizes`).
    """
    library = onnxruntime_library()
    kinds, providers = library.GraphOptimizationLevel, ["CPUExecutionProvider"]
    options.graph_optimization_level = kinds.ORT_ENABLE_ALL if optimizes else kinds.ORT_DISABLE_ALL
    try:
        return library.InferenceSession(model, options, providers=providers, disabled_optimizers=list(without))
    except _failures(library) as error:
        if not optimizes:
            raise
        options.graph_optimization_level = kinds.ORT_ENABLE_BASIC
        try:
            return library.InferenceSession(model, options, providers=providers, disabled_optimizers=list(without))
        except _failures(library):
            raise error from None


def _write_zero_points(model: ModelProto) -> None:
    """Add zero points of 0 to int8 weights that have a scale for each channel and no zero points.

    With the options `_EXACT`, ONNX Runtime (1.32) converts such weights to uint8 and adds a single zero point, which it
    then refuses.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    added: set[str] = set()
    for node in model.graph.node:
        names = list(node.input)
        if node.op_type != "DequantizeLinear" or any(names[2:]):
            continue
        data, scale = constants.get(names[0]), constants.get(names[1])
        if data is None or scale is None or data.data_type != TensorProto.INT8 or not scale.dims:
            continue
        zero = f"{scale.name}/no_zero_point"
        if zero not in added:
            added.add(zero)
            model.graph.initializer.append(numpy_helper.from_array(np.zeros(tuple(scale.dims), np.int8), zero))
        node.input[:] = [*names[:2], zero]


def _failures(library: Any) -> tuple[type[Exception], ...]:
    """The exception classes that ONNX Runtime raises; they have no common base class."""
    state = library.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    return tuple(getattr(state, name) for name in names)


@dataclass(frozen=True, slots=True)
class Weights:
    """The names of a model's large weights, and the weights as OrtValues."""

    names: Sequence[str]
    values: Sequence[Any]


def set_aside(model: ModelProto) -> Weights:
    """Remove the large weights from a model, so that the rest fits into a protobuf message, and return them."""
    library = onnxruntime_library()
    names: list[str] = []
    values: list[Any] = []
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or len(tensor.raw_data) >= _LARGE_BYTES:
            if helper.tensor_dtype_to_np_dtype(tensor.data_type).isbuiltin != 1:
                # Leave weights of 4-bit integers and bf16 in the model: ONNX Runtime accepts only arrays of numpy's own
                # types.
                if tensor.data_location == TensorProto.EXTERNAL:
                    load_data(tensor)
                continue
            values.append(library.OrtValue.ortvalue_from_numpy(array_of(tensor)))
            names.append(tensor.name)
            tensor.ClearField("raw_data")
            # protobuf requires a file's name for external data. ONNX Runtime never opens the file.
            refer(tensor, PurePath("weights"), 0, 0)
    return Weights(names, values)
