"""Asks Linux for permission to use the tile registers of Intel's AMX. A process needs it before its first tile
instruction.

Source: the kernel's Documentation/arch/x86/xstate.rst.
"""

import ctypes
import os
import platform
import re
import sys
from typing import Final

_ARCH_PRCTL: Final = 158
_ARCH_GET_XCOMP_SUPP: Final = 0x1021
_ARCH_REQ_XCOMP_PERM: Final = 0x1023
_XFEATURE_XTILEDATA: Final = 18


def ask_for_tiles() -> str:
    """Ask the kernel for permission to use AMX tiles. Returns its answer in the form that `parse_tiles` reads; "" on
    systems other than Linux on x86-64. The permission holds for the whole process.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return ""
    call = ctypes.CDLL(None, use_errno=True).syscall
    supported = ctypes.c_uint64(0)
    if call(_ARCH_PRCTL, _ARCH_GET_XCOMP_SUPP, ctypes.byref(supported)) != 0:
        return f"supported: error {ctypes.get_errno()}\n"
    refused = call(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA)
    return f"supported: {supported.value:#x}\nrequest: {ctypes.get_errno() if refused else 0}\n"


def parse_tiles(text: str) -> str:
    """Why this process may not use tile registers; "" if it may.

    Args:
        text: the result of `ask_for_tiles`.
    """
    supported = re.search(r"^supported: (0x[0-9a-f]{1,16})$", text, re.MULTILINE)
    if supported is None:
        return "the kernel knows no permission for tile data: it is older than Linux 5.16, or a sandbox forbids to ask"
    if not int(supported[1], 16) >> _XFEATURE_XTILEDATA & 1:
        return "the kernel does not save tile data: a hypervisor or a boot option has turned it off"
    request = re.search(r"^request: (\d{1,4})$", text, re.MULTILINE)
    if request is None:
        return "the kernel did not answer the request for tile data"
    number = int(request[1])
    return f"the kernel refuses this process tile data: {os.strerror(number)}" if number else ""
