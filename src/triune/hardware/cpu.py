"""The machine's CPU: its name, the cores that this process may use, and its instruction set extensions.

One function reads the system's text and another parses it, so that tests can parse text from other machines.
"""

import itertools
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from triune.core.errors import UnsupportedError
from triune.hardware.cores import num_usable_cores

_SYSCTL = ("/usr/sbin/sysctl", "machdep.cpu", "hw")
_ARM_FEATURE = "hw.optional.arm."


@dataclass(frozen=True, slots=True)
class CoreLevel:
    """Cores of one kind in a CPU that has several.

    Attributes:
        name: the vendor's name of the kind ("Performance", "Efficiency").
        num_cores: how many the CPU has.
    """

    name: str
    num_cores: int


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU as the operating system describes it.

    Attributes:
        name: the vendor's name of the model ("AMD EPYC", "Apple M2 Pro").
        num_cores: logical cores that this process may use, at least 1.
        features: instruction set extensions, as the system names them: "amx_tile" on Linux, "FEAT_SME" on macOS.
        levels: the kinds of cores, the fastest first; empty if unknown.
    """

    name: str
    num_cores: int
    features: frozenset[str]
    levels: tuple[CoreLevel, ...] = ()

    @property
    def is_apple_silicon(self) -> bool:
        """Whether it is one of Apple's CPUs."""
        return self.name.startswith("Apple ")


def read_cpu() -> Cpu:
    """Ask this machine's operating system.

    Raises:
        UnsupportedError: Triune does not support this operating system.
    """
    if sys.platform == "linux":
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return parse_cpuinfo(text, machine=platform.machine(), num_cores=num_usable_cores())
    if sys.platform == "darwin":
        return parse_sysctl(subprocess.run(_SYSCTL, check=True, capture_output=True, text=True).stdout)
    raise UnsupportedError(f"Triune runs on macOS and Linux, not on {sys.platform}")


def parse_cpuinfo(text: str, *, machine: str, num_cores: int) -> Cpu:
    """Parse Linux's /proc/cpuinfo.

    Args:
        text: the whole file.
        machine: the architecture's name, used if the kernel reports no model name (as on Arm).
        num_cores: logical cores that this process may use; the file lists the whole machine's.
    """
    processors = list(_processors(text))
    first = processors[0] if processors else dict[str, str]()
    name = first.get("model name") or first.get("Model") or f"{machine} CPU"
    # Cores may differ (big and little ones of Arm): only features that all of them have count.
    features = [frozenset((each.get("flags") or each.get("Features") or "").split()) for each in processors]
    return Cpu(" ".join(name.split()), num_cores, frozenset[str].intersection(*features) if features else frozenset())


def parse_sysctl(text: str) -> Cpu:
    """Parse macOS's `sysctl machdep.cpu hw`. macOS has no affinity: every active core is usable."""
    facts = _facts(text.splitlines())
    levels = tuple(_levels(facts))
    total = sum(level.num_cores for level in levels)
    num_cores = int(facts.get("hw.activecpu") or facts.get("hw.logicalcpu") or total)
    features = {
        key.removeprefix(_ARM_FEATURE) for key, value in facts.items() if key.startswith(_ARM_FEATURE) and value == "1"
    }
    name = facts.get("machdep.cpu.brand_string", "unknown CPU")
    return Cpu(name, max(1, num_cores), frozenset(features), levels)


def _levels(facts: Mapping[str, str]) -> Iterator[CoreLevel]:
    for index in itertools.count():
        num_cores = facts.get(f"hw.perflevel{index}.physicalcpu")
        if num_cores is None:
            return
        yield CoreLevel(facts.get(f"hw.perflevel{index}.name", f"level {index}"), int(num_cores))


def _processors(text: str) -> Iterator[Mapping[str, str]]:
    # On some Arm kernels the last paragraph is about the board, and has no line "processor".
    for paragraph in re.split(r"\n\s*\n", text):
        facts = _facts(paragraph.splitlines())
        if "processor" in facts:
            yield facts


def _facts(lines: list[str]) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
