"""Power modes: what was asked, and what a policy makes of it."""

import re
from pathlib import Path

import pytest

from triune.core.errors import InvalidArgumentError
from triune.core.power import EFFECTS, FRUGAL_ORDER, Power, PowerMode, mode_of
from triune.core.units import Unit

HOT = {Unit.GPU: "the GPU is at 95 C"}


def test_every_mode_has_effects() -> None:
    assert set(EFFECTS) == set(PowerMode)


def test_a_mode_is_found_by_its_name() -> None:
    assert [mode_of(each.value) for each in PowerMode] == list(PowerMode)
    for wrong in ("LOW_POWER", "", None, 3, "x" * 1000):
        with pytest.raises(InvalidArgumentError, match="there are high_performance, balanced, low_power") as caught:
            mode_of(wrong)
        assert len(str(caught.value)) < 200


def test_a_low_battery_overrules_balanced_and_nothing_overrules_high_performance() -> None:
    power = Power()
    power.overrule("the battery is at 15%", HOT)
    assert (power.mode, power.reason, dict(power.hot)) == (PowerMode.LOW_POWER, "the battery is at 15%", HOT)
    power.ask(PowerMode.HIGH_PERFORMANCE)
    assert (power.mode, power.reason, dict(power.hot)) == (PowerMode.HIGH_PERFORMANCE, "", {})
    power.ask(PowerMode.BALANCED)
    assert power.mode is PowerMode.LOW_POWER
    power.overrule("", {})
    assert (power.asked, power.mode, power.reason, dict(power.hot)) == (PowerMode.BALANCED, PowerMode.BALANCED, "", {})


def test_low_power_that_was_asked_for_has_no_reason() -> None:
    power = Power(PowerMode.LOW_POWER)
    power.overrule("the battery is at 15%", {})
    assert (power.mode, power.reason) == (PowerMode.LOW_POWER, "")


def test_the_docs_say_what_each_mode_changes() -> None:
    page = (Path(__file__).parents[3] / "docs" / "energy.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    head = next(number for number, row in enumerate(rows) if "`balanced`" in row)
    modes = [mode_of(cell.strip("`")) for cell in rows[head][1:]]
    assert modes == list(PowerMode)
    units, delay, step, policy = rows[head + 2 : head + 6]
    for column, mode in enumerate(modes, 1):
        effects = EFFECTS[mode]
        assert ("one unit" in units[column]) == effects.is_one_unit
        told = re.search(r"at least (\d+) ms", delay[column])
        assert effects.min_delay_us == (int(told[1]) * 1000 if told else 0)
        assert effects.step_share == (0.25 if step[column] == "a quarter of them" else 1.0)
        assert effects.is_overruled == (policy[column] != "change nothing")
    order = ", ".join(f"`{unit.value}`" for unit in FRUGAL_ORDER)
    assert order in units[modes.index(PowerMode.LOW_POWER) + 1]
