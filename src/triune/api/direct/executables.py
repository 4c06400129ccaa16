"""Compiles the operations of direct calls, and keeps the executables that were used most recently."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from triune.api.direct.accelerate import AccelerateProduct, is_on_accelerate
from triune.api.direct.graphs import Work, graph_of
from triune.core.datatypes import Array
from triune.core.runtime import Executable
from triune.core.scratch import HeldFolder
from triune.core.units import Unit
from triune.runtimes.machine import Machine

MOST_KEPT: Final = 32
"""The most executables in the cache. The least recently used one is closed first."""

BACKEND: Final = "onnxruntime"
"""The backend of direct calls: each operation is written as an ONNX file. A machine has a runtime for this backend on
each unit, which need not be ONNX Runtime.
"""

_FIXED_SHAPES: Final = ("coreml", "coreai")
"""The runtimes that compile an executable for each set of shapes. In other runtimes one executable computes all sizes,
and is not slower.
"""


_FIXED_KERNELS: Final = ("openvino",)
"""The runtimes that must know the shape of a convolution's kernel when they compile the convolution."""


class _Kept:
    """An executable in the cache, which runs one call at a time."""

    def __init__(self, executable: Executable) -> None:
        self.executable = executable
        self.lock = threading.Lock()
        self.is_closed = False


class Executables:
    """Compiles each `Work` when it is first needed, and runs it. May be used from any thread."""

    def __init__(self, machine: Machine) -> None:
        """`machine` has the units and runtimes."""
        self._machine = machine
        self._kept: OrderedDict[tuple[Unit, Work], _Kept] = OrderedDict()
        self._runtimes: dict[Unit, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """The number of executables in the cache."""
        return len(self._kept)

    def run(self, unit: Unit, work: Work, arrays: Sequence[Array]) -> Array:
        """Run `work` on arrays, without copying them if the runtime supports this.

        Raises:
            UnsupportedError: no installed runtime computes the work on the unit.
            InvalidArgumentError: the runtime refuses these sizes.
            InternalError: the runtime failed.
        """
        work = self._fixed(unit, work, arrays)
        inputs = {f"x{at}": array for at, array in enumerate(arrays)}
        while True:
            kept = self._find(unit, work)
            with kept.lock:
                # Another call may have closed the executable to make room in the cache: then compile the work again.
                if not kept.is_closed:
                    return kept.executable.run(inputs, ["y"])["y"]

    def precision(self, unit: Unit, work: Work) -> str:
        """The floating-point format in which the unit does this work. Raises the errors of `run`."""
        return self._find(unit, work).executable.precision

    def close(self) -> None:
        """Free all executables."""
        with self._lock:
            kept, self._kept = list(self._kept.values()), OrderedDict()
        for each in kept:
            _close(each)

    def _fixed(self, unit: Unit, work: Work, arrays: Sequence[Array]) -> Work:
        """A copy of the work, with the shapes of those arrays for which the unit's runtime must know them to
        compile.
        """
        if unit not in self._runtimes:
            self._runtimes[unit] = self._machine.runtime_for(BACKEND, unit).name
        runtime = self._runtimes[unit]
        if runtime in _FIXED_SHAPES and not self._is_by_accelerate(unit, work):
            return replace(work, shapes=tuple(each.shape for each in arrays))
        if runtime in _FIXED_KERNELS and work.op == "Conv":
            return replace(work, shapes=((), arrays[1].shape))
        return work

    def _find(self, unit: Unit, work: Work) -> _Kept:
        with self._lock:
            found = self._kept.get((unit, work))
            if found is not None:
                self._kept.move_to_end((unit, work))
                return found
            found = self._kept[unit, work] = _Kept(self._compile(unit, work))
            oldest = self._kept.popitem(last=False)[1] if len(self._kept) > MOST_KEPT else None
        if oldest is not None:
            _close(oldest)
        return found

    def _is_by_accelerate(self, unit: Unit, work: Work) -> bool:
        is_apple = self._machine.runtime_for(BACKEND, unit).name in _FIXED_SHAPES
        return unit is Unit.AMX and work.op == "MatMul" and is_apple and is_on_accelerate()

    def _compile(self, unit: Unit, work: Work) -> Executable:
        if self._is_by_accelerate(unit, work):
            return AccelerateProduct()
        runtime = self._machine.runtime_for(BACKEND, unit)
        with HeldFolder() as folder:
            path = folder / "model.onnx"
            path.write_bytes(graph_of(work, unit).SerializeToString())
            return runtime.load(path, unit=unit, num_threads=self._machine.num_cores, options={})


def _close(kept: _Kept) -> None:
    with kept.lock:
        kept.is_closed = True
        kept.executable.close()
