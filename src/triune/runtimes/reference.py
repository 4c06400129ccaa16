"""ONNX's reference evaluator, in numpy: slow, but simple. Backend "reference", with which the other runtimes are
checked.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator

from triune.core.datatypes import Array, DataType
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.core.requests import Parameter
from triune.core.runtime import NO_OPTIONS, Executable
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.graph.load import load, read_model
from triune.graph.paged_attention import PagedAttention
from triune.graph.precision import precision_of
from triune.graph.text import reader_of_text
from triune.graph.weight_files import with_data
from triune.runtimes.arrays import ordered, to_bytes, to_text
from triune.runtimes.failures import reason_of, run_failure
from triune.runtimes.onnx.file import read_signature, signature_of
from triune.runtimes.options import check_names

_REFUSALS = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)
"""The errors that numpy raises for values and shapes that an operator does not accept."""


class Reference:
    """The reference implementation of `Runtime`. It has no options, and ignores `num_threads`."""

    name = "reference"
    option_names = ()
    default_filenames = ("model.onnx",)

    def units(self) -> Sequence[Unit]:
        """The units of this runtime: only the CPU."""
        return (Unit.CPU,)

    def inspect(self, path: Path, options: Mapping[str, Parameter] = NO_OPTIONS) -> Signature:
        """Read the signature of an ONNX file; the options do not affect it. Raises the errors of `read_signature`."""
        return read_signature(path)

    def load(self, path: Path, *, unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> Executable:
        """Read the graph.

        Raises:
            InvalidArgumentError: the file is broken, or an option is given.
            UnsupportedError: the unit is not `cpu`, or the evaluator lacks an operator.
        """
        if unit is not Unit.CPU:
            raise UnsupportedError(f"backend 'reference' runs on unit 'cpu', not on '{unit.value}'")
        check_names(self.name, options, ())
        model = read_model(path)
        signature, precision = signature_of(model, path), precision_of(model)
        reader = reader_of_text(model)
        try:
            evaluator: Any = ReferenceEvaluator(with_data(load(path)), new_ops=[PagedAttention])
        except (NotImplementedError, KeyError) as error:
            raise UnsupportedError(f"the reference evaluator cannot run '{path}': {reason_of(error)}") from error
        except Exception as error:
            raise InvalidArgumentError(f"the reference evaluator refuses '{path}': {reason_of(error)}") from error
        return _ReferenceExecutable(evaluator, signature, precision, reader)


class _ReferenceExecutable:
    unit = Unit.CPU
    is_steady = False
    report = ""

    def __init__(self, evaluator: Any, signature: Signature, precision: str, reader: str | None) -> None:
        self.signature = signature
        self.precision = precision
        self._evaluator = evaluator
        self._text_reader = reader
        self._outputs = {spec.name: spec for spec in signature.outputs}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        feed: dict[str, Array | None] = {}
        for spec in self.signature.inputs:
            array = inputs.get(spec.name)
            if array is not None:
                # Copy the inputs: some operators return the array that they were given, and the caller owns the
                # outputs.
                is_text = spec.datatype is DataType.BYTES
                feed[spec.name] = to_text(spec.name, array, self._text_reader) if is_text else np.array(array)
            elif not spec.is_optional:
                raise InvalidArgumentError(f"input '{spec.name}' is missing")
            elif spec.name not in self._evaluator.rt_inits_:
                feed[spec.name] = None
        try:
            values: list[object] = self._evaluator.run(list(outputs), feed)
        except Exception as error:
            # Report the cause, numpy's error, which names the shapes. The evaluator's own error names only the types.
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise run_failure(cause, inputs, is_refusal=isinstance(cause, _REFUSALS)) from error
        return {name: _own(self._outputs[name], value) for name, value in ordered(outputs, values).items()}

    def interrupt(self) -> None:
        """Do nothing: the evaluator cannot interrupt a run."""

    def close(self) -> None:
        vars(self).pop("_evaluator", None)


def _own(spec: TensorSpec, value: object) -> Array:
    array: Array = np.array(value)
    if spec.datatype is DataType.BYTES:
        return to_bytes(array)
    if array.dtype != spec.datatype.dtype:
        raise InternalError(f"output '{spec.name}' came as {array.dtype}; the model states {spec}")
    return array
