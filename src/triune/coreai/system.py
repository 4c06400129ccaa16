"""Find out whether the system has Core AI."""

import platform
import sys


def has_system_runtime() -> bool:
    """Whether the system has a Core AI runtime: macOS 27 or later."""
    if sys.platform != "darwin":
        return False
    return int(platform.mac_ver()[0].split(".")[0] or 0) >= 27
