"""`triune.unit` and `triune.matmul`: direct work on a named unit, or on the unit that was measured to be the
fastest.
"""

import functools
import importlib.metadata
import logging
import os
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from triune.api.direct.arrays import NAMES, array_of, dtype_name
from triune.api.direct.crossovers import (
    BATCH,
    BATCHED,
    FEW_ROWS,
    ROW,
    SIZES,
    SQUARE,
    Choice,
    Times,
    choices,
    load_times,
    save_times,
    shape_of,
)
from triune.api.direct.executables import BACKEND, Executables
from triune.api.direct.graphs import Work
from triune.api.direct.unit import DirectUnit
from triune.api.unit_names import named_units
from triune.config.load_key import digest_of
from triune.core.cache import cache_folder
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Presence, Unit
from triune.core.version import VERSION
from triune.runtimes.machine import Machine, this_machine
from triune.runtimes.registry import ROWS

_log = logging.getLogger(__name__)

_BITS: Final = {"fp32": 24, "fp16": 11, "bf16": 8}
"""The number of bits of the significand of each format."""

_CHOSEN: Final = (Unit.CPU, Unit.AMX, Unit.GPU)
"""The units from which `matmul` chooses. The Neural Engine is none of them: it would need a conversion for each shape,
which takes seconds.
"""

_ROUNDS: Final = 5
_BUSY: Final = 0.5
"""The load average per core from which on the log says that measured times may be wrong."""

_LONG: Final = 0.2
_SECONDS: Final = 0.01
"""The time, in seconds, for which a product is repeated in each round of a measurement. The shortest time counts."""


