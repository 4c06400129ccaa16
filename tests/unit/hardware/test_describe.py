import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.recorded_machines import NAMES, recorded
from triune.core.units import Presence, Unit
from triune.hardware.chips import chip
from triune.hardware.cpu import CoreLevel
from triune.hardware.describe import describe_units
from triune.hardware.facts import PRECISIONS, Support, UnitFacts, units_json
from triune.hardware.figures import FigureKind
from triune.hardware.outputs import Outputs

EVERYTHING = ("coremltools", "mlx", "openvino", "nvidia")


def described(outputs: Outputs, *installed: str) -> Mapping[Unit, UnitFacts]:
    found = describe_units(outputs, is_installed=lambda package: package in (installed or EVERYTHING))
    return {each.unit: each for each in found}


def without(outputs: Outputs, name: str, failure: str = "") -> Outputs:
    texts = {key: text for key, text in outputs.texts.items() if key != name}
    return dataclasses.replace(outputs, texts=texts, failures={name: failure})


@pytest.mark.parametrize("name", NAMES)
def test_every_unit_of_every_machine_is_described_or_says_why_not(name: str) -> None:
    for facts in describe_units(recorded(name), is_installed=lambda _: True):
        assert bool(facts.reason) == (facts.presence is not Presence.PRESENT)
        assert bool(facts.name) == (facts.presence is Presence.PRESENT)
        is_here = facts.presence is not Presence.ABSENT
        assert tuple(facts.precisions) == (PRECISIONS if is_here else ())
        assert bool(facts.features) == is_here
        assert all(figure.source for figure in facts.figures.values())
        assert all(facts.unavailable.values())
        if facts.presence is not Presence.PRESENT:
            assert not facts.figures
    json.dumps(units_json(list(described(recorded(name)).values())), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "cpu", "levels", "gpu_cores", "gigabytes", "gb_per_s"),
    [
        ("m1", "Apple M1", (("level 0", 4), ("level 1", 4)), 7, 16, 68),
        ("m2-pro", "Apple M2 Pro", (("Performance", 8), ("Efficiency", 4)), 19, 32, 200),
        ("m3-max", "Apple M3 Max", (("Performance", 12), ("Efficiency", 4)), 40, 128, 400),
        ("m4-pro", "Apple M4 Pro", (("Performance", 10), ("Efficiency", 4)), 20, 64, 273),
        ("m4-max", "Apple M4 Max", (("Performance", 10), ("Efficiency", 4)), 32, 36, 410),
    ],
)
def test_macs(
    name: str, cpu: str, levels: tuple[tuple[str, int], ...], gpu_cores: int, gigabytes: int, gb_per_s: float
) -> None:
    units = described(recorded(name))
    assert {each.presence for each in units.values()} == {Presence.PRESENT}
    assert {each.name for each in units.values()} == {cpu}
    assert units[Unit.CPU].cores == tuple(CoreLevel(*level) for level in levels)
    assert units[Unit.GPU].cores == (CoreLevel("gpu", gpu_cores),)
    assert units[Unit.ANE].cores == (CoreLevel("neural engine", 16),)
    for facts in units.values():
        assert facts.memory_bytes == gigabytes << 30
        assert facts.figures["memory_gb_per_s"].value == gb_per_s
        assert facts.figures["memory_gb_per_s"].kind is FigureKind.PUBLISHED


def test_rates_of_a_smaller_gpu_say_whose_they_are() -> None:
    assert described(recorded("m1"))[Unit.GPU].figures["fp32_tflops"].note == "with 8 GPU cores; this one has 7"
    assert described(recorded("m3-max"))[Unit.GPU].figures["fp32_tflops"].note.endswith("says 16.2")


def test_8_bits_are_fast_on_the_neural_engine_from_m4_on() -> None:
    for name, support in (("m1", Support.WEIGHTS), ("m3-max", Support.WEIGHTS), ("m4-pro", Support.COMPUTES)):
        assert described(recorded(name))[Unit.ANE].precisions["int8"] is support
    assert described(recorded("m4-pro"))[Unit.ANE].figures["tops"].basis == "int8"
    assert described(recorded("m3-max"))[Unit.ANE].figures["tops"].basis == "fp16"


def test_the_matrix_unit_is_sme_where_the_cpu_says_so() -> None:
    assert described(recorded("m4-pro"))[Unit.AMX].features["instructions"] == "FEAT_SME, FEAT_SME2"
    assert "Accelerate" in described(recorded("m2-pro"))[Unit.AMX].features["instructions"]


