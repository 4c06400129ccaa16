"""Executors of a function of an asset: Apple's library in a child process, or ONNX Runtime on the raised graph."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triune.core.datatypes import Array
from triune.core.units import Unit
from triune.coreai.description import Function
from triune.coreai.executable import HOST_LIMITS, AppleExecutable
from triune.coreai.raising import raise_function
from triune.graph.half_rounding import keep_half_rounding
from triune.graph.session import GraphSession
from triune.graph.state_names import new_state
from triune.hosting import HostedExecutable


class AppleExecutor:
    """An `Executor` that runs Apple's library: its interpreter, or the system's runtime on macOS 27 and later."""

    def __init__(self, path: Path, function: Function, unit: Unit | None) -> None:
        """Load a function in a child process, with the arguments and errors of `AppleExecutable`.

        Raises:
            InternalError: Apple's library crashed.
        """
        what = "Core AI's interpreter" if unit is None else f"Core AI on '{unit.value}'"
        load = functools.partial(AppleExecutable, path, function.name, unit, function.precision)
        self._executable = HostedExecutable(load, f"'{path.name}' in {what}", limits=HOST_LIMITS)

    def run(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Run the function once; `Executor.run` describes the arguments."""
        names = [spec.name for spec in self._executable.signature.outputs]
        found = self._executable.run({**inputs, **states}, names)
        return found, {name: found.pop(new_state(name)) for name in states}

    def close(self) -> None:
        """End the child process."""
        self._executable.close()


class RaisedExecutor:
    """An `Executor` that raises the function to ONNX, and runs that in ONNX Runtime on the CPU."""

    def __init__(self, program: Any, where: str, function: Function, *, num_threads: int = 0) -> None:
        """Raise a function to ONNX and load it, with the errors of `raise_function` and `GraphSession`.

        Args:
            program: a program from `load_program`.
            where: the asset's name in messages.
            function: the function, from `describe`.
            num_threads: the number of threads that compute; 0 lets ONNX Runtime choose.
        """
        model = raise_function(program, function.name)
        # Match outputs by their order: an output with the name of an input has another name in the ONNX graph.
        names = [value.name for value in model.graph.output]
        self._names = dict(zip(names, [each.name for each in function.outputs], strict=False))
        keep_half_rounding(model)
        states = [each.name for each in function.states]
        name = f"'{where}', function '{function.name}'"
        self._session = GraphSession(model, name, states=states, num_threads=num_threads)

    def run(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Run the function once; `Executor.run` describes the arguments."""
        outputs, after = self._session.run(inputs, states)
        return {self._names[name]: array for name, array in outputs.items()}, after

    def close(self) -> None:
        """Free the session."""
        del self._session
