"""Executables of Core ML programs, with tensors in the names and datatypes of the server's signature."""

from collections.abc import Mapping, Sequence
from typing import Any

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, TriuneError
from triune.core.executor import Executor
from triune.core.tensors import Signature
from triune.core.units import Unit
from triune.coreml.model import Model
from triune.coreml.package import Package
from triune.coreml.raising import new_state
from triune.coreml.signature import precision_of
from triune.coreml.source import Source
from triune.runtimes.coreml.tensors import to_output
from triune.runtimes.failures import run_failure


class PackageExecutable:
    """An executable that computes a function of a package, with the tensor names of the server's signature.

    A state of the function is an input (zeros if it is left out) and an output: nothing is kept between calls.
    """

    def __init__(
        self,
        package: Package,
        executor: Executor,
        unit: Unit,
        signature: Signature,
        *,
        function: str | None = None,
        source: Source | None = None,
        is_steady: bool = False,
        report: str = "",
    ) -> None:
        """Args:
        package: the package.
        executor: the executor that computes the function.
        unit: the unit that it computes on.
        signature: the result of `tensors.signature_of`; for a converted model, the signature of its ONNX source.
        function: the function's name; None means the default function.
        source: for a converted model, the names and ranks of tensors in the ONNX model.
        is_steady: whether the time of a run depends only on the shapes of the inputs.
        report: the text of `Executable.report`: where the function computes.
        """
        self.is_steady = is_steady
        self.report = report
        self.unit = unit
        # `cpu` computes in fp32 whatever the program's precision is: it is the reference for the other units.
        self.precision = "fp32" if unit is Unit.CPU else precision_of(package, function)
        self.signature = signature
        self._model = Model(package, function=function, executor=executor)
        source = source or Source()
        inputs = {tensor.name: name for name, tensor in source.inputs.items()}
        outputs = {tensor.name: name for name, tensor in source.outputs.items()}
        self._inputs = {spec.name: inputs.get(spec.name, spec.name) for spec in signature.inputs}
        self._outputs = {spec.name: (outputs.get(spec.name, spec.name), spec) for spec in signature.outputs}
        self._scalars = {tensor.name for tensor in source.outputs.values() if tensor.rank == 0}
        self._states = {feature.name for feature in self._model.interface.states}
        self._new_states = {new_state(name): name for name in self._states}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute outputs: see `Executable.run`."""
        unknown = sorted(inputs.keys() - self._inputs.keys())
        if unknown:
            raise InvalidArgumentError(f"the model has no input '{unknown[0]}'; it has {', '.join(self._inputs)}")
        given = {self._inputs[name]: array if array.ndim else array.reshape(1) for name, array in inputs.items()}
        state = self._model.make_state() if self._states else None
        try:
            if state is not None:
                for name in self._states & given.keys():
                    state.write(name, given.pop(name))
            answers = self._model.predict(given, state)
        except TriuneError:
            raise
        except Exception as error:
            raise run_failure(error, inputs) from error
        if state is not None:
            # Return the state's buffers without a copy: only this function has a reference to this state.
            answers |= {new: state.arrays[name] for new, name in self._new_states.items()}
        found: dict[str, Array] = {}
        for name in outputs:
            package_name, spec = self._outputs[name]
            found[name] = to_output(spec, answers[package_name], is_scalar=name in self._scalars)
        return found

    def interrupt(self) -> None:
        """Do nothing: the library cannot interrupt a run."""

    def close(self) -> None:
        """Free the function: see `Executable.close`."""
        vars(self).pop("_model", None)


class CompiledExecutable:
    """A Core ML model that was compiled before, run by Core ML."""

    is_steady = False

    def __init__(self, model: Any, unit: Unit, precision: str, signature: Signature, report: str) -> None:
        """Args:
        model: coremltools' `CompiledMLModel`.
        unit, precision, signature, report: what this executable reports as its own.
        """
        self.report = report
        self.unit = unit
        self.precision = precision
        self.signature = signature
        self._model = model
        self._outputs = {spec.name: spec for spec in signature.outputs}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute outputs: see `Executable.run`."""
        try:
            answers = self._model.predict(dict(inputs))
        except TriuneError:
            raise
        except Exception as error:
            raise run_failure(error, inputs) from error
        return {name: to_output(self._outputs[name], answers[name]) for name in outputs}

    def interrupt(self) -> None:
        """Do nothing: the library cannot interrupt a run."""

    def close(self) -> None:
        """Free the model: see `Executable.close`."""
        vars(self).pop("_model", None)
