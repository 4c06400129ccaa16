"""Reads what the operating system prints about this machine, as texts. Tests replay the texts of other machines."""

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from triune.core.errors import UnsupportedError
from triune.hardware.caches import read_caches
from triune.hardware.cores import num_usable_cores
from triune.hardware.cpu import SYSCTL, Cpu, parse_cpuinfo, parse_sysctl
from triune.hardware.macos import DISPLAYS, NEURAL_ENGINE
from triune.hardware.memory import usable_memory
from triune.hardware.nvidia import read_nvidia
from triune.hardware.nvml import read_nvml
from triune.hardware.tiles import ask_for_tiles

_SECONDS: Final = 20
"""A command that takes longer than this many seconds is stopped. system_profiler takes one or two seconds."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The texts that the operating system prints about one machine.

    Attributes:
        system: "darwin" or "linux".
        machine: the architecture for which this Python was built: "arm64", "x86_64".
        num_cores: logical cores that this process may use; 0 on macOS, where `texts` has the number.
        memory_bytes: the memory that this process may use.
        texts: the texts by name. On macOS they are "sysctl", "displays" and "neural_engine"; on Linux "cpuinfo",
            "caches", "tiles", "nvml", and "nvidia" with the GPUs that the driver lists. A missing text is "".
        failures: for each missing text, by name, why it is missing.
    """

    system: str
    machine: str
    num_cores: int
    memory_bytes: int
    texts: Mapping[str, str]
    failures: Mapping[str, str] = field(default_factory=dict[str, str])

    def text(self, name: str) -> str:
        """The text with this name; "" if it is missing."""
        return self.texts.get(name, "")

    def cpu(self) -> Cpu:
        """The CPU that the texts describe."""
        if self.system == "darwin":
            return parse_sysctl(self.text("sysctl"), self.machine)
        tiles = self.texts.get("tiles")
        return parse_cpuinfo(self.text("cpuinfo"), machine=self.machine, num_cores=self.num_cores, tiles=tiles)


def read_outputs() -> Outputs:
    """Read the texts of this machine. This takes up to two seconds on a Mac.

    Raises:
        UnsupportedError: Triune does not support this operating system.
    """
    memory_bytes = usable_memory().total
    if sys.platform == "linux":
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        texts = {"cpuinfo": cpuinfo, "caches": read_caches(), "tiles": ask_for_tiles()}
        texts |= {"nvidia": read_nvidia(), "nvml": read_nvml()}
        return Outputs("linux", platform.machine(), num_usable_cores(), memory_bytes, texts)
    if sys.platform == "darwin":
        texts, failures = dict[str, str](), dict[str, str]()
        for name, command in (("sysctl", SYSCTL), ("displays", DISPLAYS), ("neural_engine", NEURAL_ENGINE)):
            texts[name], failures[name] = run(command)
        return Outputs("darwin", platform.machine(), 0, memory_bytes, texts, failures)
    raise UnsupportedError(f"Triune runs on macOS and Linux, not on {sys.platform}")


def run(command: Sequence[str]) -> tuple[str, str]:
    """Run a command. If it prints anything, it counts as successful, even if it fails afterwards.

    Returns:
        the command's output and ""; or, if it printed nothing, "" and the reason.
    """
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{command[0]} did not run: {error}"
    if done.stdout.strip():
        return done.stdout, ""
    return "", f"{command[0]} printed nothing: {done.stderr.strip() or f'exit status {done.returncode}'}"
