"""Core AI models that predict.

On macOS 27 and later Core AI runs them. On any system they run in Apple's interpreter or, converted to ONNX, in ONNX
Runtime.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.model import Model as LoadedModel
from triune.core.model import needs_state
from triune.core.state import State
from triune.core.tensors import Signature
from triune.core.units import Unit
from triune.coreai.description import describe
from triune.coreai.interface import Interface, as_array, to_array
from triune.coreai.limits import limits_of
from triune.coreai.system import has_system_runtime
from triune.coreai.variants import merged, no_variant, variants_of

if TYPE_CHECKING:
    from triune.coreai.executors import AppleExecutor, RaisedExecutor

ExecutorName: TypeAlias = Literal["coreai", "interpreter", "onnxruntime"]
_EXECUTORS: Final = get_args(ExecutorName)


def load(
    path: Path | str, *, function: str | None = None, executor: ExecutorName | None = None, unit: Unit | None = None
) -> "Model":
    """Load an `.aimodel`.

    Args:
        path: the asset.
        function: the function's name; None for "main" or the only function. The name of a function that was
            converted for several shapes selects the variants for all of them.
        executor: "coreai" (the system's own: macOS 27 and later), "interpreter" (Apple's, slow, in a child process), or
            "onnxruntime" (raised to ONNX). If None, Core AI if the system has it, else ONNX Runtime.
        unit: the unit that Core AI should prefer: `cpu`, `gpu` or `ane`; the Neural Engine if None. Core AI does not
            report where a function ran.

    Raises:
        NotFoundError: there is no such asset or function.
        InvalidArgumentError: the asset is broken.
        UnsupportedError: the executor cannot run the function, or is not available on this system.
    """
    return Model(Path(path), function=function, executor=executor, unit=unit)


class Model(LoadedModel):
    """One function of an asset. Calls may run at the same time, except those on the same state.

    Attributes:
        executor: the name of the executor.
    """

    def __init__(
        self,
        path: Path,
        *,
        function: str | None = None,
        executor: ExecutorName | None = None,
        unit: Unit | None = None,
    ) -> None:
        """Load a function, with the arguments and errors of `load`."""
        if executor is not None and executor not in _EXECUTORS:
            raise UnsupportedError(f"there is no executor '{executor}'; there are {', '.join(_EXECUTORS)}")
        if executor is None:
            executor = "coreai" if has_system_runtime() else "onnxruntime"
        if unit is not None and executor != "coreai":
            raise InvalidArgumentError(f"a unit is for executor 'coreai'; '{executor}' runs on the CPU: leave unit out")
        self.executor: Final = executor
        description = describe(path)
        chosen, functions = variants_of(description, function)
        interfaces = {each.name: Interface.of(each, limits_of(description, each.name)) for each in functions}
        super().__init__(path.name, chosen, [spec.name for spec in interfaces[functions[0].name].outputs])
        # Import these modules only now, since they import Apple's library. It is installed: it has described the asset.
        from triune.coreai.executors import AppleExecutor, RaisedExecutor
        from triune.coreai.program import load_program

        program = load_program(path) if executor == "onnxruntime" else None
        self._variants: Final[list[_Variant]] = []
        for each in functions:
            if program is not None:
                computing = RaisedExecutor(program, path.name, each)
            else:
                computing = AppleExecutor(path, each, (unit or Unit.ANE) if executor == "coreai" else None)
            self._variants.append(_Variant(each.name, computing, interfaces[each.name]))

    @property
    def interface(self) -> Interface:
        """The interface of the function; if it was converted for several shapes, that of the first variant."""
        return self._variants[0].interface

    @property
    def signature(self) -> Signature:
        """The inputs and outputs of the function; a dimension is free if the variants for several shapes differ in
        it.
        """
        each = [variant.interface for variant in self._variants]
        return Signature(merged([one.inputs for one in each]), merged([one.outputs for one in each]), 0)

    def make_state(self) -> State:
        """Make new buffers, filled with zeros, for the function's states; none if it has no states."""
        specs = {spec.name: spec for spec in self.interface.states}
        arrays = {name: np.zeros(spec.shape, spec.datatype.dtype) for name, spec in specs.items()}
        return State(arrays, lambda name, value: to_array(f"state '{name}'", specs[name], value))

    def _compute(self, inputs: Mapping[str, Any], outputs: Sequence[str], state: State | None) -> dict[str, Any]:
        """Run the function. Raises InternalError if Apple's library crashed."""
        variant = self._variant(inputs)
        arrays = variant.interface.check(inputs, f"'{self.name}', function '{variant.name}'")
        if state is None:
            if variant.interface.states:
                raise needs_state([spec.name for spec in variant.interface.states])
            return variant.executor.run(arrays, {})[0]
        with state.lock:
            state.check({spec.name: spec.shape for spec in variant.interface.states})
            found, state.arrays = variant.executor.run(arrays, state.arrays)
        return found

    def _free(self) -> None:
        """End the child processes of the executors."""
        for variant in self._variants:
            variant.executor.close()

    def _location(self) -> str:
        return f"function '{self.function}' in {self.executor}"

    def _interface(self) -> str:
        inputs, given = (", ".join(map(str, each)) for each in (self.interface.inputs, self.interface.outputs))
        return f"{inputs} -> {given}"

    def _variant(self, inputs: Mapping[str, Any]) -> "_Variant":
        if len(self._variants) == 1:
            return self._variants[0]
        arrays = {name: as_array(f"input '{name}'", value) for name, value in inputs.items()}
        for variant in self._variants:
            if variant.interface.fits(arrays):
                return variant
        given = {name: array.shape for name, array in arrays.items()}
        raise InvalidArgumentError(
            no_variant(f"'{self.name}'", given, [each.interface.inputs for each in self._variants])
        )


@dataclass(frozen=True, slots=True)
class _Variant:
    """A function that was converted for one of several fixed shapes."""

    name: str
    executor: "AppleExecutor | RaisedExecutor"
    interface: Interface
