"""Calls a program with numpy arrays, and compiles it for each set of shapes."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.metal.library import Value, exclusive, is_gpu, mx
from triune.metal.nvidia import Download, Upload
from triune.metal.program import Program

MOST_COMPILED = 32
"""The most sets of shapes for which a compiled function is kept. Each has its own copy of the graph; all share the
weights.
"""

NO_DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType({})

_Compiled: TypeAlias = tuple[Callable[..., list[Value]], list[str]]
"""A compiled function, which returns outputs and then faults (`MlxBuilder.faults`); and the message of each fault."""


class OutsideError(ValueError):
    """An index was out of range."""


class Function:
    """Computes a program's outputs. In a process, only one call at a time computes with MLX; others wait.

    Attributes:
        compiles: whether MLX compiles the program. On a CPU it does not, since MLX would start a C++ compiler.
    """

    def __init__(
        self, program: Program, *, compiles: bool | None = None, dtypes: Mapping[str, np.dtype[Any]] = NO_DTYPES
    ) -> None:
        """Make a function of a program.

        Args:
            program: the program.
            compiles: whether to compile; None compiles only on a GPU.
            dtypes: the requested dtypes of outputs by name. Outputs that are requested in fp32 are cast on the GPU,
                since casting from 16 bits in numpy takes longer than many models take on a GPU.
        """
        self._program = program
        self._upload = Upload()
        self._widened = {name for name, dtype in dtypes.items() if dtype == np.float32}
        self.compiles = (is_gpu() if compiles is None else compiles) and not program.is_random
        self._compiled: OrderedDict[tuple[Any, ...], _Compiled | None] = OrderedDict()

    @property
    def num_compiled(self) -> int:
        """The number of sets of shapes for which it was decided whether to compile the program."""
        return len(self._compiled)

    def __call__(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute outputs.

        Raises:
            OutsideError: an index is outside a dimension.
            UnsupportedError: a node cannot compute these inputs.
            Exception: any error of MLX.
        """
        with exclusive():
            values = {name: self._upload(name, array) for name, array in inputs.items()}
            found, faults = self._compute(values, outputs)
            downloads = [Download(value) for value in found]
            mx.eval([each.arrays for each in downloads], [fault for fault, _ in faults])
            outside = next((message for fault, message in faults if fault.item()), None)
            if outside is not None:
                raise OutsideError(outside)
            return [each.result() for each in downloads]

    def _compute(
        self, values: Mapping[str, Value], outputs: Sequence[str]
    ) -> tuple[list[Value], list[tuple[Value, str]]]:
        compiled = self._compiled_for(values, outputs) if self.compiles else None
        if compiled is None:
            found, faults = self._program(values, outputs)
            return self._cast(found, outputs), faults
        function, messages = compiled
        found = function(*values.values())
        return found[: len(outputs)], list(zip(found[len(outputs) :], messages, strict=True))

    def _cast(self, found: Sequence[Value], outputs: Sequence[str]) -> list[Value]:
        return [
            value.astype(mx.float32) if name in self._widened else value
            for name, value in zip(outputs, found, strict=True)
        ]

    def _compiled_for(self, values: Mapping[str, Value], outputs: Sequence[str]) -> _Compiled | None:
        """The compiled function for these shapes; None if the program must read elements to decide what to compute."""
        key = (tuple(outputs), tuple((name, *value.shape) for name, value in values.items()))
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]
        compiled = self._compile(values, outputs)
        self._compiled[key] = compiled
        if len(self._compiled) > MOST_COMPILED:
            self._compiled.popitem(last=False)
        return compiled

    def _compile(self, values: Mapping[str, Value], outputs: Sequence[str]) -> _Compiled | None:
        names, messages = list(values), list[str]()

        def compute(*arrays: Value) -> list[Value]:
            found, faults = self._program(dict(zip(names, arrays, strict=True)), outputs, is_compiling=True)
            messages[:] = [message for _, message in faults]
            return [*self._cast(found, outputs), *(fault for fault, _ in faults)]

        function: Callable[..., list[Value]] = mx.compile(compute)
        try:
            function(*values.values())
        # Run the program without compiling. If compiling was not the cause of the error, the error is raised again.
        except Exception:  # noqa: BLE001
            return None
        return function, messages
