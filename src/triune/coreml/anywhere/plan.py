"""Compute plans: predictions by the rules of `placement` and the estimates of `cost`, not measurements."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from triune.core.errors import InvalidArgumentError
from triune.core.units import Unit
from triune.coreml.anywhere.cost import work_of
from triune.coreml.anywhere.devices import cpu_device, gpu_device, neural_engine_device
from triune.coreml.anywhere.placement import ASKED, Placement, is_loaded_once, place, values_of
from triune.coreml.anywhere.structure import OperationProxy, structure_of
from triune.coreml.mil import Block, Operation, Program

_DEVICES: Mapping[Unit, Callable[[], Any]] = {
    Unit.CPU: cpu_device,
    Unit.GPU: gpu_device,
    Unit.ANE: neural_engine_device,
}


class ComputePlanProxy:
    """The placements and costs of the operations of a program.

    coremltools derives a class from it, and makes objects of that class without arguments.
    """

    # This is a class attribute: coremltools' subclass has a property of this name, which __init__ could not set.
    model_structure: Any = None

    def __init__(
        self,
        placements: Mapping[OperationProxy, Placement] | None = None,
        weights: Mapping[OperationProxy, float] | None = None,
    ) -> None:
        self._placements = dict(placements or {})
        self._weights = dict(weights or {})

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        """The `MLComputePlanDeviceUsage`; None for weights and for operations of another model."""
        placement = self._placements.get(operation.__proxy__)
        if placement is None:
            return None
        api: Any = importlib.import_module("coremltools.models.compute_plan")
        return api.MLComputePlanDeviceUsage(
            preferred_compute_device=_DEVICES[placement.preferred](),
            supported_compute_devices=[_DEVICES[unit]() for unit in placement.supported],
        )

    def get_compute_device_usage_for_neuralnetwork_layer(self, _: Any) -> Any:
        """Return None: Triune reads ML Programs only, which have no layers."""
        return None

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        """The `MLComputePlanCost`: the operation's work (`cost.work_of`) as a fraction of its function's work.

        None for weights and for operations of another model.
        """
        weight = self._weights.get(operation.__proxy__)
        if weight is None:
            return None
        api: Any = importlib.import_module("coremltools.models.compute_plan")
        return api.MLComputePlanCost(weight=weight)


def plan_of(program: Program, units: str) -> Any:
    """The `MLComputePlan` of a program.

    Raises:
        InvalidArgumentError: no compute unit is named `units`.
    """
    if units not in ASKED:
        raise InvalidArgumentError(f"there are no compute units '{units}'; there are {', '.join(ASKED)}")
    placements: dict[OperationProxy, Placement] = {}
    weights: dict[OperationProxy, float] = {}
    for name, function in program.functions.items():
        values = values_of(function)
        work = {OperationProxy(name, each.name): work_of(each, values) for each in _operations(function.block)}
        total = sum(work.values())
        weights.update({key: count / total for key, count in work.items()})
        for each in _operations(function.block):
            placements[OperationProxy(name, each.name)] = place(each, values, units)
    proxy = ComputePlanProxy(placements, weights)
    proxy.model_structure = structure_of(program)
    api: Any = importlib.import_module("coremltools.models.compute_plan")
    return api.MLComputePlan(proxy)


def _operations(block: Block) -> Iterator[Operation]:
    """Yield the operations of a block and of nested blocks, without the operations that load weights."""
    for operation in block.operations:
        if not is_loaded_once(operation):
            yield operation
        for nested in operation.blocks:
            yield from _operations(nested)