def test_under_rosetta_a_mac_has_a_cpu_alone_and_the_remedy() -> None:
    units = described(recorded("m1-rosetta"))
    assert "Rosetta" in units[Unit.CPU].description
    for unit in (Unit.AMX, Unit.GPU, Unit.ANE):
        assert units[unit].presence is Presence.ABSENT
        assert "Rosetta" in units[unit].reason
        assert "install a Python for arm64" in units[unit].reason


@pytest.mark.parametrize(
    "sign", ["sysctl.proc_translated: 1", "machdep.cpu.brand_string: VirtualApple @ 2.50GHz", "hw.optional.arm64: 1"]
)
def test_each_sign_of_rosetta_is_enough(sign: str) -> None:
    outputs = recorded("intel-mac")
    assert not outputs.cpu().is_translated
    texts = {**outputs.texts, "sysctl": f"{outputs.text('sysctl')}{sign}\n"}
    assert dataclasses.replace(outputs, texts=texts).cpu().is_translated


def test_an_intel_mac_has_a_cpu() -> None:
    units = described(recorded("intel-mac"), "openvino")
    assert units[Unit.CPU].cores == (CoreLevel("logical", 16),)
    assert [(cache.level, cache.size_bytes >> 10) for cache in units[Unit.CPU].caches] == [
        (1, 32),
        (1, 32),
        (2, 256),
        (3, 16384),
    ]
    assert {units[unit].presence for unit in (Unit.AMX, Unit.GPU, Unit.ANE)} == {Presence.ABSENT}


def test_a_xeon_with_tiles() -> None:
    units = described(recorded("xeon-amx"))
    assert "avx512_vnni" in units[Unit.CPU].features["int8_compute"]
    assert "avx512f" in units[Unit.CPU].features["instructions"]
    assert units[Unit.AMX].presence is Presence.PRESENT
    assert units[Unit.AMX].features["instructions"] == "amx_tile, amx_bf16, amx_int8"
    assert "--measure" in units[Unit.AMX].unavailable["matmul_bf16_tflops"]
    assert units[Unit.GPU].presence is units[Unit.ANE].presence is Presence.EMULATED
    assert [cache.level for cache in units[Unit.CPU].caches] == [1, 1, 2, 3]


@pytest.mark.parametrize(
    ("tiles", "why"),
    [
        ("supported: 0x602e7\nrequest: 95\n", "the kernel refuses this process tile data"),
        ("supported: 0x202e7\nrequest: 95\n", "a hypervisor or a boot option"),
        ("supported: error 22\n", "older than Linux 5.16"),
        ("supported: 0x602e7\n", "did not answer"),
        ("", "older than Linux 5.16"),
    ],
)
def test_tiles_without_the_kernels_permission_are_no_unit(tiles: str, why: str) -> None:
    outputs = recorded("xeon-amx")
    amx = described(dataclasses.replace(outputs, texts={**outputs.texts, "tiles": tiles}))[Unit.AMX]
    assert amx.presence is Presence.ABSENT
    assert "has AMX tiles, but" in amx.reason
    assert why in amx.reason


def test_an_amd_without_tiles() -> None:
    units = described(recorded("amd-epyc"))
    assert units[Unit.AMX].presence is Presence.ABSENT
    assert units[Unit.CPU].features["int8_compute"] == "yes, without instructions for it"


def test_an_h200() -> None:
    gpu = described(recorded("h200"))[Unit.GPU]
    assert gpu.name == "NVIDIA H200"
    assert gpu.cores == (CoreLevel("multiprocessors", 132), CoreLevel("cuda", 16896))
    assert gpu.memory_bytes == 150754820096
    assert not gpu.is_memory_shared
    # NVIDIA publishes 4.8 TB/s and 67 TFLOPS of H200.
    assert gpu.figures["memory_gb_per_s"].value == pytest.approx(4800, rel=0.01)
    assert gpu.figures["fp32_tflops"].value == pytest.approx(67, rel=0.01)
    assert {figure.kind for figure in gpu.figures.values()} == {FigureKind.CLAIMED}
    assert (gpu.features["compute_capability"], gpu.features["driver"]) == ("9.0", "580.159.04")


