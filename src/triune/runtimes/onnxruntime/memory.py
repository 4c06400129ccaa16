"""Keeps the memory of ONNX Runtime's runs within a limit: makes the error for a run that exceeds the limit of its arena
(`graph.arenas`), and returns memory of past runs to the system.
"""

import contextlib
import itertools
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, TriuneError, UnavailableError
from triune.core.heap import HEAP, LARGE_BYTES
from triune.core.tensors import Signature, TensorSpec
from triune.core.threads import NoThreadError, start_thread
from triune.graph.arenas import beyond_arena, returning_run
from triune.runtimes.failures import given_values, node_of

# `Any`, since onnxruntime has no type hints.
_library: Any = onnxruntime

# How long the arena keeps a run's memory for the next run, in seconds.
_KEPT_SECONDS = 2.0
# Outputs of at least this many bytes are tracked until they are freed, since they occupy the arena.
_TRACKED_BYTES = 1 << 20


class RunMemory:
    """Keeps the memory of one session's runs within a limit."""

    def __init__(self, session: Any, signature: Signature, max_bytes: int | None, *, is_returned: bool) -> None:
        """Args:
        session: an onnxruntime.InferenceSession.
        signature: its inputs and outputs.
        max_bytes: the memory limit of a run; None sets no limit.
        is_returned: whether the memory of a run is returned to the system soon after the run, because it is much, or
            because the next run may need less.
        """
        self._session: Any = session
        self._signature = signature
        self._max_bytes = max_bytes
        self._is_returned = is_returned
        self._highest_bytes = 0
        self._options = returning_run(_library)
        # This dict is changed without a lock: the garbage collector may free an output, and so call `_drop`, at any
        # point.
        self._held: dict[int, int] = {}
        self._numbers = itertools.count()
        self._due = threading.Lock()
        self._is_closed = threading.Event()
        self._shrinking = threading.Lock()
        self._has_freed_much = False
        # At the end of the interpreter, wait until no arena shrinks: a thread inside the library would abort the
        # process.
        weakref.finalize(self, _end, self._is_closed, self._shrinking)

    def watch(self, outputs: Mapping[str, Array]) -> None:
        """Track large outputs, which occupy the arena until they are freed. Call this with the outputs of each run."""
        for array in outputs.values():
            if array.nbytes >= _TRACKED_BYTES and not array.dtype.hasobject:
                number = next(self._numbers)
                self._held[number] = array.nbytes
                self._highest_bytes = max(self._highest_bytes, self._held_bytes())
                weakref.finalize(array, self._drop, number).atexit = False
        if self._is_returned:
            self._return_soon()

    def makes_room(self, error: Exception) -> bool:
        """Whether repeating a run that failed with this error may succeed, because earlier runs had filled the
        arena.
        """
        found = beyond_arena(error)
        if found is None or self._max_bytes is None or found[1] > self._max_bytes:
            return False
        self._shrink()
        return True

    def refusal_of(
        self, error: Exception, inputs: Mapping[str, Array], only_nodes: Mapping[str, str]
    ) -> TriuneError | None:
        """Make the error for a run that exceeded the limit; None if it failed for another reason. The arguments are
        those of `run_failure`.
        """
        found = beyond_arena(error)
        if found is None:
            return None
        self._has_freed_much = True
        self._return_soon()
        available, wanted = found
        asks = f"{node_of(str(error), only_nodes)[0]} asks for {wanted} bytes of memory{given_values(inputs)}"
        limit = f"{self._max_bytes} bytes that a run may take in all, by --run-memory-bytes"
        num_held = self._held_bytes()
        if wanted <= available + num_held:
            return UnavailableError(
                f"{asks}; responses that clients have not read yet hold {num_held} of the {limit}: try again later"
            )
        return InvalidArgumentError(
            f"the model cannot compute these inputs: {asks}, more than is left of the {limit}; send values that need "
            "less, or raise it"
        )

    def close(self) -> None:
        """Release the session. Waits while its arena shrinks, for milliseconds."""
        _end(self._is_closed, self._shrinking)
        self._session = None

    def _drop(self, number: int) -> None:
        """Stop tracking the output `number`, which was freed, and if much was freed, return it to the system soon.
        Called on the thread that freed the output.
        """
        del self._held[number]
        if self._highest_bytes - (held_bytes := self._held_bytes()) >= LARGE_BYTES:
            self._highest_bytes = held_bytes
            self._has_freed_much = True
            self._return_soon()
        elif self._is_returned:
            self._return_soon()

    def _held_bytes(self) -> int:
        """The size of all tracked outputs that are in use."""
        return sum(tuple(self._held.values()))

    def _return_soon(self) -> None:
        if self._is_closed.is_set() or not self._due.acquire(blocking=False):
            return
        try:
            start_thread(self._wait, "memory")
        except NoThreadError:
            self._due.release()

    def _wait(self) -> None:
        self._is_closed.wait(_KEPT_SECONDS)
        self._due.release()
        self._shrink()
        if self._has_freed_much:
            # The arena has returned its memory to glibc, which keeps up to 64 MiB of it: have glibc return that as
            # well.
            self._has_freed_much = False
            HEAP.give_back_soon()

    def _shrink(self) -> None:
        """Have the arena return its free memory. ONNX Runtime does that only after a run, so start a run and terminate
        it at once.
        """
        inputs = {spec.name: spec for spec in self._signature.inputs if not spec.is_optional}
        names = [self._signature.outputs[0].name]
        # Ignore the error that the run raises, because `terminate` ends it before its first node.
        with self._shrinking, contextlib.suppress(Exception):
            if self._is_closed.is_set():
                return
            if any(spec.datatype is DataType.BF16 for spec in inputs.values()):
                values = {name: _empty_value(spec) for name, spec in inputs.items()}
                self._session.run_with_ort_values(names, values, self._options)
            else:
                self._session.run(names, {name: _empty(spec) for name, spec in inputs.items()}, self._options)


def _end(is_closed: threading.Event, shrinking: threading.Lock) -> None:
    """At the end of the interpreter: let no arena begin to shrink, and wait until none is shrinking."""
    is_closed.set()
    with shrinking:
        pass


def _empty(spec: TensorSpec) -> Array:
    """The smallest array that an input accepts: each free dimension has size 0, and all elements are 0 or empty."""
    is_text = spec.datatype is DataType.BYTES
    return np.zeros([max(0, dim) for dim in spec.shape], np.str_ if is_text else spec.datatype.dtype)


def _empty_value(spec: TensorSpec) -> Any:
    array = _empty(spec)
    if spec.datatype is DataType.BF16:
        return _library.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), TensorProto.BFLOAT16)
    return _library.OrtValue.ortvalue_from_numpy(array)
