"""A low battery and heat: where they begin to count, and where they end."""

import asyncio

import pytest

from triune.core.power import Power, PowerMode
from triune.core.units import Unit
from triune.hardware.battery import Battery
from triune.hardware.heat.readings import Heat, Sensor
from triune.serving.power_policy import PowerPolicy, watch

COOL = Heat()
LOW, BALANCED = PowerMode.LOW_POWER, PowerMode.BALANCED


def cpu_at(celsius: float) -> Heat:
    return Heat((Sensor("package", celsius, 100.0, frozenset({Unit.CPU, Unit.AMX})), Sensor("disk", 120.0, 80.0)))


def test_on_battery_below_20_percent_until_25_or_a_charger() -> None:
    power = Power()
    policy = PowerPolicy(power)
    seen: list[PowerMode] = []
    for percent, is_discharging in (
        (50, True),
        (20, True),
        (19, True),
        (22, True),
        (25, True),
        (19, True),
        (10, False),
    ):
        policy.apply(Battery(percent, is_discharging), COOL)
        seen.append(power.mode)
    assert seen == [BALANCED, BALANCED, LOW, LOW, BALANCED, LOW, BALANCED]


def test_a_desktop_has_no_battery() -> None:
    power = Power()
    PowerPolicy(power).apply(None, COOL)
    assert (power.mode, power.reason) == (BALANCED, "")


def test_the_reason_is_told_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    power = Power()
    policy = PowerPolicy(power)
    for _ in range(3):
        policy.apply(Battery(12.0, True), COOL)
    assert power.reason == "the machine runs on battery, which is at 12%"
    assert caplog.text.count("power mode 'low_power': the machine runs on battery") == 1


def test_a_hot_unit_is_left_until_it_is_cool_again() -> None:
    power = Power()
    policy = PowerPolicy(power)
    seen: list[bool] = []
    for celsius in (90, 96, 97, 93, 91, 90, 89, 95):
        policy.apply(None, cpu_at(celsius))
        seen.append(bool(power.hot))
    assert seen == [False, False, True, True, True, True, False, False]


def test_what_is_hot_and_no_unit_is_not_told() -> None:
    power = Power()
    PowerPolicy(power).apply(None, cpu_at(99))
    assert set(power.hot) == {Unit.CPU, Unit.AMX}
    assert "'package' is at 99 C, and its limit is 100 C" in power.hot[Unit.CPU]
    assert power.mode is BALANCED


def test_pressure_on_the_whole_system_is_low_power() -> None:
    power = Power()
    policy = PowerPolicy(power)
    policy.apply(None, Heat(pressure="macOS' thermal state is serious"))
    assert (power.mode, power.reason) == (LOW, "macOS' thermal state is serious")
    policy.apply(None, COOL)
    assert power.mode is BALANCED


def test_a_unit_that_the_hardware_slowed_is_left() -> None:
    power = Power()
    PowerPolicy(power).apply(None, Heat(slowed=((Unit.GPU, "NVML says so"),)))
    assert dict(power.hot) == {Unit.GPU: "NVML says so"}


async def test_it_is_watched_until_the_end_and_a_defect_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    power, num_readings = Power(), 0
    is_done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heat() -> Heat:
        nonlocal num_readings
        num_readings += 1
        if num_readings < 3:
            raise ValueError("a strange sensor")
        loop.call_soon_threadsafe(is_done.set)
        return Heat(pressure="it is hot")

    task = asyncio.create_task(watch(PowerPolicy(power), lambda: None, heat, 0.001))
    await is_done.wait()
    while power.mode is not LOW:
        await asyncio.sleep(0.001)
    task.cancel()
    assert caplog.text.count("battery and heat could not be read") == 1