def test_of_two_gpus_the_first_is_told() -> None:
    outputs = recorded("h200")
    one = json.loads(outputs.text("nvml"))["gpus"][0]
    both = json.dumps({"gpus": [one, {**one, "memory_bytes": 1}]})
    gpu = described(dataclasses.replace(outputs, texts={**outputs.texts, "nvml": both, "nvidia": ""}))[Unit.GPU]
    assert gpu.name == "2 x NVIDIA H200"
    assert gpu.memory_bytes == 150754820096
    assert gpu.features["devices"].startswith("2; ")


def test_a_gpu_that_only_the_driver_knows_says_what_is_missing() -> None:
    outputs = recorded("h200")
    gpu = described(dataclasses.replace(outputs, texts={**outputs.texts, "nvml": '{"reason": "no NVML"}'}))[Unit.GPU]
    assert (gpu.presence, gpu.name, gpu.cores) == (Presence.PRESENT, "NVIDIA H200", ())
    assert gpu.unavailable == {"cores, memory and rates": "no NVML"}


def test_a_missing_text_makes_its_fields_unavailable_with_the_reason() -> None:
    m2 = recorded("m2-pro")
    gpu = described(without(m2, "displays"))[Unit.GPU]
    assert (gpu.cores, gpu.unavailable["cores"]) == ((), "system_profiler lists no GPU")
    # The table of chips knows a number of cores, which is not that of this machine.
    assert gpu.figures["cores"].value == 19
    gpu = described(without(m2, "displays", "system_profiler did not run: timed out"))[Unit.GPU]
    assert gpu.unavailable["cores"] == "system_profiler did not run: timed out"
    ane = described(without(m2, "neural_engine"))[Unit.ANE]
    assert "ioreg tells no Neural Engine" in ane.unavailable["cores"]
    assert ane.figures["cores"] == chip("M2 Pro").ane.cores
    assert described(without(recorded("h200"), "caches"))[Unit.CPU].unavailable["caches"] == "the system lists none"


def test_a_chip_that_is_newer_than_the_table_has_no_figures() -> None:
    outputs = recorded("m4-max")
    texts = {name: text.replace("Apple M4 Max", "Apple M9 Max") for name, text in outputs.texts.items()}
    units = described(dataclasses.replace(outputs, texts=texts))
    for facts in units.values():
        assert facts.presence is Presence.PRESENT
        assert not facts.figures
        assert facts.unavailable["memory_gb_per_s"].startswith("the table of chips has no Apple M9 Max")
    assert units[Unit.GPU].cores == (CoreLevel("gpu", 32),)
    assert units[Unit.ANE].unavailable["tops"] == "the table of chips has no Apple M9 Max"


def test_what_nobody_published_says_so() -> None:
    outputs = recorded("m4-pro")
    texts = {name: text.replace("Apple M4 Pro", "Apple M5 Pro") for name, text in outputs.texts.items()}
    ane = described(dataclasses.replace(outputs, texts=texts))[Unit.ANE]
    assert "tops" not in ane.figures
    assert ane.unavailable["tops"] == "nobody published it of M5 Pro, as far as the table of chips knows"


@pytest.mark.parametrize(
    ("name", "title", "matrix_unit"),
    [
        ("m1", "M1 (reconstructed)", "AMX"),
        ("m2-pro", "M2 Pro (reconstructed)", "AMX"),
        ("m3-max", "M3 Max (reconstructed)", "AMX"),
        ("m4-pro", "M4 Pro (reconstructed)", "SME"),
        ("m4-max", "M4 Max (reconstructed)", "SME"),
    ],
)
def test_the_documentation_has_the_macs_as_they_are_read(name: str, title: str, matrix_unit: str) -> None:
    units = described(recorded(name))
    cpu, memory_bytes = units[Unit.CPU], units[Unit.CPU].memory_bytes
    assert matrix_unit in units[Unit.AMX].features["instructions"]
    assert memory_bytes is not None
    cells = [
        title,
        " + ".join(str(each.num_cores) for each in cpu.cores),
        *(str(units[unit].cores[0].num_cores) for unit in (Unit.GPU, Unit.ANE)),
        f"{memory_bytes >> 30} GiB",
        f"{cpu.figures['memory_gb_per_s'].value:g} GB/s",
        matrix_unit,
    ]
    page = Path(__file__).parents[3] / "docs" / "units.md"
    assert f"| {' | '.join(cells)} |" in page.read_text().splitlines()
