"""Predict a published measurement by the cost model."""

from collections.abc import Sequence

from triune.core.errors import UnsupportedError
from triune.core.units import Unit
from triune.planning.constants import Constants
from triune.planning.cost import Rates, Sizes, costs_of, sizes_of
from triune.planning.published.measurements import Measurement
from triune.planning.units import amx_rates, ane_rates, gpu_rates


class Predictor:
    """Predicts measurements. It converts their operations to arrays only once."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._sizes: dict[int, list[tuple[Sizes, float]]] = {
            each.row: [(sizes_of(ops, each.weight_bits), times) for ops, times in each.parts] for each in measurements
        }

    def predict(self, measurement: Measurement, constants: Constants) -> float:
        """Predict the milliseconds or joules that were measured."""
        rates = rates_of(measurement, constants)
        total = 0.0
        for sizes, times in self._sizes[measurement.row]:
            costs = costs_of(sizes, rates)
            if measurement.kind == "latency":
                total += times * (rates.launch_ms + float(costs.ms.sum()))
            else:
                total += times * (float(costs.joules.sum()) + 1e-3 * rates.watts * rates.launch_ms)
        return total


def rates_of(measurement: Measurement, constants: Constants) -> Rates:
    """The speeds and the power of the unit that was measured.

    Raises:
        UnsupportedError: the chip has no figures for the unit.
    """
    chip = measurement.chip
    match measurement.unit:
        case Unit.ANE:
            found = ane_rates(chip, constants, activation_bits=measurement.activation_bits)
        case Unit.GPU:
            found = gpu_rates(chip, constants, measurement.num_gpu_cores, measurement.gb_per_s)
        case _:
            found = amx_rates(chip, constants)
    if found is None:
        raise UnsupportedError(f"chip '{chip.name}' has no figures for '{measurement.unit.value}'")
    return found[0]
