"""The rates of a chip's units: rated figures of `hardware.chips`, times the fitted constants of `constants.toml`.

Only figures that the maker rates are read (cores, peaks, bandwidth of the memory), never measured ones: those are among
the measurements that the constants are fitted to and scored on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from triune.core.errors import UnsupportedError
from triune.core.units import Unit
from triune.hardware.chip import Chip
from triune.hardware.chips import chips
from triune.hardware.figures import Figure
from triune.hardware.rules import tier_of
from triune.planning.constants import Constants
from triune.planning.cost import Rates
from triune.planning.op import OpClass

Made: TypeAlias = tuple[Rates, tuple[str, ...]]
"""A unit's rates, and a note for each missing figure: what is used instead."""

_FIRST_NEW_TIER = 4
"""The first tier of Neural Engines (`tier_of`) whose launch is shorter: A16 and M4."""
_FIRST_WIDE_TIER = 3
"""The first tier (`tier_of`) whose larger chips read weights for the Neural Engine at twice the rate: M3."""


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a plan: a chip, or this machine.

    Attributes:
        name: the name of the chip or machine, such as "M2 Pro".
        units: its units.
        tier: the tier of its Neural Engine (`hardware.rules.tier_of`): the rules say from which tier on an operation is
            supported.
        memory_gb_per_s: the bandwidth of the memory that its units share; None if unknown.
        memory_gb: the size of its memory, for a chip in its largest configuration; None if unknown.
        is_scored: whether the errors on published measurements, which are of Apple's chips, apply to the target.
        notes: the assumptions that were made.
    """

    name: str
    units: Mapping[Unit, "PlannedUnit"]
    tier: int
    memory_gb_per_s: float | None
    memory_gb: float | None
    is_scored: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """A unit of a chip for the cost model.

    Attributes:
        unit: the unit.
        rates: its speeds and bandwidths.
        notes: for each missing figure, what is used instead.
    """

    unit: Unit
    rates: Rates
    notes: tuple[str, ...] = ()


def target_of(chip: Chip, constants: Constants) -> Target:
    """Make a target of a chip. Raises UnsupportedError like `units_of`."""
    memory = chip.memory
    return Target(
        chip.name,
        units_of(chip, constants),
        tier_of(chip.generation),
        memory.gb_per_s.value if memory.gb_per_s else None,
        memory.size_gb.value if memory.size_gb else None,
    )


def units_of(chip: Chip, constants: Constants) -> dict[Unit, PlannedUnit]:
    """The units of a chip for which the cost model has all figures.

    Raises:
        UnsupportedError: the figures of the chip suffice for none of its units.
    """
    found = {
        Unit.CPU: _cpu_rates(chip, constants, "cpu"),
        Unit.AMX: amx_rates(chip, constants),
        Unit.GPU: gpu_rates(chip, constants),
        Unit.ANE: ane_rates(chip, constants),
    }
    units = {unit: PlannedUnit(unit, *each) for unit, each in found.items() if each is not None}
    if not units:
        raise UnsupportedError(f"chip '{chip.name}' has no figures from which a plan can be made")
    return units


def ane_rates(chip: Chip, constants: Constants, *, activation_bits: float = 16) -> Made | None:
    """The rates of the chip's Neural Engine, with notes on the assumptions; None if no figure of its family is
    known.
    """
    figure, note = _figure(chip, "tops", lambda each: each.ane.tops)
    if figure is None:
        return None
    notes = (note,) if note else ()
    # Apple's ratings are in fp16 up to M3, and in int8 since then. For M5 and later chips none is published.
    tflops = figure.value / (2 if figure.basis == "int8" else 1)
    if chip.ane.cores is not None and chip.ane.cores.value > 16:
        # The chip has two Neural Engines; a call uses one of them.
        tflops /= 2
    tier, is_phone = tier_of(chip.generation), chip.name.startswith("A")
    is_wide = tier >= _FIRST_WIDE_TIER and not is_phone and chip.name != chip.generation
    get = constants.get
    stream = get("ane.weights_gb_per_s_" + ("phone" if is_phone else "wide" if is_wide else "base"))
    age = "new" if tier >= _FIRST_NEW_TIER else "old"
    speedup = get("ane.int8_speedup") if activation_bits == 8 else 1.0
    rates = Rates(
        tflops=tflops * speedup,
        efficiency=_efficiency("ane", constants),
        half_rows=get("ane.half_rows"),
        half_columns=get("ane.half_columns"),
        weights_gb_per_s=stream,
        weights_g_per_s=get("ane.weights_g_per_s"),
        memory_gb_per_s=get("ane.memory_gb_per_s"),
        chip_gb_per_s=get("ane.chip_gb_per_s"),
        knee_mb=get("ane.knee_mb"),
        has_fused_attention=False,
        op_ms=get("ane.op_ms"),
        launch_ms=get(f"ane.launch_ms_{age}"),
        element_bytes=activation_bits / 8,
        watts=get("ane.watts"),
        pj_per_flop=get("ane.pj_per_flop"),
        pj_per_byte=get("ane.pj_per_byte"),
    )
    return rates, notes


def gpu_rates(
    chip: Chip, constants: Constants, num_cores: float | None = None, gb_per_s: float | None = None
) -> Made | None:
    """The rates of the chip's GPU, with notes on the assumptions; None if its peak, its number of cores or the memory's
    bandwidth is not known.

    Args:
        chip: a chip.
        constants: the fitted constants.
        num_cores: the GPU cores of the configuration; None takes the largest.
        gb_per_s: the memory's bandwidth of the configuration; None takes the largest.
    """
    gpu, memory = chip.gpu, chip.memory.gb_per_s
    figure, note = _figure(chip, "fp32_tflops", lambda each: each.gpu.fp32_tflops if each.gpu.cores else None)
    if figure is None or gpu.cores is None or memory is None:
        return None
    owner = next(each for each in chips() if each.gpu.fp32_tflops is figure)
    owner_cores = owner.gpu.cores.value if owner.gpu.cores else gpu.cores.value
    get = constants.get
    bandwidth = memory.value if gb_per_s is None else gb_per_s
    # The faster the memory is, the smaller is the share of the bandwidth that one stream reaches.
    bandwidth = get("gpu.memory_share") * bandwidth / (1 + bandwidth / get("gpu.memory_half_gb_per_s"))
    matrix = get("gpu.accelerator_speedup") if gpu.neural_accelerators else 1.0
    rates = Rates(
        tflops=figure.value / owner_cores * (num_cores or gpu.cores.value) * matrix,
        efficiency=_efficiency("gpu", constants),
        half_rows=get("gpu.half_rows"),
        half_columns=get("gpu.half_columns"),
        weights_gb_per_s=bandwidth,
        weights_g_per_s=1e9,
        memory_gb_per_s=bandwidth,
        chip_gb_per_s=get("gpu.chip_share") * bandwidth,
        knee_mb=get("gpu.knee_mb"),
        has_fused_attention=True,
        op_ms=get("gpu.op_ms"),
        launch_ms=get("gpu.launch_ms"),
        element_bytes=2,
        watts=get("gpu.watts"),
        pj_per_flop=get("gpu.pj_per_flop"),
        pj_per_byte=get("gpu.pj_per_byte"),
    )
    return rates, (note,) if note else ()


def amx_rates(chip: Chip, constants: Constants) -> Made | None:
    """The rates of the chip's matrix units, used through Accelerate; None if its cores are not known."""
    return _cpu_rates(chip, constants, "amx")


