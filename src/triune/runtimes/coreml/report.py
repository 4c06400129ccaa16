"""Reads Core ML's compute plan: the device of each operation of a model."""

import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from triune.core.units import Unit

_DEVICES: Final = (
    ("MLNeuralEngineComputeDevice", Unit.ANE),
    ("MLGPUComputeDevice", Unit.GPU),
    ("MLCPUComputeDevice", Unit.CPU),
)
"""The names of coremltools' classes of devices, each with its unit. Core ML counts the CPU's matrix unit as the CPU."""


def compute_plan_report(compiled: Path, compute_units: str) -> str:
    """The number of operations of a compiled model that Core ML prefers to compute on each device, according to its
    compute plan, as text.

    Only ML Programs have such a plan. If Core ML has no plan, the text says why.

    Args:
        compiled: the `.mlmodelc`.
        compute_units: the name of the coremltools `ComputeUnit` for which it is loaded.
    """
    library: Any = importlib.import_module("coremltools")
    plans: Any = importlib.import_module("coremltools.models.compute_plan")
    devices: Any = importlib.import_module("coremltools.models.compute_device")
    kinds = [(getattr(devices, name), unit) for name, unit in _DEVICES]
    try:
        plan: Any = plans.MLComputePlan.load_from_path(str(compiled), library.ComputeUnit[compute_units])
    except (RuntimeError, ValueError) as error:
        return f"Core ML gives no compute plan: {error}"
    program = plan.model_structure.program
    if program is None:
        return "Core ML gives compute plans of ML Programs only"
    counts: Counter[Unit] = Counter()
    for function in program.functions.values():
        for operation in _operations(function.block):
            usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
            if usage is not None:
                preferred = usage.preferred_compute_device
                counts.update(unit for kind, unit in kinds if isinstance(preferred, kind))
    listed = ", ".join(f"{count} operations on {unit.value}" for unit, count in counts.most_common())
    return f"Core ML's compute plan: {listed or 'no operation'}"


def _operations(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for nested in operation.blocks:
            yield from _operations(nested)
