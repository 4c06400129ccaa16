"""Which runtime runs a decoder."""

from typing import Any, cast

import pytest

from triune.core.errors import UnsupportedError
from triune.core.units import Presence, Unit, UnitStatus
from triune.runtimes.decoders import decoder_runtime
from triune.runtimes.machine import Machine


class Runs:
    """A runtime of some units."""

    def __init__(self, *units: Unit) -> None:
        self._units = units

    def units(self) -> tuple[Unit, ...]:
        return self._units


def machine(gpu: Presence, **runtimes: Runs) -> Machine:
    units = (UnitStatus(Unit.CPU, Presence.PRESENT), UnitStatus(Unit.GPU, gpu), UnitStatus(Unit.AMX, Presence.PRESENT))
    return Machine(cast("Any", runtimes), units, 2)


MLX, OPENVINO = Runs(Unit.GPU), Runs(Unit.AMX, Unit.CPU)


@pytest.mark.parametrize(
    ("gpu", "unit", "name"),
    [
        (Presence.PRESENT, None, "mlx"),
        (Presence.PRESENT, Unit.CPU, "openvino"),
        (Presence.EMULATED, None, "openvino"),
        (Presence.EMULATED, Unit.GPU, "mlx"),
        (Presence.ABSENT, None, "openvino"),
        # Which OpenVINO refuses, since it does not run there.
        (Presence.ABSENT, Unit.ANE, "openvino"),
    ],
)
def test_a_decoder_runs_where_the_config_says_or_on_the_best_unit(gpu: Presence, unit: Unit | None, name: str) -> None:
    assert decoder_runtime(machine(gpu, openvino=OPENVINO, mlx=MLX), unit) == name


def test_without_a_runtime_the_command_that_installs_one_is_told() -> None:
    with pytest.raises(UnsupportedError, match=r"pip install 'triune\[mlx\]' or pip install 'triune\[openvino\]'"):
        decoder_runtime(machine(Presence.ABSENT, coreml=Runs(Unit.ANE)))


def test_an_emulated_unit_is_taken_only_where_it_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"pip install 'triune\[openvino\]'; or name the unit 'gpu', which is"):
        decoder_runtime(machine(Presence.EMULATED, mlx=MLX))
    assert decoder_runtime(machine(Presence.EMULATED, mlx=MLX), Unit.GPU) == "mlx"
    assert decoder_runtime(machine(Presence.EMULATED, openvino=OPENVINO), Unit.GPU) == "openvino"
