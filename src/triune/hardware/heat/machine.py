"""The heat of this machine."""

import sys

from triune.hardware.heat.linux import read_linux_heat
from triune.hardware.heat.mac import read_mac_heat
from triune.hardware.heat.readings import Heat


def read_heat() -> Heat:
    """What this machine says. On macOS it runs a command, which takes about 10 ms."""
    return read_mac_heat() if sys.platform == "darwin" else read_linux_heat()
