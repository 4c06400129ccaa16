import pytest

from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.cpu import Cpu, read_cpu
from triune.hardware.units import detect_units, is_installed

XEON = Cpu("INTEL(R) XEON(R) PLATINUM 8581C", 16, frozenset({"avx512f", "amx_tile", "amx_bf16", "amx_int8"}))
EPYC = Cpu("AMD EPYC", 1, frozenset({"avx2"}))
M2 = Cpu("Apple M2", 8, frozenset({"FEAT_BF16"}))


def by_unit(cpu: Cpu, *, has_openvino: bool) -> dict[Unit, UnitStatus]:
    return {status.unit: status for status in detect_units(cpu, is_installed=lambda _: has_openvino)}


@pytest.mark.parametrize("cpu", [XEON, EPYC, M2], ids=lambda cpu: cpu.name)
@pytest.mark.parametrize("has_openvino", [True, False])
def test_every_unit_is_told_of_and_every_absence_explained(cpu: Cpu, has_openvino: bool) -> None:
    found = detect_units(cpu, is_installed=lambda _: has_openvino)
    assert [status.unit for status in found] == list(Unit)
    for status in found:
        assert bool(status.description) == (status.presence is Presence.PRESENT)
        assert bool(status.reason) == (status.presence is not Presence.PRESENT)


def test_cpu_is_always_present() -> None:
    assert by_unit(XEON, has_openvino=False)[Unit.CPU].description == "INTEL(R) XEON(R) PLATINUM 8581C, 16 cores"
    assert by_unit(EPYC, has_openvino=False)[Unit.CPU].description == "AMD EPYC, 1 core"


def test_amx_needs_tiles_and_openvino() -> None:
    assert by_unit(XEON, has_openvino=True)[Unit.AMX].presence is Presence.PRESENT
    assert "pip install 'triune[openvino]'" in by_unit(XEON, has_openvino=False)[Unit.AMX].reason


def test_a_cpu_without_tiles_is_named_whatever_is_installed() -> None:
    for has_openvino in (True, False):
        reason = by_unit(EPYC, has_openvino=has_openvino)[Unit.AMX].reason
        assert "AMD EPYC" in reason
        assert "amx_bf16 and amx_tile" in reason
        assert "pip" not in reason


def test_tiles_without_bf16_are_not_enough() -> None:
    cpu = Cpu("half a Xeon", 2, frozenset({"amx_tile", "amx_int8"}))
    status = by_unit(cpu, has_openvino=True)[Unit.AMX]
    assert status.presence is Presence.ABSENT
    assert "lacks amx_bf16" in status.reason


def test_apple_silicon_has_every_unit_through_core_ml() -> None:
    found = detect_units(M2, is_installed=lambda package: package == "coremltools")
    assert {status.presence for status in found} == {Presence.PRESENT}
    assert found[3].description == "Apple M2's Neural Engine, through Core ML"
    found = detect_units(M2, is_installed=lambda package: package == "openvino")
    assert {status.unit for status in found if status.presence is Presence.PRESENT} == {Unit.CPU}
    for status in found[1:]:
        assert "Apple M2's" in status.reason
        assert "pip install 'triune[coreml]'" in status.reason


@pytest.mark.parametrize("cpu", [XEON, EPYC], ids=lambda cpu: cpu.name)
def test_the_neural_engine_is_emulated_elsewhere_and_says_so(cpu: Cpu) -> None:
    ane = detect_units(cpu, is_installed=lambda package: package == "coremltools")[3]
    assert (ane.unit, ane.presence, ane.description) == (Unit.ANE, Presence.EMULATED, "")
    assert f"{cpu.name} has no Neural Engine" in ane.reason
    assert "names 'ane'" in ane.reason
    ane = detect_units(cpu, is_installed=lambda package: package == "openvino")[3]
    assert ane.presence is Presence.ABSENT
    assert "pip install 'triune[coreml]'" in ane.reason


def test_is_installed_asks_python() -> None:
    assert is_installed("numpy")
    assert not is_installed("a_package_that_nobody_wrote")


def test_this_machine() -> None:
    cpu = read_cpu()
    amx = {status.unit: status for status in detect_units(cpu)}[Unit.AMX]
    has_tiles = {"amx_tile", "amx_bf16"} <= cpu.features
    assert (amx.presence is Presence.PRESENT) == (has_tiles and is_installed("openvino"))


def _gpu(cpu: Cpu, nvidia: str, *installed: str) -> UnitStatus:
    return detect_units(cpu, is_installed=lambda package: package in installed, nvidia=nvidia)[2]


def test_a_gpu_is_nvidias_with_mlx_for_cuda() -> None:
    status = _gpu(XEON, "NVIDIA H200", "mlx", "nvidia")
    assert (status.presence, status.description) == (Presence.PRESENT, "NVIDIA H200, through MLX")
    status = _gpu(XEON, "NVIDIA H200", "mlx")
    assert status.presence is Presence.EMULATED
    assert "pip install 'triune[mlx-cuda]'" in status.reason
    status = _gpu(XEON, "NVIDIA H200")
    assert status.presence is Presence.ABSENT
    assert status.reason == "NVIDIA H200 is reached through MLX: pip install 'triune[mlx-cuda]'"


def test_without_a_gpu_mlx_emulates_one() -> None:
    status = _gpu(EPYC, "", "mlx", "nvidia")
    assert status.presence is Presence.EMULATED
    assert "answers and not for speed" in status.reason
    assert "pip" not in status.reason
    assert "pip install 'triune[mlx]'" in _gpu(EPYC, "").reason


def test_apples_gpu_is_reached_through_mlx_where_it_is_installed() -> None:
    assert _gpu(M2, "", "mlx", "coremltools").description == "Apple M2's GPU, through MLX"
