"""The list of runtimes. To add a runtime, write an adapter and add a row here."""

import functools
import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from triune.core.runtime import Runtime
from triune.core.units import Unit, UnitStatus
from triune.coreai.system import has_system_runtime
from triune.runtimes.served import coreai_units, coreml_units, mlx_units, onnxruntime_units, openvino_units


@dataclass(frozen=True, slots=True)
class RuntimeSetup:
    """The arguments for creating a runtime.

    Attributes:
        units: this machine's units, from `hardware.units.detect_units`.
        conversion_bytes: the memory limit of a conversion; None means three quarters of the machine's memory.
        run_bytes: the memory limit of one run; None sets no limit.
        runtimes: the runtimes of the rows above this one.
        op_libraries: shared libraries of custom operators for ONNX Runtime.
    """

    units: Sequence[UnitStatus]
    conversion_bytes: int | None
    run_bytes: int | None
    runtimes: Sequence[Runtime]
    op_libraries: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A runtime, as this list describes it.

    Attributes:
        name: the backend's name in config.pbtxt, which is also the name of the extra that installs its library.
        library: a module that can be imported if the library is installed.
        title: the library's name.
        distributions: the packages of the library, by their names in a package index. Their versions are reported, and
            a model that was tried with other versions is tried again.
        make: creates the runtime, and imports its library.
        units: returns the units that the runtime serves, from this machine's units and those that the runtimes of the
            rows above serve: the same as `Runtime.units`, but without importing the library.
        platform: the runtime's name in the config's older field `platform`; "" if Triton has none.
        suffixes: the file suffixes that imply this backend if no config names one.
        is_folder: whether models with these suffixes are folders.
        is_always_here: whether its library is always installed with Triune, without an extra.
        stands_in_for: other backends whose files this runtime can load, each with the units on which it does so, since
            the backend's own runtime does not support them. If several rows can, the first one that is installed is
            used.
    """

    name: str
    library: str
    title: str
    distributions: tuple[str, ...]
    make: Callable[[RuntimeSetup], Runtime]
    units: Callable[[Sequence[UnitStatus], Collection[Unit]], Sequence[Unit]]
    platform: str = ""
    suffixes: tuple[str, ...] = ()
    is_folder: bool = False
    is_always_here: bool = False
    stands_in_for: Mapping[str, frozenset[Unit]] = field(default_factory=dict[str, frozenset[Unit]])


def _onnxruntime(setup: RuntimeSetup) -> Runtime:
    from triune.runtimes.onnxruntime import OnnxRuntime

    return OnnxRuntime(setup.run_bytes, setup.op_libraries)


def _openvino(setup: RuntimeSetup) -> Runtime:
    from triune.runtimes.openvino import OpenVino

    return OpenVino(setup.units, setup.run_bytes)


def _mlx(setup: RuntimeSetup) -> Runtime:
    from triune.runtimes.mlx import Mlx

    return Mlx(setup.units, setup.run_bytes)


def _coreai(setup: RuntimeSetup) -> Runtime:
    from triune.runtimes.coreai import CoreAi

    # For each unit, the runtime that runs ONNX models made from assets.
    raised = {unit: runtime for runtime in reversed(setup.runtimes) for unit in runtime.units()}
    return CoreAi(setup.units, raised, conversion_bytes=setup.conversion_bytes, run_bytes=setup.run_bytes)


def _coreml(setup: RuntimeSetup) -> Runtime:
    from triune.runtimes.coreml import CoreMl
    from triune.runtimes.coreml.conversion import convert_in_process

    convert = functools.partial(convert_in_process, memory_bytes=setup.conversion_bytes)
    return CoreMl(setup.units, convert=convert, run_bytes=setup.run_bytes)


ROWS: Sequence[Row] = (
    Row(
        name="onnxruntime",
        library="onnxruntime",
        title="ONNX Runtime",
        distributions=("onnxruntime",),
        make=_onnxruntime,
        units=lambda units, above: onnxruntime_units(),
        platform="onnxruntime_onnx",
        suffixes=(".onnx",),
        is_always_here=True,
    ),
    Row(
        name="openvino",
        library="openvino",
        title="OpenVINO",
        distributions=("openvino",),
        make=_openvino,
        units=lambda units, above: openvino_units(units),
        stands_in_for={"onnxruntime": frozenset({Unit.AMX})},
    ),
    Row(
        name="mlx",
        library="mlx",
        title="MLX",
        distributions=("mlx", "mlx-metal", "mlx-cpu", "mlx-cuda-12", "mlx-cuda-13"),
        make=_mlx,
        units=lambda units, above: mlx_units(units),
        stands_in_for={"onnxruntime": frozenset({Unit.GPU})},
    ),
    Row(
        name="coreai",
        library="coreai",
        title="coreai-core",
        distributions=("coreai-core",),
        make=_coreai,
        units=lambda units, above: coreai_units(units, above, has_core_ai=has_system_runtime()),
        platform="coreai",
        suffixes=(".aimodel",),
        is_folder=True,
        stands_in_for={"onnxruntime": frozenset({Unit.GPU, Unit.ANE})},
    ),
    Row(
        name="coreml",
        library="coremltools",
        title="coremltools",
        distributions=("coremltools",),
        make=_coreml,
        units=lambda units, above: coreml_units(units),
        platform="coreml",
        suffixes=(".mlpackage", ".mlmodelc"),
        is_folder=True,
        stands_in_for={"onnxruntime": frozenset({Unit.AMX, Unit.GPU, Unit.ANE})},
    ),
)
"""All runtimes, the default first."""


def available(
    units: Sequence[UnitStatus],
    *,
    conversion_bytes: int | None = None,
    run_bytes: int | None = None,
    op_libraries: Sequence[Path] = (),
) -> Mapping[str, Runtime]:
    """The installed runtimes by backend name, the default one first. This imports their libraries.

    Args:
        units: this machine's units, from `hardware.units.detect_units`.
        conversion_bytes: the memory limit of a conversion; None means three quarters of the machine's memory.
        run_bytes: the memory limit of one run; None sets no limit.
        op_libraries: shared libraries of custom operators for ONNX Runtime.
    """
    absent = missing()
    runtimes: list[Runtime] = []
    for row in ROWS:
        if row.name not in absent:
            runtimes.append(row.make(RuntimeSetup(units, conversion_bytes, run_bytes, runtimes, op_libraries)))
    return {runtime.name: runtime for runtime in runtimes}


def served(units: Sequence[UnitStatus]) -> Mapping[str, Sequence[Unit]]:
    """The units that each installed runtime serves, without importing libraries.

    Args:
        units: this machine's units, from `hardware.units.detect_units`.
    """
    absent = missing()
    found: dict[str, Sequence[Unit]] = {}
    for row in ROWS:
        if row.name not in absent:
            above = {unit for each in found.values() for unit in each}
            found[row.name] = row.units(units, above)
    return found


def missing() -> Mapping[str, str]:
    """The backends whose library is not installed, each with the command that installs it. Imports nothing."""
    return {
        row.name: f"backend '{row.name}' needs {row.title}: pip install 'triune[{row.name}]'"
        for row in ROWS
        if not row.is_always_here and importlib.util.find_spec(row.library) is None
    }


PACKAGE_SUFFIXES = frozenset(suffix for row in ROWS if row.is_folder for suffix in row.suffixes)
"""The file suffixes of models that are folders."""


def backend_of(suffix: str) -> str | None:
    """The backend that a file suffix implies; None if there is none."""
    return next((row.name for row in ROWS if suffix in row.suffixes), None)


def stand_ins(backend: str, unit: Unit) -> Sequence[str]:
    """The backends that load files of `backend` on a unit that its own runtime does not support, the best one first."""
    return [row.name for row in ROWS if unit in row.stands_in_for.get(backend, ())]


def is_stand_in(name: str, backend: str) -> bool:
    """Whether the runtime of backend `name` loads files of `backend` on some unit."""
    return any(row.name == name and backend in row.stands_in_for for row in ROWS)
