"""The precisions and features of each unit, when the runtimes that Triune uses for the unit compute on it.

On Linux they were tested with small models on each unit. For Apple's units they are taken from the documentation of
Core ML and MLX, and from the table of chips.
"""

from collections.abc import Mapping

from triune.core.units import Unit
from triune.hardware.chip import Chip
from triune.hardware.cpu import Cpu
from triune.hardware.facts import Support

_YES = "yes"
_NO = "no"

_FAST_INT8 = ("amx_int8", "avx512_vnni", "avx_vnni", "FEAT_I8MM", "FEAT_DotProd", "i8mm", "asimddp")
"""Instructions for products of 8-bit integers: those of x86 by Linux's names, those of Arm by macOS's and Linux's
names.
"""


_INSTRUCTIONS = {
    Unit.CPU: (
        *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
        *("FEAT_FP16", "FEAT_BF16", "FEAT_DotProd", "FEAT_I8MM"),
        *("asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
    ),
    Unit.AMX: ("amx_tile", "amx_bf16", "amx_int8", "amx_fp16", "FEAT_SME", "FEAT_SME2"),
}
"""Instructions that make models faster, by unit, with the names that the operating systems give them."""


def precisions(unit: Unit, cpu: Cpu, chip: Chip | None) -> Mapping[str, Support]:
    """How `unit` handles each precision.

    Args:
        unit: a unit that is present or emulated.
        cpu: the CPU of this machine.
        chip: the machine's chip, if it is one of Apple's and the table of chips has it.
    """
    computes, converted, weights, no = Support.COMPUTES, Support.CONVERTED, Support.WEIGHTS, Support.NO
    match unit:
        case Unit.CPU:
            # fp16 counts as converted, since ONNX Runtime's CPU provider casts it to fp32 where it has no fp16 kernel;
            # bf16 counts as refused, since it has no matrix product of bf16.
            return _named(computes, converted, no, computes, weights)
        case Unit.AMX if cpu.is_apple_silicon:
            return _named(computes, computes, no, weights, weights)
        case Unit.AMX:
            return _named(converted, converted, computes, computes if "amx_int8" in cpu.features else weights, weights)
        case Unit.GPU:
            return _named(computes, computes, computes, weights, weights)
        case Unit.ANE:
            return _named(converted, computes, no, computes if _has_int8(chip) else weights, weights)


def features(unit: Unit, cpu: Cpu, chip: Chip | None) -> Mapping[str, str]:
    """The features of `unit`: "dynamic_shapes", "int8_compute" and "state"; for a CPU and its matrix unit also
    "instructions".

    The arguments are those of `precisions`.
    """
    shapes = "within limits that the model names" if unit is Unit.ANE else _YES
    found = {"dynamic_shapes": shapes, "int8_compute": _int8(unit, cpu, chip), "state": _state(unit, cpu)}
    names = [name for name in _INSTRUCTIONS.get(unit, ()) if name in cpu.features]
    if unit is Unit.AMX and cpu.is_apple_silicon and not names:
        return {**found, "instructions": "AMX, which only Apple's Accelerate reaches"}
    return {**found, "instructions": ", ".join(names)} if names else found


def _named(fp32: Support, fp16: Support, bf16: Support, int8: Support, int4: Support) -> Mapping[str, Support]:
    return {"fp32": fp32, "fp16": fp16, "bf16": bf16, "int8": int8, "int4": int4}


def _state(unit: Unit, cpu: Cpu) -> str:
    if unit is Unit.ANE:
        return "no: caches are inputs and outputs, since Core ML's states failed there (error -14)"
    # States exist only in Core ML and Core AI models. Outside Apple's systems, these run through ONNX Runtime and
    # OpenVINO, not through MLX on the GPU.
    return _NO if unit is Unit.GPU and not cpu.is_apple_silicon else "of Core ML and Core AI models"


def _int8(unit: Unit, cpu: Cpu, chip: Chip | None) -> str:
    match unit:
        case Unit.CPU:
            found = [name for name in _FAST_INT8 if name in cpu.features and name != "amx_int8"]
            return f"yes, by {', '.join(found)}" if found else "yes, without instructions for it"
        case Unit.AMX:
            return "yes, by amx_int8" if "amx_int8" in cpu.features else _NO
        case Unit.GPU:
            return _NO
        case Unit.ANE:
            return "yes, of 8-bit weights and activations" if _has_int8(chip) else _NO


def _has_int8(chip: Chip | None) -> bool:
    """Whether the Neural Engine multiplies 8-bit integers faster than fp16. By Apple's ratings it does from M4 and A17
    Pro on.
    """
    if chip is None:
        return False
    is_rated_so = chip.ane.tops is not None and chip.ane.tops.basis == "int8"
    return is_rated_so or chip.ane.w8a8_tops is not None
