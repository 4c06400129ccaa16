from types import SimpleNamespace

import pytest

from triune.hardware.battery import Battery, read_battery


@pytest.mark.parametrize(
    ("percent", "is_plugged", "expected"),
    [
        (19.4, False, Battery(19.4, True)),
        (80, True, Battery(80.0, False)),
        (100.7, None, Battery(100.0, False)),
    ],
)
def test_a_battery(percent: float, is_plugged: bool | None, expected: Battery) -> None:
    assert read_battery(lambda: SimpleNamespace(percent=percent, power_plugged=is_plugged)) == expected


def test_a_desktop_has_none() -> None:
    assert read_battery(lambda: None) is None


def test_a_battery_that_is_taken_out_while_it_is_read() -> None:
    def vanished() -> None:
        raise FileNotFoundError(2, "No such file or directory", "/sys/class/power_supply/BAT0/energy_now")

    assert read_battery(vanished) is None


def test_this_machines_battery_can_be_asked() -> None:
    found = read_battery()
    assert found is None or 0 <= found.percent <= 100
