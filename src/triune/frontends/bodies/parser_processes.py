"""A pool of processes that parse large JSON and protobuf bodies.

orjson and protobuf hold the GIL while they parse: with 64 MiB, no other thread runs for a second or more. A process
costs two copies of the body, during which the GIL is released, and one copy of the parsed tensors.
"""

import contextlib
import functools
import pickle
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import TriuneError, UnavailableError
from triune.core.tensors import Signature
from triune.core.units import Unit
from triune.hosting.limits import Limits
from triune.hosting.process import ProcessEndedError, WorkerProcess

T = TypeVar("T")

_NAME = "the parser of large requests"
_LIMITS = Limits(load_seconds=60.0, run_seconds=120.0)
# The largest shared memory that a process keeps for the next request.
_KEPT_BYTES = 32 << 20
# The limit for the data segment of a parser process. 64 MiB of JSON need less than half of it.
_MAX_MEMORY_BYTES = 4 << 30
_ALIGNMENT = 64


class ParserCall:
    """Identifies a call of `ParserProcesses.call`, so that it can be abandoned. The pool's lock guards both attributes.

    Attributes:
        process: the process that computes; None before and after.
        is_abandoned: whether nobody waits for the result.
    """

    def __init__(self) -> None:
        self.process: WorkerProcess | None = None
        self.is_abandoned = False


class ParserProcesses:
    """A process pool that applies functions to request bodies. A process starts when it is first needed."""

    def __init__(self, num_processes: int) -> None:
        """Args:
        num_processes: how many bodies are parsed at the same time; further calls wait.
        """
        self.threads = ThreadPoolExecutor(num_processes, "parser")
        self._lock = threading.Lock()
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._is_closed = False

    def warm(self) -> Future[None]:
        """Start a process if there is none, in one of the pool's `threads`. If the start fails, nothing is raised,
        since `call` tries again.

        Returns:
            a future that is done when there is a process.
        """

        def start() -> None:
            with contextlib.suppress(TriuneError):
                self._return(self._acquire(), is_kept=True)

        return self.threads.submit(start)

    def call(
        self, work: Callable[[memoryview], T], body: bytes | bytearray | memoryview, call: ParserCall | None = None
    ) -> T:
        """Compute `work(body)` in a process. It blocks: call it in one of the pool's `threads`.

        Args:
            work: the function. It is pickled, and so is its result; but numeric arrays in the result are passed in
                shared memory.
            body: the request's body.
            call: identifies the call for `abandon`; None if it is never abandoned.

        Raises:
            TriuneError: `work` raised it.
            UnavailableError: the process ended (out of memory, for example) or exceeded its time limit.
        """
        call = call or ParserCall()
        process = self._acquire()
        is_whole = False
        try:
            with self._lock:
                call.process = process
                if call.is_abandoned:
                    process.interrupt()
            inputs = {"call": np.frombuffer(pickle.dumps(work), np.uint8), "body": np.frombuffer(body, np.uint8)}
            try:
                outputs = process.run(inputs, ("answer", "sizes", "data"))
            except ProcessEndedError as end:
                raise UnavailableError(
                    f"the process that parsed the request's {len(body)} bytes {end}; send less at once"
                ) from None
            finally:
                is_whole = not process.has_ended
        finally:
            with self._lock:
                call.process = None
            self._return(process, is_kept=is_whole and len(body) <= _KEPT_BYTES and not call.is_abandoned)
        buffers: list[Array] = []
        start = 0
        for size in cast("list[int]", outputs["sizes"].tolist()):
            buffers.append(outputs["data"][start : start + size])
            start += -(-size // _ALIGNMENT) * _ALIGNMENT
        return cast(T, pickle.loads(outputs["answer"].tobytes(), buffers=buffers))

    def abandon(self, call: ParserCall) -> None:
        """End a call whose result nobody needs any more: kill its process."""
        with self._lock:
            call.is_abandoned = True
            if call.process is not None:
                call.process.interrupt()

    def close(self) -> None:
        """Kill the processes, even those that are parsing."""
        with self._lock:
            self._is_closed = True
            processes = [*self._idle, *self._busy]
            self._idle.clear()
        for process in processes:
            process.kill()
            # `free` also deletes the process's temporary folder.
            process.free()
        self.threads.shutdown(wait=False, cancel_futures=True)

    def _acquire(self) -> WorkerProcess:
        while (process := self._take_idle()) is not None:
            if process.is_running:
                return process
            # Drop a process that was killed while idle, for example because the system is short of memory.
            self._return(process, is_kept=False)
        with self._lock:
            if self._is_closed:
                raise UnavailableError("the server is stopping and parses no new requests; send this one elsewhere")
            process = WorkerProcess(_NAME, _LIMITS)
            self._busy.add(process)
        try:
            process.load(functools.partial(Parser, _MAX_MEMORY_BYTES))
        except BaseException:
            self._return(process, is_kept=False)
            raise
        return process

    def _take_idle(self) -> WorkerProcess | None:
        with self._lock:
            if not self._idle:
                return None
            process = self._idle.pop()
            self._busy.add(process)
            return process

    def _return(self, process: WorkerProcess, *, is_kept: bool) -> None:
        with self._lock:
            self._busy.discard(process)
            if is_kept and not self._is_closed:
                self._idle.append(process)
                return
        process.kill()
        process.free()


class Parser:
    """The executable that runs in the process. Its inputs are `call`, a pickled function, and `body`.

    It calls the function with the body. The pickled result is the output `answer`; arrays in it are concatenated in the
    output `data`, and the output `sizes` has the number of bytes of each.
    """

    signature = Signature((), (), 0)
    unit = Unit.CPU
    precision = ""
    is_steady = False
    report = ""

    def __init__(self, max_memory_bytes: int) -> None:
        """Limit the memory of this process, on Linux, so that a hostile body can end only this process."""
        if sys.platform == "linux":
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (max_memory_bytes, max_memory_bytes))

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Unpickle the function in input `call`, call it with input `body`, and pickle its result into the outputs."""
        work: Callable[[memoryview], Any] = pickle.loads(inputs["call"].tobytes())
        buffers: list[Array] = []

        def keep(buffer: pickle.PickleBuffer) -> None:
            buffers.append(np.frombuffer(buffer.raw(), np.uint8))

        answer = pickle.dumps(work(inputs["body"].data), protocol=5, buffer_callback=keep)
        sizes = [len(buffer) for buffer in buffers]
        data = np.empty(sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes), np.uint8)
        start = 0
        for buffer in buffers:
            data[start : start + len(buffer)] = buffer
            start += -(-len(buffer) // _ALIGNMENT) * _ALIGNMENT
        return {"answer": np.frombuffer(answer, np.uint8), "sizes": np.array(sizes, np.int64), "data": data}

    def interrupt(self) -> None:
        """Do nothing: the caller kills the process instead."""

    def close(self) -> None:
        """Do nothing: there is nothing to free."""
