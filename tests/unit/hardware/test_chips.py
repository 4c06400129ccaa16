import contextlib
import dataclasses
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.hardware.chip import Chip
from triune.hardware.chips import chip, chips, find_chip, parse_chips
from triune.hardware.figures import Fact, Figure, FigureKind

SMALL = """\
[sources]
apple = "Apple's press release"

["M9 Pro".gpu]
cores = { value = 20, kind = "published", source = "apple", smaller = [16] }
fp32_tflops = { value = 9.5, kind = "claimed", source = "apple", basis = "fp32", low = 9, note = "a note" }

["M9 Pro".cpu]
matrix_unit = { value = "SME", kind = "measured", source = "apple" }
"""


def figures(of: Chip) -> Iterator[tuple[str, Figure | Fact]]:
    for section in ("cpu", "gpu", "ane", "memory"):
        for field in dataclasses.fields(getattr(of, section)):
            if (figure := getattr(getattr(of, section), field.name)) is not None:
                yield f"{section}.{field.name}", figure


def value(figure: Figure | None) -> float | None:
    return None if figure is None else figure.value


@pytest.mark.parametrize("name", ["M2 Pro", "m2-pro", "Apple M2 Pro", "apple_m2_pro", " APPLE  M2  pro "])
def test_a_chip_has_many_spellings(name: str) -> None:
    assert chip(name).name == "M2 Pro"
    assert chip(name).generation == "M2"


def test_an_unknown_chip_is_an_error_that_lists_those_known() -> None:
    with pytest.raises(NotFoundError, match=r"chip 'M9' is not in the table of chips; it has M1, M1 Pro, .*A19 Pro"):
        chip("M9")
    assert find_chip("M9") is None
    assert find_chip("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz") is None


def test_the_table_has_m1_to_m5_and_a14_to_a19() -> None:
    names = {each.name for each in chips()}
    assert {f"M{number}{suffix}" for number in range(1, 6) for suffix in ("", " Pro", " Max")} <= names
    assert {"M1 Ultra", "M2 Ultra", "M3 Ultra"} <= names
    assert not {"M4 Ultra", "M5 Ultra"} & names
    assert {"A14", "A15", "A16", "A17 Pro", "A18", "A18 Pro", "A19", "A19 Pro"} <= names


def test_apples_figures_of_an_m4_max() -> None:
    m4_max = chip("M4 Max")
    assert value(m4_max.cpu.performance_cores) == 12
    assert value(m4_max.gpu.cores) == 40
    assert value(m4_max.ane.tops) == 38
    assert m4_max.memory.gb_per_s is not None
    assert m4_max.memory.gb_per_s.value == 546
    assert m4_max.memory.gb_per_s.unit == "GB/s"
    assert m4_max.memory.gb_per_s.smaller == (410,)
    assert m4_max.memory.gb_per_s.source == "Apple's press release of 2024-10-30 (M4 Pro, M4 Max)"


@pytest.mark.parametrize("name", [each.name for each in chips()])
def test_every_figure_has_its_source_and_rates_their_basis(name: str) -> None:
    found = dict(figures(chip(name)))
    assert {"gpu.cores", "ane.cores", "cpu.efficiency_cores"} & set(found)
    for path, figure in found.items():
        assert figure.source, path
        if isinstance(figure, Figure):
            assert bool(figure.basis) == (figure.unit in ("TFLOPS", "TOPS")), path


@pytest.mark.parametrize("name", [each.name for each in chips()])
def test_what_apple_did_not_publish_is_not_called_published(name: str) -> None:
    for path, figure in figures(chip(name)):
        assert (figure.kind is FigureKind.PUBLISHED) <= figure.source.startswith("Apple's "), path


@pytest.mark.parametrize("name", [each.name for each in chips()])
def test_generations_have_what_they_brought(name: str) -> None:
    it = chip(name)
    number = int(it.generation[1:])
    is_new = number >= (4 if it.name.startswith("M") else 17)
    if it.ane.tops:
        assert it.ane.tops.basis == ("int8" if is_new else "fp16")
    if it.cpu.matrix_unit:
        assert it.cpu.matrix_unit.value == ("SME" if number >= (4 if it.name.startswith("M") else 18) else "AMX")
    has_accelerators = number >= (5 if it.name.startswith("M") else 19)
    assert value(it.gpu.neural_accelerators) == (value(it.gpu.cores) if has_accelerators else None)


