"""Peers of a benchmark in processes of their own, which are called in turn, and the joules of what they do."""

import importlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from triune.core.clock import MonotonicClock
from triune.hardware.energy.nvml import NvmlMeter


class Peer:
    """A function in a process, which has variables of the environment that libraries read when they start."""

    def __init__(
        self, make: Callable[..., Callable[..., Any]], *arguments: Any, environment: Mapping[str, str]
    ) -> None:
        """`make(*arguments)`, called in the process, returns the function; both must be importable from there."""
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        kept = dict(os.environ)
        os.environ.update(environment)
        try:
            self._process = context.Process(target=_serve, args=(other, make, arguments), daemon=True)
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(kept)
        other.close()

    def begin(self, *arguments: Any) -> None:
        """Start a call of the function, whose result `end` waits for."""
        self._connection.send(arguments)

    def end(self) -> Any:
        """The result of the call that was begun. Raises RuntimeError with the process's own traceback."""
        is_right, result = self._connection.recv()
        if not is_right:
            raise RuntimeError(result)
        return result

    def __call__(self, *arguments: Any) -> Any:
        self.begin(*arguments)
        return self.end()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, make: Callable[..., Callable[..., Any]], arguments: tuple[Any, ...]) -> None:
    function: Callable[..., Any] | None = None
    while True:
        try:
            given = connection.recv()
        except EOFError:
            return
        try:
            function = function or make(*arguments)
            connection.send((True, function(*given)))
        except Exception:
            connection.send((False, traceback.format_exc()))


class Joules:
    """Triune's meter of the GPU (NVML's counter, which changes every 100 ms): measure for seconds."""

    def __init__(self) -> None:
        try:
            self._meter = NvmlMeter(importlib.import_module("pynvml"), MonotonicClock(), os.environ)
        except ImportError:
            self._meter = None

    @property
    def is_there(self) -> bool:
        """Whether there is a GPU with a meter."""
        return self._meter is not None and bool(self._meter.read().joules)

    def per_joule(self, work: Callable[[], float]) -> tuple[float, float]:
        """What `work` returns (how much it did) for each joule, and the mean watts meanwhile."""
        assert self._meter is not None
        before, begin = self._meter.read(), time.perf_counter()
        done = work()
        seconds, after = time.perf_counter() - begin, self._meter.read()
        (joules,) = (after.joules[name] - before.joules[name] for name in after.joules)
        return done / joules, joules / seconds
