"""What units of chips can do, by rated figures alone."""

import pytest

from triune.core.errors import NotFoundError
from triune.core.units import Unit
from triune.hardware.chips import chip, chips
from triune.planning.constants import constants, parse_constants
from triune.planning.units import ane_rates, gpu_rates, units_of


def test_all_macs_have_all_units() -> None:
    for each in chips():
        if each.name.startswith("M"):
            assert list(units_of(each, constants())) == [Unit.CPU, Unit.AMX, Unit.GPU, Unit.ANE]


def test_phones_have_no_rated_gpu() -> None:
    assert Unit.GPU not in units_of(chip("A17 Pro"), constants())


def rates_of(name: str, **options: float):
    found = ane_rates(chip(name), constants(), **options)
    assert found is not None
    return found


def test_rated_int8_counts_half_in_fp16() -> None:
    assert rates_of("M2")[0].tflops == 15.8
    assert rates_of("M4")[0].tflops == 19


def test_a_call_uses_one_of_the_two_engines_of_an_ultra() -> None:
    assert rates_of("M2 Ultra")[0].tflops == rates_of("M2 Max")[0].tflops


def test_what_is_not_published_is_taken_of_an_older_chip_and_said() -> None:
    rates, notes = rates_of("M5")
    assert rates.tflops == rates_of("M4")[0].tflops
    assert notes == ("tops of M5 is not published: that of M4 stands for it",)


def test_activations_of_8_bits_compute_faster() -> None:
    assert rates_of("M4", activation_bits=8)[0].tflops > rates_of("M4")[0].tflops
    assert rates_of("M4", activation_bits=8)[0].element_bytes == 1


def test_smaller_configurations_of_a_gpu() -> None:
    large, small = (gpu_rates(chip("M1 Max"), constants(), cores) for cores in (None, 24))
    assert large is not None
    assert small is not None
    assert small[0].tflops == pytest.approx(large[0].tflops * 24 / 32)


def test_constants_are_known_by_name() -> None:
    assert constants().get("ane.launch_ms_old") > constants().get("ane.launch_ms_new") > 0
    with pytest.raises(NotFoundError, match=r"has no 'ane.colour'"):
        constants().get("ane.colour")


def test_scores_are_of_rows_that_were_held_out() -> None:
    found = constants().score("latency", "convolution")
    assert found is not None
    assert found.group == "convolution"
    assert found.num_rows > 0
    # Few rows tell nothing: the error of all stands for it.
    few = constants().score("joules", "encoder")
    assert few is not None
    assert few.models == "all models"
    other = constants().score("latency", "unheard of")
    assert other is not None
    assert other.group == "all"


def test_constants_without_scores_have_none() -> None:
    assert parse_constants('source = "s"\n[constants.ane]\nop_ms = 1').score("latency", "all") is None
