"""One of Apple's chips, as `chips.toml` describes it: frozen dataclasses. `chips.py` finds a chip by its name."""

from dataclasses import dataclass, field
from typing import Final

from triune.hardware.figures import Fact, Figure

UNIT: Final = "unit"
"""The key of a field's metadata that has the unit of the figure, such as "GB/s"."""

CHOICES: Final = "choices"
"""The key of a field's metadata that has the allowed values, for fields that are words."""


_CORES: Final = {UNIT: "cores"}
_UNITS: Final = {UNIT: "units"}
_TFLOPS: Final = {UNIT: "TFLOPS"}
_TOPS: Final = {UNIT: "TOPS"}
_GB_PER_S: Final = {UNIT: "GB/s"}
_GB: Final = {UNIT: "GB"}
_MB: Final = {UNIT: "MB"}
_MS: Final = {UNIT: "ms"}
_W: Final = {UNIT: "W"}


@dataclass(frozen=True, slots=True)
class ChipCpu:
    """The CPU of a chip; a figure is None if unknown.

    Attributes:
        super_cores: the number of cores that Apple calls super cores, the fastest ones of M5.
        performance_cores: the number of cores that Apple calls performance cores.
        efficiency_cores: the number of cores that Apple calls efficiency cores.
        matrix_units: the number of matrix units, which cores share.
        matrix_unit: "SME" if programs reach the matrix units by Arm's instructions of that name; "AMX" if only Apple's
            Accelerate reaches them, by instructions that Apple does not publish.
        matrix_fp32_tflops: the fp32 rate of all matrix units together.
        matmul_fp32_tflops: the rate that large matrix products in fp32 reach, with the matrix units.
        gb_per_s: the rate at which programs on the CPU read memory.
        watts: the power under load.
    """

    super_cores: Figure | None = field(default=None, metadata=_CORES)
    performance_cores: Figure | None = field(default=None, metadata=_CORES)
    efficiency_cores: Figure | None = field(default=None, metadata=_CORES)
    matrix_units: Figure | None = field(default=None, metadata=_UNITS)
    matrix_unit: Fact | None = field(default=None, metadata={CHOICES: ("AMX", "SME")})
    matrix_fp32_tflops: Figure | None = field(default=None, metadata=_TFLOPS)
    matmul_fp32_tflops: Figure | None = field(default=None, metadata=_TFLOPS)
    gb_per_s: Figure | None = field(default=None, metadata=_GB_PER_S)
    watts: Figure | None = field(default=None, metadata=_W)


@dataclass(frozen=True, slots=True)
class ChipGpu:
    """The GPU of a chip; a figure is None if unknown.

    Attributes:
        cores: the number of cores.
        fp32_tflops: the peak rate of the shader cores in fp32, in the largest configuration.
        fp16_tflops: the peak rate of the shader cores in fp16, in the largest configuration.
        matmul_fp32_tflops: the rate that large matrix products in fp32 reach.
        matmul_fp16_tflops: the rate that large matrix products in fp16 reach, with the neural accelerators.
        gb_per_s: the rate at which programs on the GPU read memory.
        neural_accelerators: the number of matrix units, one in each core (from M5 and A19).
        decode_gb_per_s: the rate at which llama.cpp reads weights when it generates text.
        decode_overhead_ms: the time that a token takes in addition to reading the weights at that rate.
        watts: the power under load.
    """

    cores: Figure | None = field(default=None, metadata=_CORES)
    fp32_tflops: Figure | None = field(default=None, metadata=_TFLOPS)
    fp16_tflops: Figure | None = field(default=None, metadata=_TFLOPS)
    matmul_fp32_tflops: Figure | None = field(default=None, metadata=_TFLOPS)
    matmul_fp16_tflops: Figure | None = field(default=None, metadata=_TFLOPS)
    gb_per_s: Figure | None = field(default=None, metadata=_GB_PER_S)
    neural_accelerators: Figure | None = field(default=None, metadata=_UNITS)
    decode_gb_per_s: Figure | None = field(default=None, metadata=_GB_PER_S)
    decode_overhead_ms: Figure | None = field(default=None, metadata=_MS)
    watts: Figure | None = field(default=None, metadata=_W)


@dataclass(frozen=True, slots=True)
class ChipAne:
    """The Neural Engine of a chip; a figure is None if unknown.

    Attributes:
        cores: the number of cores.
        tops: the rated operations per second; the figure's `basis` names the datatype.
        fp16_tflops: the highest rate in fp16 that a program reached.
        w8a8_tops: the highest rate with weights and activations of 8 bits that a program reached.
        weights_gb_per_s: the rate at which weights are read from memory.
        activations_gb_per_s: the rate at which activations are read from memory.
        call_ms: the time of the shortest call.
        wake_ms: the time of the first call after some seconds without calls.
        core_ml_launch_ms: the cost that Core ML's placement assumes for a segment on the Neural Engine, and again for
            each change of units.
        working_set_mb: the size above which activations do not fit into the Neural Engine's on-chip memory.
        watts: the power under load.
    """

    cores: Figure | None = field(default=None, metadata=_CORES)
    tops: Figure | None = field(default=None, metadata=_TOPS)
    fp16_tflops: Figure | None = field(default=None, metadata=_TFLOPS)
    w8a8_tops: Figure | None = field(default=None, metadata=_TOPS)
    weights_gb_per_s: Figure | None = field(default=None, metadata=_GB_PER_S)
    activations_gb_per_s: Figure | None = field(default=None, metadata=_GB_PER_S)
    call_ms: Figure | None = field(default=None, metadata=_MS)
    wake_ms: Figure | None = field(default=None, metadata=_MS)
    core_ml_launch_ms: Figure | None = field(default=None, metadata=_MS)
    working_set_mb: Figure | None = field(default=None, metadata=_MB)
    watts: Figure | None = field(default=None, metadata=_W)


@dataclass(frozen=True, slots=True)
class ChipMemory:
    """The memory of a chip, which all units share; a figure is None if unknown.

    Attributes:
        gb_per_s: the bandwidth.
        size_gb: the largest memory size that the chip is sold with.
    """

    gb_per_s: Figure | None = field(default=None, metadata=_GB_PER_S)
    size_gb: Figure | None = field(default=None, metadata=_GB)


@dataclass(frozen=True, slots=True)
class Chip:
    """One of Apple's chips.

    Attributes:
        name: "M2 Pro", "A17 Pro".
        generation: the chip without its suffix, "M2", "A17".
        cpu: its CPU.
        gpu: its GPU.
        ane: its Neural Engine.
        memory: its memory.
    """

    name: str
    generation: str
    cpu: ChipCpu
    gpu: ChipGpu
    ane: ChipAne
    memory: ChipMemory