def test_nothing_is_rated_for_the_ane_of_m5() -> None:
    assert {chip(name).ane.tops for name in ("M5", "M5 Pro", "M5 Max")} == {None}


def test_a_small_table() -> None:
    (it,) = parse_chips(SMALL)
    source = "Apple's press release"
    assert it.gpu.cores == Figure(20, "cores", FigureKind.PUBLISHED, source, smaller=(16,))
    assert it.gpu.fp32_tflops == Figure(9.5, "TFLOPS", FigureKind.CLAIMED, source, "fp32", low=9, note="a note")
    assert it.cpu.matrix_unit == Fact("SME", FigureKind.MEASURED, source)
    assert it.ane.tops is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cores =", "kores =", "line 5: chip 'M9 Pro', field gpu.kores: there is no such field; gpu has cores, fp32"),
        ('"M9 Pro".gpu', '"M9 Pro".gpus', "line 4: chip 'M9 Pro', field gpus: there is no such section"),
        ("value = 20", 'value = "20"', "line 5: chip 'M9 Pro', field gpu.cores: 'value' must be a number above 0"),
        ("value = 20", "value = true", "line 5: chip 'M9 Pro', field gpu.cores: 'value' must be a number above 0"),
        ("value = 20", "value = -1", "line 5: chip 'M9 Pro', field gpu.cores: 'value' must be a number above 0"),
        ("value = 20", "value = nan", "line 5: chip 'M9 Pro', field gpu.cores: 'value' must be a number above 0"),
        ("value = 20, ", "", "line 5: chip 'M9 Pro', field gpu.cores: 'value' must be a number above 0, not None"),
        ("value = 20", "value = 16", "line 5: chip 'M9 Pro', field gpu.cores: 'smaller' must ascend, below the value"),
        ("[16]", "16", "line 5: chip 'M9 Pro', field gpu.cores: 'smaller' must be a list"),
        ("low = 9", "low = 10", "line 6: chip 'M9 Pro', field gpu.fp32_tflops: the value 9.5 is not between"),
        ('"fp32"', '"fp64"', "line 6: chip 'M9 Pro', field gpu.fp32_tflops: basis 'fp64' is none of fp32, fp16"),
        ("note =", "remark =", "line 6: chip 'M9 Pro', field gpu.fp32_tflops: 'remark' is unknown there"),
        ('"claimed"', '"guessed"', "line 6: chip 'M9 Pro', field gpu.fp32_tflops: kind 'guessed' is none of published"),
        (', kind = "claimed"', "", "line 6: chip 'M9 Pro', field gpu.fp32_tflops: kind None is none of"),
        ('source = "apple", basis', 'source = "aple", basis', "line 6: .* source 'aple' is not in"),
        ('source = "apple", basis', "basis", "line 6: chip 'M9 Pro', field gpu.fp32_tflops: 'source' must be a text"),
        ('"SME"', '"NEON"', "line 9: chip 'M9 Pro', field cpu.matrix_unit: value 'NEON' is none of AMX, SME"),
        ('"SME", kind', '"SME", low = 1, kind', "line 9: chip 'M9 Pro', field cpu.matrix_unit: 'low' is unknown"),
        ('"M9 Pro".cpu', '"M9-pro".gpu', "line 9: chip 'M9-pro', field gpu.matrix_unit: there is no such field"),
        ('"M9 Pro".cpu', '"m9-pro".cpu', "line 8: chip 'm9-pro': a chip's name begins with A or M"),
        ('"M9 Pro".cpu', '"M9  Pro".cpu', "line 8: chip 'M9  Pro': it is the same chip as 'M9 Pro'"),
        ('"Apple\'s press release"', "3", r"line 2: \[sources\], field apple: 'apple' must be a text"),
        ('["M9 Pro".cpu]', '["M9 Pro"]\ncpu = 3', "line 9: chip 'M9 Pro', field cpu: it must be a table"),
        ("value = 20", "value = ", r"chips.toml: .*\(at line 5"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(InvalidArgumentError, match=message):
        parse_chips(SMALL.replace(old, new, 1))


@given(st.integers(0, len(SMALL)), st.integers(0, 12), st.text(max_size=12))
def test_whatever_is_written_there_the_table_is_read_or_refused(start: int, length: int, text: str) -> None:
    with contextlib.suppress(InvalidArgumentError):
        parse_chips(SMALL[:start] + text + SMALL[start + length :])
