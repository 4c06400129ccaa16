"""An executable for worker processes that dies, hangs or fails, depending on its input."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit

DIE, EXIT, SLEEP, FAIL, REFUSE, PRINT, GO_ON = -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0
TAKE, TAKE_ANYWAY, ABORT, HOLD = -8.0, -9.0, -10.0, -11.0

TAKEN_BYTES = 512 << 20


class Fragile:
    """Computes y = 2x, unless the first x is one of the constants above."""

    precision = "fp16"
    report = "a fragile device"
    is_steady = True
    unit = Unit.ANE
    signature = Signature(
        (TensorSpec("x", DataType.FP32, (-1, -1), ("batch", None)),), (TensorSpec("y", DataType.FP32, (-1, -1)),)
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        x = inputs["x"]
        first = float(x.flat[0]) if x.size else 0.0
        if first == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if first == EXIT:
            os._exit(3)
        if first == SLEEP:
            (self._folder / "asleep").touch()
            time.sleep(60)
        if first == FAIL:
            raise KeyError("x")
        if first == REFUSE:
            raise InvalidArgumentError("x is refused")
        if first == HOLD:
            hold_gil(self._folder)
        if first == PRINT:
            print("printed by the model")
            sys.stdout.flush()
        if first in (TAKE, TAKE_ANYWAY, ABORT):
            take(first)
        if first == GO_ON:
            # Start a process that outlives this one and inherits all open files.
            subprocess.Popen(["sleep", "5"], close_fds=False)
            os.kill(os.getpid(), signal.SIGKILL)
        return {"y": x * 2 if "w" not in inputs else x + inputs["w"].astype(np.float32)}

    def close(self) -> None:
        (self._folder / "closed").touch()


def hold_gil(folder: Path) -> None:
    """Hold the GIL for 50 ms, as coremltools' predict does, and then until the pipe `go-on` has a byte."""
    library = ctypes.PyDLL(None)
    pipe = os.open(folder / "go-on", os.O_RDWR)
    (folder / "holding").touch()
    library.usleep(50_000)
    library.read(pipe, ctypes.create_string_buffer(1), 1)
    os.close(pipe)


def load(folder: Path) -> Fragile:
    """Make the executable, and record the load in `folder`. If the folder has a file with one of the following names,
    the load behaves differently.
    """
    loads = folder / "loads"
    with loads.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if (folder / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (folder / "refuse").exists():
        raise InvalidArgumentError("the model file is broken")
    if (folder / "hang").exists():
        time.sleep(60)
    return Fragile(folder)


def pids(folder: Path) -> list[int]:
    """The ids of the processes that loaded the executable, in order."""
    loads = folder / "loads"
    return [int(line) for line in loads.read_text().split()] if loads.exists() else []


def take(how: float) -> None:
    """Allocate memory until the system refuses it. Depending on `how`, act as if the system refused none, or abort when
    it refuses.
    """
    if how == TAKE_ANYWAY:
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    held: list[bytes] = []
    try:
        for _ in range(TAKEN_BYTES >> 20):
            held.append(b"x" * (1 << 20))
            time.sleep(0.002)
    except MemoryError:
        if how == ABORT:
            os.abort()
        raise
    time.sleep(60)
