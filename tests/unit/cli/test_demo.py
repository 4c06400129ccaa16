"""On which units the demo places its models."""

from dataclasses import replace

import pytest

from triune.cli.demo import units_for
from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.cpu import Cpu, read_cpu

CPU, AMX, GPU, ANE = Unit.CPU, Unit.AMX, Unit.GPU, Unit.ANE


def statuses(*real: Unit, emulated: tuple[Unit, ...] = ()) -> list[UnitStatus]:
    def presence(unit: Unit) -> Presence:
        return Presence.PRESENT if unit in real else Presence.EMULATED if unit in emulated else Presence.ABSENT

    return [UnitStatus(unit, presence(unit)) for unit in Unit]


@pytest.fixture
def xeon() -> Cpu:
    return replace(read_cpu(), name="Intel Xeon")


@pytest.fixture
def mac() -> Cpu:
    return replace(read_cpu(), name="Apple M2 Pro")


def test_a_mac_uses_its_gpu_its_cpu_and_its_neural_engine(mac: Cpu) -> None:
    assert mac.is_apple_silicon
    assert units_for(mac, statuses(CPU, AMX, GPU, ANE), has_mlx=True) == ([GPU, CPU, ANE], [])


def test_without_mlx_the_gpu_of_a_mac_runs_core_ml_alone(mac: Cpu) -> None:
    assert units_for(mac, statuses(CPU, AMX, GPU, ANE), has_mlx=False) == ([CPU, ANE], [])


def test_what_is_emulated_is_for_models_of_apples_formats(xeon: Cpu) -> None:
    assert units_for(xeon, statuses(CPU, AMX, emulated=(GPU, ANE)), has_mlx=True) == ([AMX], [ANE])


def test_a_gpu_of_nvidia_is_used_beside_the_tiles(xeon: Cpu) -> None:
    assert units_for(xeon, statuses(CPU, AMX, GPU), has_mlx=True) == ([GPU, AMX], [])


def test_a_machine_with_a_cpu_alone_uses_that(xeon: Cpu) -> None:
    assert units_for(xeon, statuses(CPU), has_mlx=False) == ([CPU], [])