def cpu_like_rates(
    constants: Constants,
    curve: str,
    *,
    tflops: float,
    gb_per_s: float,
    element_bytes: float = 4,
    watts: float = 0.0,
) -> Rates:
    """The rates of a unit with the peak `tflops` and the bandwidth `gb_per_s`. `curve` names the unit whose fitted
    efficiency it has: "cpu" or "gpu".
    """
    get = constants.get
    return Rates(
        tflops=tflops,
        efficiency=_efficiency(curve, constants),
        half_rows=get(f"{curve}.half_rows"),
        half_columns=get(f"{curve}.half_columns"),
        weights_gb_per_s=gb_per_s,
        weights_g_per_s=1e9,
        memory_gb_per_s=gb_per_s,
        chip_gb_per_s=2 * gb_per_s,
        knee_mb=get(f"{curve}.knee_mb"),
        has_fused_attention=curve == "gpu",
        op_ms=get(f"{curve}.op_ms"),
        launch_ms=0.0,
        element_bytes=element_bytes,
        watts=watts,
        pj_per_flop=0.0,
        pj_per_byte=get("cpu.pj_per_byte"),
    )


def _cpu_rates(chip: Chip, constants: Constants, name: str) -> Made | None:
    cores = chip.cpu.performance_cores
    if cores is None:
        return None
    memory = chip.memory.gb_per_s
    rates = cpu_like_rates(
        constants,
        "cpu",
        tflops=constants.get(f"{name}.tflops_per_core") * cores.value,
        gb_per_s=min(constants.get("cpu.gb_per_s_per_core") * cores.value, memory.value if memory else float("inf")),
        watts=constants.get(f"{name}.watts_per_core") * cores.value,
    )
    return rates, ()


def _efficiency(unit: str, constants: Constants) -> Mapping[OpClass, float]:
    names = {each: f"{unit}.efficiency_{each.value}" for each in OpClass}
    return {each: constants.numbers[name] for each, name in names.items() if name in constants.numbers}


def _figure(chip: Chip, name: str, read: Callable[[Chip], Figure | None]) -> tuple[Figure | None, str]:
    """Return a figure of the chip, and "". If the figure was not published, return the figure of the newest chip of the
    same or an earlier generation, with the same suffix ("Pro", "Max") if there is one, and a note that says so; None
    and "" if there is no such chip.
    """
    own = read(chip)
    if own is not None:
        return own, ""
    suffix = chip.name.removeprefix(chip.generation)
    number = int(chip.generation[1:])
    for is_same_size in (True, False):
        older = [
            each
            for each in chips()
            if each.generation[0] == chip.generation[0]
            and int(each.generation[1:]) <= number
            and (each.name.removeprefix(each.generation) == suffix or not is_same_size)
            and read(each) is not None
        ]
        if older:
            newest = max(older, key=lambda each: int(each.generation[1:]))
            return read(newest), f"{name} of {chip.name} is not published: that of {newest.name} stands for it"
    return None, ""