class Direct:
    """Direct work on one machine. May be used from any thread."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        """Args:
        machine: the units and runtimes.
        folder: the folder for measured times, created when needed.
        """
        self._machine = machine
        self._executables = Executables(machine)
        self._path = folder / f"{digest_of(_words(machine))[:16]}.json"
        self._times: dict[str, Times] | None = None
        self._choices: dict[tuple[str, str | None], Mapping[str, Choice]] = {}
        self._units: dict[Unit, DirectUnit] = {}
        self._lock = threading.Lock()

    def unit(self, unit: Unit) -> DirectUnit:
        """Return a unit of the machine. Raises UnsupportedError if the machine lacks it, or no runtime computes on
        it.
        """
        if unit not in self._units:
            self._machine.runtime_for(BACKEND, unit)
            is_emulated = self._machine.status(unit).presence is Presence.EMULATED
            self._units[unit] = DirectUnit(unit, self._executables, is_emulated=is_emulated)
        return self._units[unit]

    def matmul(self, a: Any, b: Any, precision: str | None = None) -> Array:
        """Multiply two arrays on the fastest unit: see the function `matmul`."""
        first, second = array_of(a, "a"), array_of(b, "b")
        dtype = dtype_name(first, second, ("a", "b"))
        by_shape = self.best(dtype, precision)
        if first.ndim == 2 and second.ndim == 2:
            # Choose for two matrices, the common case, without the sizes of batches: this choice takes less than 1 us.
            rows, columns = first.shape[0], second.shape[1]
            unit = by_shape[ROW if rows <= FEW_ROWS else SQUARE](rows * first.shape[1] * columns)
            return self._units[unit].product(first, second, dtype)
        rows, columns = first.shape[-2] if first.ndim > 1 else 1, second.shape[-1] if second.ndim > 1 else 1
        batch = second.size // max(1, second.shape[-2] * columns) if second.ndim > 2 else 1
        all_rows = first.size // max(1, first.shape[-1]) if first.ndim else 1
        unit = by_shape[shape_of(all_rows, batch)](max(first.size * columns, second.size * rows))
        return self._units[unit].product(first, second, dtype)

    def tune(self, dtypes: Sequence[str] = tuple(NAMES.values())) -> Mapping[str, Times]:
        """Measure products of these dtypes on each unit that `matmul` may choose, and store the times. Returns the
        stored times of all dtypes.
        """
        load, num_cores = os.getloadavg()[0], self._machine.num_cores
        if load > _BUSY * num_cores:
            _log.warning(
                "products are measured while other programs use the cores (a load of %.1f on %d), so that a slower "
                "unit may be chosen for some sizes; `triune units --measure` measures them again",
                load,
                num_cores,
            )
        with self._lock:
            kept = dict(self._times if self._times is not None else load_times(self._path))
            kept |= {dtype: self._measure(dtype) for dtype in dtypes}
            save_times(self._path, kept)
            self._times = kept
            self._choices = {}
            return kept

    def best(self, dtype: str, precision: str | None = None) -> Mapping[str, Choice]:
        """The chosen unit for each kind of product (`crossovers.SIZES`). The arguments are those of `matmul`."""
        return self._choices.get((dtype, precision)) or self._choose(dtype, precision)

    def close(self) -> None:
        """Free everything that was compiled."""
        self._executables.close()

    def _choose(self, dtype: str, precision: str | None) -> Mapping[str, Choice]:
        """The best units for each kind of product (`crossovers.SIZES`) among those that compute in the precision. Units
        that were not measured are measured now.
        """
        units = self.eligible(dtype, precision)
        if len(units) == 1:
            found = dict.fromkeys(SIZES, Choice((), (units[0],)))
        else:
            with self._lock:
                if self._times is None:
                    self._times = load_times(self._path)
                times = self._times.get(dtype)
            if times is None or any(unit not in times[SQUARE][SIZES[SQUARE][0]] for unit in units):
                self.tune([dtype])
                times = (self._times or {})[dtype]
            found = choices(times, units)
        for unit in units:
            self.unit(unit)
        self._choices[dtype, precision] = found
        return found

    def eligible(self, dtype: str, precision: str | None = None) -> Sequence[Unit]:
        """The units that compute in the precision of a dtype. `matmul` chooses from them.

        Raises:
            InvalidArgumentError: there is no such precision.
            UnsupportedError: no unit computes in this precision.
        """
        wanted = precision or ("fp32" if dtype == "int8" else dtype)
        if wanted not in _BITS:
            raise InvalidArgumentError(f"there is no precision {precision!r}; choose one of {', '.join(_BITS)}")
        work = Work("MatMul", dtype, (2, 2))
        candidates = self._candidates()
        # For int8 every unit is eligible, since sums of int8 are exact on all of them.
        units = [
            unit
            for unit in candidates
            if dtype == "int8" or _BITS[self._executables.precision(unit, work)] >= _BITS[wanted]
        ]
        if not units:
            raise UnsupportedError(
                f"no unit of this machine computes in {wanted}; of {', '.join(each.value for each in candidates)} name "
                "one by triune.unit, or allow a lower precision by precision='bf16'"
            )
        return units

    def _candidates(self) -> Sequence[Unit]:
        present = {each.unit for each in self._machine.units if each.presence is Presence.PRESENT}
        found: list[Unit] = []
        for unit in _CHOSEN:
            if unit in present:
                try:
                    self._machine.runtime_for(BACKEND, unit)
                except UnsupportedError:
                    continue
                found.append(unit)
        return found

    def _measure(self, dtype: str) -> Times:
        units = [self.unit(unit) for unit in self._candidates()]
        return {
            shape: {size: _seconds(units, *_operands(shape, size, dtype), dtype) for size in sizes}
            for shape, sizes in SIZES.items()
        }


def unit(name: str) -> DirectUnit:
    """A unit of this machine, for direct work: "cpu", "amx", "gpu" or "ane".

    Raises:
        InvalidArgumentError: there is no such unit.
        UnsupportedError: this machine lacks the unit, or the runtime that computes on it is not installed.
    """
    (found,) = named_units([name])
    return here().unit(found)


def matmul(a: Any, b: Any, *, precision: str | None = None) -> Array:
    """The product of two arrays, on the unit that was measured to be the fastest for a product of this size.

    Before the first product of a dtype the units are measured, which takes some seconds; the times are kept in the
    cache folder (`triune units --measure` measures again). Emulated units and the Neural Engine are not chosen.

    Args:
        a: (..., m, k) of FP32, FP16, BF16 (ml_dtypes) or INT8: a numpy array, or one that can be read by DLPack.
        b: (..., k, n) of the same dtype. Batches are broadcast, as numpy does.
        precision: the least precision in which floats may be multiplied: "fp32", "fp16" or "bf16"; None means the
            precision of the arrays. With "bf16" products of fp32 may be computed by matrix units that round operands to
            bf16.

    Returns:
        (..., m, n) of the same dtype; of int8, exact sums as INT32.

    Raises:
        InvalidArgumentError: shapes, dtypes or the precision are wrong.
        UnsupportedError: no unit computes in the precision.
        UnavailableError: the result does not fit the memory.
    """
    return here().matmul(a, b, precision)


@functools.cache
def here() -> Direct:
    """Direct work on this machine. Imports the libraries of its runtimes."""
    return Direct(this_machine(), cache_folder() / "direct")


def _operands(shape: str, size: int, dtype: str) -> tuple[Array, Array]:
    random = np.random.default_rng(size)
    rows = 1 if shape == ROW else size
    batch = (BATCH,) if shape == BATCHED else ()
    of_name = {name: each for each, name in NAMES.items()}[dtype]
    # Make numbers up to 127: numbers between -1 and 1 would all be 0 when they are cast to int8.
    left, right = (
        np.clip(30 * random.standard_normal((*batch, n, size), np.float32), -127, 127).astype(of_name)
        for n in (rows, size)
    )
    return left, right


def _seconds(units: Sequence[DirectUnit], a: Array, b: Array, dtype: str) -> Mapping[Unit, float]:
    """The shortest time, in seconds, of the product of `a` and `b` on each unit. The units are measured alternately, so
    that other work on the machine affects all of them.
    """
    for each in units:
        each.product(a, b, dtype)
    found = {each.unit: float("inf") for each in units}
    for _ in range(_ROUNDS):
        for each in units:
            # Measure a product that took longer than `_LONG` seconds only once.
            if _LONG < found[each.unit] < float("inf"):
                continue
            end = time.perf_counter() + _SECONDS
            while True:
                start = time.perf_counter()
                each.product(a, b, dtype)
                now = time.perf_counter()
                found[each.unit] = min(found[each.unit], now - start)
                if now >= end:
                    break
    return found


def _words(machine: Machine) -> list[str]:
    """Texts of everything that times depend on: the machine, its system, and the versions of the libraries."""
    names = sorted({"numpy", *(each for row in ROWS if row.name in machine.runtimes for each in row.distributions)})
    versions: list[str] = []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return [VERSION, platform.platform(), repr(machine.units), f"{machine.num_cores}", *versions]
