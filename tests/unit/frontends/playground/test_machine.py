"""What the page learns of the machine: what units computed, what waits for them, and their power."""

from support.configs import model_config
from support.energy_meters import rail
from support.hand_server import ANSWER, VECTOR
from support.page_models import CountedTable, PageModels
from support.table_servable import TableServable
from triune.core.clock import VirtualClock
from triune.core.power import Power, PowerMode
from triune.core.units import Presence, Unit, UnitStatus
from triune.frontends.playground.machine import PageMachine, describe_machine
from triune.frontends.playground.overview import overview
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ledger import EnergyLedger
from triune.scheduling.models import LoadedVersion

UNITS = [
    UnitStatus(Unit.CPU, Presence.PRESENT, "a CPU"),
    UnitStatus(Unit.AMX, Presence.PRESENT, "its matrix unit"),
    UnitStatus(Unit.GPU, Presence.PRESENT, "a GPU"),
    UnitStatus(Unit.ANE, Presence.ABSENT, reason="this machine has none"),
]


def loaded(**changes: object) -> LoadedVersion:
    version = LoadedVersion(
        1, model_config([VECTOR], [ANSWER], name="m"), TableServable(), {Unit.CPU: "fp32", Unit.GPU: "fp16"}
    )
    counted = version.statistics
    counted.record_execution(Unit.GPU, 8, 1, 0, 1_500_000_000, 0)
    counted.num_waiting = 3
    for name, value in changes.items():
        setattr(counted, name, value)
    return version


def test_units_are_told_with_counts_and_queue() -> None:
    power = Power(PowerMode.BALANCED)
    power.overrule("the battery is at 15%", {Unit.CPU: "90 degrees"})
    versions = [loaded(), loaded(slowed={Unit.GPU}, lost={Unit.GPU: "the GPU is lost"})]
    found = describe_machine(PageMachine(UNITS, power), versions)
    assert found["power"] == {"mode": "low_power", "reason": "the battery is at 15%"}
    cpu, amx, gpu, ane = found["units"]
    assert (cpu["inferences"], gpu["inferences"], gpu["busy_seconds"], gpu["waiting"]) == (0, 16, 3.0, 6)
    assert (cpu["models"], amx["models"], gpu["slowed"], gpu["lost"]) == (2, 0, 1, "the GPU is lost")
    assert (cpu["hot"], gpu["hot"], cpu["description"]) == ("90 degrees", "", "a CPU")
    assert (ane["presence"], ane["description"], "power" in ane) == ("absent", "this machine has none", False)
    assert gpu["power"]["kind"] == "unavailable"
    assert "--energy-interval-ms" in gpu["power"]["reason"]


def test_power_is_that_of_the_units_own_rails() -> None:
    clock = VirtualClock()
    meter = HandMeter([rail("package"), rail("gpu", frozenset({Unit.GPU}))], clock)
    ledger = EnergyLedger(meter)
    cpu, amx, gpu, _ = describe_machine(PageMachine(UNITS, Power(), ledger), [])["units"]
    assert cpu["power"] == {"kind": "unavailable", "reason": "its meter was not read twice yet"}
    clock.advance(2_000_000_000)
    meter.feed("package", 50.0)
    meter.lose("gpu", "the GPU is lost")
    ledger.sample()
    cpu, amx, gpu, _ = describe_machine(PageMachine(UNITS, Power(), ledger), [])["units"]
    assert cpu["power"] == {"kind": "measured", "watts": 25.0, "shared_with": ["amx"]}
    assert amx["power"] == {"kind": "measured", "watts": 25.0, "shared_with": ["cpu"]}
    assert gpu["power"] == {"kind": "unavailable", "reason": "the GPU is lost"}


async def test_the_machine_is_told_beside_the_models() -> None:
    models = PageModels({"teller": CountedTable({})})
    document = await overview(models, PageMachine(UNITS, Power()))
    assert [each["unit"] for each in document["machine"]["units"]] == ["cpu", "amx", "gpu", "ane"]
    # The adder computed three rows on the CPU.
    assert document["machine"]["units"][0]["inferences"] == 3
    assert "machine" not in await overview(models)
