"""Reads the heat of this machine, by its operating system and its GPU's driver."""

import sys
from dataclasses import replace

from triune.hardware.heat.linux import read_linux_heat
from triune.hardware.heat.mac import read_mac_heat
from triune.hardware.heat.nvidia import parse_slowing, read_nvidia_slowing
from triune.hardware.heat.readings import Heat


def read_heat() -> Heat:
    """Read the heat of this machine. On macOS this runs a command, which takes about 10 ms."""
    if sys.platform == "darwin":
        return read_mac_heat()
    return replace(read_linux_heat(), slowed=parse_slowing(read_nvidia_slowing()))
