"""MLX: Apple's GPUs through Metal, NVIDIA's through CUDA, on unit `gpu`. Backend "mlx".

Without a GPU, MLX computes slowly on the CPU with the same code, and `gpu` counts as emulated.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError, reworded
from triune.core.requests import Parameter
from triune.core.runtime import NO_OPTIONS, Executable
from triune.core.tensors import Signature
from triune.core.units import Unit, UnitStatus
from triune.graph.load import external_data, load, read_model
from triune.graph.passes.narrow_values import narrow_array
from triune.graph.precision import precision_of
from triune.hosting.run_limit import beyond
from triune.runtimes.failures import lost_unit, reason_of, run_failure
from triune.runtimes.mlx.options import OPTION_NAMES, PRECISIONS, Precision, read_precision
from triune.runtimes.onnx.file import broken_part, read_signature
from triune.runtimes.served import mlx_units
from triune.runtimes.shared_models import SharedModels

if TYPE_CHECKING:
    from triune.metal.function import Function

_log = logging.getLogger(__name__)

_REFUSED = {
    DataType.FP64: "which GPUs of MLX do not compute",
    DataType.BYTES: "and MLX has no text",
}


class Mlx:
    """MLX. Its option is `mlx.precision`: source, bf16 or fp16. It ignores `num_threads`."""

    name = "mlx"
    option_names = OPTION_NAMES
    default_filenames = ("model.onnx",)

    def __init__(self, units: Sequence[UnitStatus], run_bytes: int | None = None) -> None:
        """Args:
        units: this machine's units, from `hardware.units.detect_units`.
        run_bytes: the largest array that a run may create; None means the machine's memory.
        """
        self._statuses = {status.unit: status for status in units}
        self._run_bytes = run_bytes
        # All executables of a file compute by one function, with one copy of the weights: in a process only one call at
        # a time computes with MLX.
        self._functions = {each: SharedModels(partial(self._function, precision=each)) for each in PRECISIONS.values()}

    def __reduce__(self) -> tuple[type["Mlx"], tuple[Sequence[UnitStatus], int | None]]:
        """Pickle the arguments only: functions stay in their process."""
        return Mlx, (tuple(self._statuses.values()), self._run_bytes)

    def units(self) -> Sequence[Unit]:
        """`gpu`, if the machine has one or emulates it."""
        return mlx_units(tuple(self._statuses.values()))

    def inspect(self, path: Path, options: Mapping[str, Parameter] = NO_OPTIONS) -> Signature:
        """Read the signature of an ONNX file; the options do not affect it. Raises the errors of `read_signature`."""
        return read_signature(path)

    def load(self, path: Path, *, unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> Executable:
        """Lower a model to MLX.

        Raises:
            InvalidArgumentError: the file is broken, or an option is unknown or wrong.
            UnsupportedError: this machine lacks the unit, or MLX lacks a datatype or an operator of the model.
        """
        if unit not in self.units():
            raise UnsupportedError(f"backend 'mlx' runs on unit 'gpu', not on '{unit.value}'")
        precision = read_precision(options)
        signature = self.inspect(path)
        for spec in (*signature.inputs, *signature.outputs):
            if spec.datatype in _REFUSED:
                raise UnsupportedError(
                    f"tensor '{spec.name}' of '{path}' is {spec.datatype.value}, {_REFUSED[spec.datatype]}; serve the "
                    "model with backend 'onnxruntime'"
                )
        # Import this only here: importing MLX's library starts the GPU, which must not happen before a model needs it.
        from triune.metal.library import KERNEL_FOLDER, device_report
        from triune.metal.nvidia import trim_kernels

        try:
            trim_kernels(KERNEL_FOLDER)
        except OSError as error:
            _log.warning("old kernels cannot be removed from %s: %s", KERNEL_FOLDER, error)
        model = load(path)
        own = precision_of(model) if precision == "source" else precision
        del model
        others = sorted(external_data(read_model(path), path.absolute()))
        return _MlxExecutable(
            self._functions[precision].read(path, others),
            unit,
            own,
            signature,
            device_report(),
            run_bytes=self._run_bytes,
            is_narrow=precision == "fp16",
        )

    def _function(self, path: Path, *, precision: Precision) -> "Function":
        """Lower a model: see `load`."""
        from triune.metal.function import Function
        from triune.metal.lower import lower

        model = load(path)
        try:
            program = lower(model, precision, most_bytes=self._run_bytes)
        except TriuneError as error:
            raise reworded(error, f"'{path}' cannot run on MLX: {error}") from error
        except Exception as error:
            if problem := broken_part(path):
                raise InvalidArgumentError(f"'{path}' is not a correct ONNX model: {problem}") from error
            raise UnsupportedError(f"MLX cannot compute '{path}': {reason_of(error)}") from error
        return Function(program, dtypes={spec.name: spec.datatype.dtype for spec in self.inspect(path).outputs})


class _MlxExecutable:
    is_steady = False
    """A run waits for the runs of other models, so it must not be on the event loop's thread."""

    def __init__(
        self,
        function: "Function",
        unit: Unit,
        precision: str,
        signature: Signature,
        report: str,
        *,
        run_bytes: int | None,
        is_narrow: bool,
    ) -> None:
        self.unit = unit
        self.precision = precision
        self.signature = signature
        self.report = report
        self._function = function
        self._run_bytes = run_bytes
        self._is_narrow = is_narrow
        self._dtypes = {spec.name: spec.datatype.dtype for spec in signature.outputs}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        given: dict[str, Array] = {}
        for spec in self.signature.inputs:
            array = inputs.get(spec.name)
            if array is None and not spec.is_optional:
                raise InvalidArgumentError(f"input '{spec.name}' is missing")
            if array is not None and spec.has_rank and array.ndim != len(spec.shape):
                raise InvalidArgumentError(
                    f"input '{spec.name}' has the shape {list(array.shape)}; the model takes {spec}"
                )
            if array is not None:
                given[spec.name] = narrow_array(spec.name, array) if self._is_narrow else array
        try:
            found = self._function(given, outputs)
        except UnsupportedError as error:
            raise InvalidArgumentError(f"the model cannot compute these inputs: {error}") from error
        except TriuneError:
            raise
        except Exception as error:
            if (lost := lost_unit(error)) is not None:
                raise lost from error
            if self._run_bytes is not None and (node := getattr(error, "node", "")):
                raise beyond(self._run_bytes, node) from error
            raise run_failure(error, inputs, is_refusal=isinstance(error, (ValueError, IndexError))) from error
        return {name: np.asarray(array, self._dtypes[name]) for name, array in zip(outputs, found, strict=True)}

    def interrupt(self) -> None:
        """Do nothing: MLX cannot interrupt a run."""

    def close(self) -> None:
        vars(self).pop("_function", None)
