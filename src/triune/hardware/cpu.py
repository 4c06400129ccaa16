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
from typing import Final

from triune.core.errors import UnsupportedError
from triune.hardware.cores import num_usable_cores
from triune.hardware.tiles import ask_for_tiles, parse_tiles

SYSCTL: Final = ("/usr/sbin/sysctl", "machdep.cpu", "hw", "sysctl.proc_translated")
"""The command whose output `parse_sysctl` reads. If a name is unknown it still prints the others, and ends with an
error.
"""

_ARM_FEATURE: Final = "hw.optional.arm."
_UNKNOWN: Final = "unknown CPU"
_MOST_DIGITS: Final = 18


@dataclass(frozen=True, slots=True)
class CoreLevel:
    """The cores of one kind, in a CPU with several kinds of cores.

    Attributes:
        name: the vendor's name of the kind ("Performance", "Efficiency").
        num_cores: the number of cores of this kind.
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
        is_translated: whether Rosetta translates this process, so that it sees an Intel CPU in place of Apple's.
        tiles_refused: why this process may not use the CPU's AMX tiles; "" if it may, or if there are none.
    """

    name: str
    num_cores: int
    features: frozenset[str]
    levels: tuple[CoreLevel, ...] = ()
    is_translated: bool = False
    tiles_refused: str = ""

    @property
    def is_apple_silicon(self) -> bool:
        """Whether it is one of Apple's CPUs, and this process is not translated by Rosetta."""
        return self.name.startswith("Apple ") and not self.is_translated


def read_cpu() -> Cpu:
    """Read the CPU's description from this machine's operating system.

    Raises:
        UnsupportedError: Triune does not support this operating system.
    """
    if sys.platform == "linux":
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return parse_cpuinfo(text, machine=platform.machine(), num_cores=num_usable_cores(), tiles=ask_for_tiles())
    if sys.platform == "darwin":
        text = subprocess.run(SYSCTL, check=False, capture_output=True, text=True, errors="replace").stdout
        return parse_sysctl(text, machine=platform.machine())
    raise UnsupportedError(f"Triune runs on macOS and Linux, not on {sys.platform}")


def parse_cpuinfo(text: str, *, machine: str, num_cores: int, tiles: str | None = None) -> Cpu:
    """Parse Linux's /proc/cpuinfo.

    Args:
        text: the whole file.
        machine: the architecture's name, used if the kernel reports no model name (as on Arm).
        num_cores: logical cores that this process may use; the file lists the whole machine's.
        tiles: the result of `ask_for_tiles`; None if the kernel was not asked, which counts as permission.
    """
    processors = list(_processors(text))
    first = processors[0] if processors else dict[str, str]()
    name = first.get("model name") or first.get("Model") or f"{machine} CPU"
    # Cores may differ (Arm's big and little cores), so only features that all cores have count.
    features = [frozenset((each.get("flags") or each.get("Features") or "").split()) for each in processors]
    common = frozenset[str].intersection(*features) if features else frozenset[str]()
    refused = parse_tiles(tiles) if "amx_tile" in common and tiles is not None else ""
    return Cpu(" ".join(name.split()), num_cores, common, tiles_refused=refused)


def parse_sysctl(text: str, machine: str = "") -> Cpu:
    """Parse the output of `SYSCTL` on macOS. macOS has no affinity: every active core is usable.

    Args:
        text: the output; a figure that is missing or not a number is taken as unknown.
        machine: the architecture for which this process's Python was built, "arm64" or "x86_64".
    """
    facts = _facts(text.splitlines())
    levels = tuple(_levels(facts))
    total = sum(level.num_cores for level in levels)
    num_cores = _count(facts.get("hw.activecpu")) or _count(facts.get("hw.logicalcpu")) or total
    features = {
        key.removeprefix(_ARM_FEATURE) for key, value in facts.items() if key.startswith(_ARM_FEATURE) and value == "1"
    }
    name = facts.get("machdep.cpu.brand_string") or _UNKNOWN
    # The system may run `sysctl` itself translated or not, so each of these conditions may be the only sign of Rosetta.
    is_translated = (
        facts.get("sysctl.proc_translated") == "1"
        or name.startswith("VirtualApple")
        or (machine == "x86_64" and facts.get("hw.optional.arm64") == "1")
    )
    return Cpu(name, max(1, num_cores), frozenset(features), levels, is_translated)


def _levels(facts: Mapping[str, str]) -> Iterator[CoreLevel]:
    for index in itertools.count():
        num_cores = _count(facts.get(f"hw.perflevel{index}.physicalcpu"))
        if num_cores is None:
            return
        yield CoreLevel(facts.get(f"hw.perflevel{index}.name") or f"level {index}", num_cores)


def _processors(text: str) -> Iterator[Mapping[str, str]]:
    # Leave out paragraphs without a line "processor": on some Arm kernels the last one describes the board.
    for paragraph in re.split(r"\n\s*\n", text):
        facts = _facts(paragraph.splitlines())
        if "processor" in facts:
            yield facts


def _count(text: str | None) -> int | None:
    is_number = text is not None and text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if text is not None and is_number else None


def _facts(lines: list[str]) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
