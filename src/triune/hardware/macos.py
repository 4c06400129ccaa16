"""Parses macOS's descriptions of its GPU and Neural Engine. A number that the text
lacks is None, with the reason.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

DISPLAYS: Final = ("/usr/sbin/system_profiler", "SPDisplaysDataType", "-json", "-detailLevel", "mini")
"""The command whose output `parse_displays` reads."""

NEURAL_ENGINE: Final = ("/usr/sbin/ioreg", "-r", "-c", "H11ANEIn", "-l", "-w", "0")
"""The command whose output `parse_neural_engine` reads. All generations from M1 on have this class in the I/O
registry.
"""


@dataclass(frozen=True, slots=True)
class AppleGpu:
    """The GPU of an Apple chip.

    Attributes:
        name: the name of the chip, such as "Apple M2 Pro".
        num_cores: the number of cores; None if unknown.
        reason: why the number of cores is unknown; "" if it is known.
    """

    name: str
    num_cores: int | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AppleNeuralEngine:
    """The Neural Engine of an Apple chip. An Ultra chip has several, which are described together.

    Attributes:
        num_cores: the number of cores of all Neural Engines together; None if unknown.
        architecture: Apple's name of the design, such as "h15g"; "" if unknown.
        reason: why the number of cores is unknown; "" if it is known.
    """

    num_cores: int | None
    architecture: str
    reason: str = ""


def parse_displays(text: str) -> AppleGpu:
    """Parse the output of the command `DISPLAYS` (system_profiler). Returns the GPU whose entry has a number of cores,
    as Apple's GPUs have.
    """
    gpus = list(_gpus(text))
    for gpu in gpus:
        if (num_cores := _count(gpu.get("sppci_cores"))) is not None:
            return AppleGpu(_text(gpu.get("sppci_model")) or _text(gpu.get("_name")), num_cores)
    if not gpus:
        return AppleGpu("", None, "system_profiler lists no GPU")
    name = _text(gpus[0].get("sppci_model")) or _text(gpus[0].get("_name"))
    return AppleGpu(name, None, "system_profiler tells no number of cores (sppci_cores)")


def parse_neural_engine(text: str) -> AppleNeuralEngine:
    """Parse the output of the command `NEURAL_ENGINE` (ioreg)."""
    cores = [int(each) for each in re.findall(r'"ANEDevicePropertyNumANECores"\s*=\s*(\d{1,4})\b', text)]
    architecture = re.search(r'"ANEDevicePropertyTypeANEArchitectureTypeStr"\s*=\s*"(\w{1,16})"', text)
    if sum(cores):
        return AppleNeuralEngine(sum(cores), architecture[1] if architecture else "")
    what = "no number of cores (ANEDevicePropertyNumANECores)" if "H11ANE" in text else "no Neural Engine (H11ANEIn)"
    return AppleNeuralEngine(None, architecture[1] if architecture else "", f"ioreg tells {what}")


def _gpus(text: str) -> Iterator[Mapping[str, Any]]:
    try:
        content: object = json.loads(text)
    except (ValueError, RecursionError):
        return
    entries: object = (
        cast("dict[str, object]", content).get("SPDisplaysDataType") if isinstance(content, dict) else None
    )
    for each in cast("list[object]", entries) if isinstance(entries, list) else []:
        if isinstance(each, dict):
            yield cast("Mapping[str, Any]", each)


def _count(value: object) -> int | None:
    """Parse a number of cores, which system_profiler prints as a string."""
    found = re.fullmatch(r"\s*([1-9]\d{0,5})\s*", str(value)) if isinstance(value, str | int) else None
    return int(found[1]) if found else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
