import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from support.recorded_machines import NAMES, recorded
from triune.cli import app
from triune.cli.units import print_units
from triune.core.units import Unit
from triune.hardware.describe import describe_units
from triune.hardware.facts import PRECISIONS, units_json

FIELDS = {
    *("unit", "presence", "description", "reason", "name", "cores", "caches", "memory", "precisions", "features"),
    *("figures", "runtimes", "unavailable"),
}


def printed(name: str, width: int = 80) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        print_units(describe_units(recorded(name), is_installed=lambda _: True), console)
    return capture.get()


@pytest.mark.parametrize("name", NAMES)
def test_every_machine_fits_80_columns_and_names_each_unit(name: str) -> None:
    lines = printed(name).splitlines()
    assert max(map(len, lines)) <= 80
    for unit in Unit:
        assert any(line.startswith(f"{unit.value} ") for line in lines)


def test_figures_have_their_kind_and_a_number_that_is_the_source() -> None:
    text = printed("m4-pro", 200)
    assert "38 TOPS int8, published [" in text
    assert "126.36 GB/s, measured [" in text
    for number in (1, 2, 3):
        assert f"\n[{number}] " in text
    assert "bandwidth      273 GB/s, published [1]" in text
    assert "[1] Apple's press release of 2024-10-30 (M4 Pro, M4 Max)" in text


def test_a_gpu_that_shares_no_memory() -> None:
    text = printed("h200", 200)
    assert "132 multiprocessors, 16896 cuda cores" in text
    assert "memory         140.4 GiB\n" in "\n".join(line.rstrip() for line in text.splitlines())


def test_markup_and_control_characters_of_a_system_are_shown_as_they_are() -> None:
    outputs = recorded("xeon-amx")
    texts = {**outputs.texts, "cpuinfo": "processor\t: 0\nmodel name\t: [red]Xeon[/red]\x1b[31m\n"}
    console = Console(width=80)
    with console.capture() as capture:
        print_units(describe_units(type(outputs)(*(outputs.system, "x86_64", 1, 1 << 30), texts)), console)
    assert "[red]Xeon[/red]" in capture.get()
    assert "\x1b[31m" not in capture.get()


@pytest.mark.parametrize("name", NAMES)
def test_json_has_the_fields_of_the_documentation(name: str) -> None:
    content = units_json(describe_units(recorded(name), is_installed=lambda _: True))
    assert content["schema"] == 1
    for unit in content["units"]:
        assert set(unit) == FIELDS
        assert set(unit["precisions"]) in (set(), set(PRECISIONS))
        for figure in unit["figures"].values():
            assert {"value", "unit", "kind", "source"} <= set(figure)
            assert figure["kind"] in ("published", "measured", "claimed")


def test_the_command_prints_this_machine() -> None:
    done = CliRunner().invoke(app, ["units", "--json"])
    assert done.exit_code == 0
    assert [each["unit"] for each in json.loads(done.stdout)["units"]] == ["cpu", "amx", "gpu", "ane"]
    done = CliRunner().invoke(app, ["units"])
    assert done.exit_code == 0
    assert "present: " in done.stdout
