"""Functions of assets as executables: tensors in the server's datatypes, and the variants for several shapes as one."""

from collections.abc import Mapping, Sequence

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.runtime import Executable
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.coreai.limits import Limits, check_limits
from triune.coreai.variants import fits, no_variant


class FunctionExecutable:
    """A function of an asset, with tensors in the names and datatypes of the server's signature.

    A state is an input (zeros if it is left out) and an output: nothing is kept between calls.
    """

    def __init__(
        self,
        inner: Executable,
        unit: Unit,
        precision: str,
        signature: Signature,
        function: Signature,
        limits: Mapping[str, Limits],
    ) -> None:
        """Args:
        inner: the executable that computes the function; its tensors have the function's names.
        unit, precision, signature: what this executable reports as its own. If the asset was converted from an ONNX
            model, `signature` is that of the ONNX model.
        function: the function's description.
        limits: the shapes that its inputs may have, by name; others may have any that fit `function`.
        """
        self.unit = unit
        self.is_steady = inner.is_steady
        self.precision = precision
        self.signature = signature
        self.report = inner.report
        self._inner = inner
        self._given = {spec.name: spec for spec in function.inputs}
        self._limits = limits
        self._wanted = {spec.name: spec for spec in signature.outputs}
        # An ONNX model made from a program names an output "NAME/output" if an input is called NAME
        # (`coreai.raising.function`).
        inner_outputs = {spec.name for spec in inner.signature.outputs}
        self._inner_names = {name: name if name in inner_outputs else f"{name}/output" for name in self._wanted}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute outputs: see `Executable.run`."""
        unknown = sorted(inputs.keys() - self._given.keys())
        if unknown:
            raise InvalidArgumentError(f"the model has no input '{unknown[0]}'; it has {', '.join(self._given)}")
        given: dict[str, Array] = {}
        for name, spec in self._given.items():
            if name in inputs:
                given[name] = _narrowed(name, inputs[name], spec)
                if name in self._limits:
                    check_limits(name, given[name].shape, self._limits[name])
            elif spec.is_state:
                given[name] = np.zeros(spec.shape, spec.datatype.dtype)
            else:
                raise InvalidArgumentError(f"input '{name}' is missing")
        names = self._inner_names
        found = self._inner.run(given, [names[name] for name in outputs])
        return {name: found[names[name]].astype(self._wanted[name].datatype.dtype, copy=False) for name in outputs}

    def interrupt(self) -> None:
        """Ask the running `run` to end soon, if the library can."""
        self._inner.interrupt()

    def close(self) -> None:
        """Free the executable."""
        self._inner.close()


class VariantsExecutable:
    """The variants of a function for several shapes as one executable: each call runs the one that has its shapes."""

    def __init__(self, variants: Sequence[Executable], signature: Signature) -> None:
        """Args:
        variants: the variants' executables, on one unit.
        signature: what this executable reports as its own: the variants' signatures, merged.
        """
        first = variants[0]
        self.unit = first.unit
        self.is_steady = first.is_steady
        self.precision = first.precision
        self.signature = signature
        self._variants = variants
        self._running = first

    @property
    def report(self) -> str:
        """The report of the variant that ran last."""
        return self._running.report

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute outputs: see `Executable.run`."""
        given = {name: array.shape for name, array in inputs.items()}
        for variant in self._variants:
            if all(fits(given.get(spec.name, spec.shape), spec.shape) for spec in variant.signature.inputs):
                self._running = variant
                return variant.run(inputs, outputs)
        raise InvalidArgumentError(no_variant("the model", given, [each.signature.inputs for each in self._variants]))

    def interrupt(self) -> None:
        """Ask the running `run` to end soon, if the library can."""
        self._running.interrupt()

    def close(self) -> None:
        """Free the executables."""
        for each in self._variants:
            each.close()


def _narrowed(name: str, array: Array, spec: TensorSpec) -> Array:
    """Cast an input to the function's dtype. Raises InvalidArgumentError for integers that do not fit."""
    dtype = spec.datatype.dtype
    if array.dtype == dtype:
        return array
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)  # pyright: ignore[reportArgumentType,reportCallIssue,reportUnknownVariableType]
        low, high = int(limits.min), int(limits.max)  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]
        if array.min() < low or array.max() > high:
            raise InvalidArgumentError(f"input '{name}' has numbers beyond {spec.datatype.value}, {low} to {high}")
    return array.astype(dtype)
