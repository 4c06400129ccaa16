"""Describes each unit of a machine from what its system printed, and from the table of chips."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.abilities import features, precisions
from triune.hardware.caches import Cache, parse_caches, parse_perflevel_caches
from triune.hardware.chip import Chip
from triune.hardware.chips import find_chip
from triune.hardware.cpu import CoreLevel, Cpu
from triune.hardware.facts import UnitFacts
from triune.hardware.figures import Figure, FigureKind
from triune.hardware.macos import AppleGpu, parse_displays, parse_neural_engine
from triune.hardware.nvidia import gpu_names
from triune.hardware.nvml import NvidiaGpu, parse_nvml
from triune.hardware.outputs import Outputs
from triune.hardware.units import detect_units, is_installed

_COUNTS: Final = ("cores", "super_cores", "performance_cores", "efficiency_cores")
_OF_MATRIX_UNITS: Final = ("matrix_units", "matrix_fp32_tflops")
_BY_NVML: Final = "derived from what NVML tells"


def describe_units(outputs: Outputs, *, is_installed: Callable[[str], bool] = is_installed) -> tuple[UnitFacts, ...]:
    """Describe each unit, in the order of `Unit`, without its runtimes and without measurements on this machine.

    Args:
        outputs: the texts that this machine's system printed. A field whose value they lack is listed in
            `UnitFacts.unavailable`, with the reason.
        is_installed: returns whether a Python package is installed.
    """
    cpu = outputs.cpu()
    gpus, no_gpu = parse_nvml(outputs.text("nvml"))
    nvidia = outputs.text("nvidia") or gpu_names([each.name for each in gpus])
    statuses = detect_units(cpu, is_installed=is_installed, nvidia=nvidia)
    chip = find_chip(cpu.name) if cpu.is_apple_silicon else None
    describe = _Describer(outputs, cpu, chip, gpus, no_gpu, nvidia)
    return tuple(describe.unit(status) for status in statuses)


def expected_rate(unit: Unit, *, is_apple: bool) -> str:
    """The name of the most important rate of a unit. If that figure is missing, `UnitFacts.unavailable` says why."""
    match unit:
        case Unit.CPU:
            return "matmul_fp32_tflops"
        case Unit.AMX:
            return "matrix_fp32_tflops" if is_apple else "matmul_bf16_tflops"
        case Unit.GPU:
            return "fp32_tflops"
        case Unit.ANE:
            return "tops"


@dataclasses.dataclass(frozen=True)
class _Describer:
    outputs: Outputs
    cpu: Cpu
    chip: Chip | None
    gpus: Sequence[NvidiaGpu]
    no_gpu: str
    nvidia: str

    def unit(self, status: UnitStatus) -> UnitFacts:
        if status.presence is Presence.ABSENT:
            return UnitFacts(status)
        able = UnitFacts(
            status,
            precisions=precisions(status.unit, self.cpu, self.chip),
            features=features(status.unit, self.cpu, self.chip),
        )
        match status.unit:
            case _ if status.presence is Presence.EMULATED:
                return able
            case Unit.CPU:
                return self._cpu(able)
            case Unit.AMX:
                return self._amx(able)
            case Unit.GPU:
                return self._apple_gpu(able) if self.cpu.is_apple_silicon else self._nvidia_gpu(able)
            case Unit.ANE:
                return self._ane(able)

    def _cpu(self, facts: UnitFacts) -> UnitFacts:
        is_mac = self.outputs.system == "darwin"
        caches = (
            parse_perflevel_caches(self.outputs.text("sysctl")) if is_mac else parse_caches(self.outputs.text("caches"))
        )
        unavailable = dict[str, str]() if caches else {"caches": "the system lists none"}
        cores = self.cpu.levels or (CoreLevel("logical", self.cpu.num_cores),)
        figures = self._figures("cpu", left_out=(*_COUNTS, *_OF_MATRIX_UNITS))
        return self._with_memory(facts, figures, cores=cores, caches=caches, unavailable=unavailable)

    def _amx(self, facts: UnitFacts) -> UnitFacts:
        figures = {name: figure for name, figure in self._figures("cpu").items() if name in _OF_MATRIX_UNITS}
        return self._with_memory(facts, figures)

    def _apple_gpu(self, facts: UnitFacts) -> UnitFacts:
        gpu = self._displays()
        cores = (CoreLevel("gpu", gpu.num_cores),) if gpu.num_cores else ()
        figures = self._figures("gpu", left_out=("cores",) if cores else ())
        unavailable = {"cores": gpu.reason} if gpu.reason else {}
        return self._with_memory(facts, figures, cores=cores, unavailable=unavailable)

    def _ane(self, facts: UnitFacts) -> UnitFacts:
        ane = parse_neural_engine(self.outputs.text("neural_engine"))
        cores = (CoreLevel("neural engine", ane.num_cores),) if ane.num_cores else ()
        figures = self._figures("ane", left_out=("cores",) if cores else ())
        reason = self.outputs.failures.get("neural_engine") or ane.reason
        unavailable = {"cores": reason} if reason else {}
        return self._with_memory(facts, figures, cores=cores, unavailable=unavailable)

    def _nvidia_gpu(self, facts: UnitFacts) -> UnitFacts:
        if not self.gpus:
            return dataclasses.replace(facts, name=self.nvidia, unavailable={"cores, memory and rates": self.no_gpu})
        gpu = self.gpus[0]
        counts = (("multiprocessors", gpu.num_multiprocessors), ("cuda", gpu.num_cores))
        figures = dict[str, Figure]()
        if gpu.gb_per_s:
            note = f"{gpu.bus_width_bits} bits at {gpu.memory_clock_mhz} MHz, two bits a pin and cycle"
            figures["memory_gb_per_s"] = Figure(gpu.gb_per_s, "GB/s", FigureKind.CLAIMED, _BY_NVML, note=note)
        if gpu.fp32_tflops:
            note = f"{gpu.num_cores} cores at {gpu.core_clock_mhz} MHz, a product and a sum a cycle"
            figures["fp32_tflops"] = Figure(gpu.fp32_tflops, "TFLOPS", FigureKind.CLAIMED, _BY_NVML, "fp32", note=note)
        names = {"memory_gb_per_s": gpu.gb_per_s, "fp32_tflops": gpu.fp32_tflops, "memory": gpu.memory_bytes}
        return dataclasses.replace(
            facts,
            name=self.nvidia,
            cores=tuple(CoreLevel(kind, count) for kind, count in counts if count),
            features={**facts.features, **_of_driver(gpu), **self._devices()},
            memory_bytes=gpu.memory_bytes,
            figures=figures,
            unavailable={name: "NVML does not tell it of this GPU" for name, value in names.items() if not value},
        )

    def _devices(self) -> Mapping[str, str]:
        return (
            {"devices": f"{len(self.gpus)}; what is told is of the first"} if len(self.gpus) > 1 else dict[str, str]()
        )

    def _with_memory(
        self,
        facts: UnitFacts,
        figures: Mapping[str, Figure],
        *,
        cores: Sequence[CoreLevel] = (),
        caches: Sequence[Cache] = (),
        unavailable: Mapping[str, str] = MappingProxyType({}),
    ) -> UnitFacts:
        """Complete the description of a unit that uses the CPU's memory: add `figures`, and the chip's figures of the
        memory.
        """
        memory = self._figures("memory", left_out=("size_gb",))
        known = {**{f"memory_{name}": figure for name, figure in memory.items()}, **figures}
        expected = ("memory_gb_per_s", expected_rate(facts.unit, is_apple=self.cpu.is_apple_silicon))
        missing = {name: self._why_unknown(facts.unit) for name in expected if name not in known}
        return dataclasses.replace(
            facts,
            name=self.cpu.name,
            cores=cores,
            caches=caches,
            memory_bytes=self.outputs.memory_bytes,
            is_memory_shared=facts.unit is not Unit.CPU,
            figures=known,
            unavailable={**unavailable, **missing},
        )

    def _why_unknown(self, unit: Unit) -> str:
        measure = "" if unit is Unit.ANE else "; `triune units --measure` measures it"
        if self.chip:
            return f"nobody published it of {self.chip.name}, as far as the table of chips knows{measure}"
        if self.cpu.is_apple_silicon:
            return f"the table of chips has no {self.cpu.name}{measure}"
        return f"the system does not tell it{measure}"

    def _figures(self, section: str, left_out: Sequence[str] = ()) -> Mapping[str, Figure]:
        """The known figures of a section of the chip. Figures of GPU and memory are those of this machine's
        configuration.
        """
        if self.chip is None:
            return dict[str, Figure]()
        part = getattr(self.chip, section)
        found = {each.name: getattr(part, each.name) for each in dataclasses.fields(part) if each.name not in left_out}
        figures = {name: figure for name, figure in found.items() if isinstance(figure, Figure)}
        if section not in ("gpu", "memory"):
            return figures
        return {name: self._of_configuration(self.chip, figure) for name, figure in figures.items()}

    def _of_configuration(self, chip: Chip, figure: Figure) -> Figure:
        """Return the figure for this machine's number of GPU cores. The table's figures are those of the chip with the
        most cores.

        If the table has values for chips with fewer cores, the result has the value for this machine. If not, a rate of
        all cores together gets a note that states the number of cores.
        """
        cores, num_cores = chip.gpu.cores, self._displays().num_cores
        if cores is None or num_cores not in cores.smaller:
            return figure
        if len(figure.smaller) == len(cores.smaller):
            value = figure.smaller[cores.smaller.index(num_cores)]
            return dataclasses.replace(figure, value=value, smaller=(), low=None, high=None)
        if not figure.basis:
            return figure
        own = f"with {cores.value:g} GPU cores; this one has {num_cores}"
        return dataclasses.replace(figure, note=f"{figure.note}; {own}" if figure.note else own)

    def _displays(self) -> AppleGpu:
        gpu = parse_displays(self.outputs.text("displays"))
        failure = self.outputs.failures.get("displays")
        return dataclasses.replace(gpu, reason=failure) if failure else gpu


def _of_driver(gpu: NvidiaGpu) -> Mapping[str, str]:
    capability = ".".join(map(str, gpu.compute_capability)) if gpu.compute_capability else ""
    return {name: text for name, text in (("compute_capability", capability), ("driver", gpu.driver)) if text}
