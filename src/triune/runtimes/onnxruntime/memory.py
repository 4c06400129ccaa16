"""The memory that runs take in ONNX Runtime: within a limit, and given back to the system.

ONNX Runtime keeps what a run took for the runs that follow, in an arena of each session's own that knows no limit: what
one request takes once stays taken. An arena that is registered with its environment may have a limit; the sessions that
are made next use it, and the environment forgets it when another is registered (1.32). Weights do not count.
"""

import contextlib
import itertools
import re
import threading
import weakref
from collections.abc import Generator, Mapping
from typing import Any, Final

import numpy as np
import onnxruntime
from onnx import TensorProto

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, TriuneError, UnavailableError
from triune.core.tensors import Signature, TensorSpec
from triune.core.threads import NoThreadError, start_thread
from triune.runtimes.failures import given_values, node_of
from triune.runtimes.onnxruntime.options import NO_LOG

# onnxruntime publishes no types.
_library: Any = onnxruntime

# From registering an arena until the session has looked for it, which is the first that it does.
_LOOK_SECONDS = 0.05
# How long what a run took is kept for the next.
_KEPT_SECONDS = 2.0
# Outputs from this size on count while they are in use, and are given back when they are not any more.
_LARGE_BYTES = 64 << 20
_LARGE_BYTES_BY_VALUES = 1 << 20

# Where values decide sizes, no run is like the one before: an arena takes what it is asked for, and not twice as much.
_EXACT: Final = {"arena_extend_strategy": 1, "max_dead_bytes_per_chunk": 1 << 20}

_BEYOND = re.compile(r"Available memory of (\d+) is smaller than requested bytes of (\d+)")


class _Arenas:
    """Sees to it that each session has an arena of its own. Two that are made at the same moment may share one."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._made = threading.Event()
        self._made.set()

    @contextlib.contextmanager
    def own(self, settings: Mapping[str, int]) -> Generator[None]:
        """A session that is made within, with `session.use_env_allocators`, has an arena of these settings."""
        made = threading.Event()
        with self._gate:
            self._made.wait(_LOOK_SECONDS)
            self._register(settings)
            self._made = made
        try:
            yield
        finally:
            # The environment would keep the session's arena when the session is gone.
            self._register(settings)
            made.set()

    def _register(self, settings: Mapping[str, int]) -> None:
        kinds, memory = _library.OrtAllocatorType, _library.OrtMemType
        info = _library.OrtMemoryInfo("Cpu", kinds.ORT_ARENA_ALLOCATOR, 0, memory.DEFAULT)
        _library.create_and_register_allocator(info, _library.OrtArenaCfg(settings))


# As there is one environment.
_ARENAS = _Arenas()


@contextlib.contextmanager
def own_arena(options: Any, max_bytes: int | None, *, is_by_values: bool) -> Generator[None]:
    """A session that is made within, with these SessionOptions, has an arena of its own, and a limit.

    One whose options turn arenas off has neither. As `RunMemory` for the rest.
    """
    if not options.enable_cpu_mem_arena:
        yield
        return
    options.add_session_config_entry("session.use_env_allocators", "1")
    with _ARENAS.own({"max_mem": max_bytes or 0, **(_EXACT if is_by_values else {})}):
        yield


class RunMemory:
    """What the runs of one session take."""

    def __init__(self, session: Any, signature: Signature, max_bytes: int | None, *, is_by_values: bool) -> None:
        """Args:
        session: an onnxruntime.InferenceSession.
        signature: what it takes and gives.
        max_bytes: what a run may take; None sets no limit.
        is_by_values: the values of inputs decide how much a run takes: what it took is not kept for long.
        """
        self._session: Any = session
        self._signature = signature
        self._max_bytes = max_bytes
        self._is_by_values = is_by_values
        self._large_bytes = _LARGE_BYTES_BY_VALUES if is_by_values else _LARGE_BYTES
        self._options = _library.RunOptions()
        self._options.log_severity_level = NO_LOG
        self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._options.terminate = True
        # The garbage collection may tell of an output in the middle of anything: nothing here waits for a lock.
        self._held: dict[int, int] = {}
        self._numbers = itertools.count()
        self._due = threading.Lock()
        self._is_closed = threading.Event()

    def watch(self, outputs: Mapping[str, Array]) -> None:
        """Called with what each run gave: large outputs lie in the arena until nobody uses them."""
        for array in outputs.values():
            if array.nbytes >= self._large_bytes and not array.dtype.hasobject:
                number = next(self._numbers)
                self._held[number] = array.nbytes
                weakref.finalize(array, self._drop, number).atexit = False
        if self._is_by_values:
            self._give_back_soon()

    def makes_room(self, error: Exception) -> bool:
        """Whether a run that ended with this error may succeed at once: runs before it had left too little."""
        found = _BEYOND.search(str(error))
        if found is None or self._max_bytes is None or int(found[2]) > self._max_bytes:
            return False
        self._give_back()
        return True

    def refusal_of(
        self, error: Exception, inputs: Mapping[str, Array], only_nodes: Mapping[str, str]
    ) -> TriuneError | None:
        """The error of a run that the limit ended; None for any other. As `run_failure` for the rest."""
        found = _BEYOND.search(str(error))
        if found is None:
            return None
        self._give_back_soon()
        available, wanted = map(int, found.groups())
        asks = f"{node_of(str(error), only_nodes)[0]} asks for {wanted} bytes of memory{given_values(inputs)}"
        limit = f"{self._max_bytes} bytes that a run may take in all, by --run-memory-bytes"
        num_held = sum(tuple(self._held.values()))
        if wanted <= available + num_held:
            return UnavailableError(
                f"{asks}; answers that clients have not taken yet hold {num_held} of the {limit}: try again later"
            )
        return InvalidArgumentError(
            f"the model cannot compute these inputs: {asks}, more than is left of the {limit}; send values that need "
            "less, or raise it"
        )

    def close(self) -> None:
        """Let the session go."""
        self._is_closed.set()
        self._session = None

    def _drop(self, number: int) -> None:
        """An output is not used any more. Called by whichever thread was the last to use it."""
        del self._held[number]
        self._give_back_soon()

    def _give_back_soon(self) -> None:
        if self._is_closed.is_set() or not self._due.acquire(blocking=False):
            return
        try:
            start_thread(self._wait, "memory")
        except NoThreadError:
            self._due.release()

    def _wait(self) -> None:
        self._is_closed.wait(_KEPT_SECONDS)
        self._due.release()
        if not self._is_closed.is_set():
            self._give_back()

    def _give_back(self) -> None:
        """Have a run that ends before its first node: at its end ONNX Runtime gives back what nobody uses."""
        inputs = {spec.name: spec for spec in self._signature.inputs if not spec.is_optional}
        names = [self._signature.outputs[0].name]
        # It says that it was ended.
        with contextlib.suppress(Exception):
            if any(spec.datatype is DataType.BF16 for spec in inputs.values()):
                values = {name: _empty_value(spec) for name, spec in inputs.items()}
                self._session.run_with_ort_values(names, values, self._options)
            else:
                self._session.run(names, {name: _empty(spec) for name, spec in inputs.items()}, self._options)


def _empty(spec: TensorSpec) -> Array:
    """What an input takes, and no more of it than has to be."""
    is_text = spec.datatype is DataType.BYTES
    return np.zeros([max(0, dim) for dim in spec.shape], np.str_ if is_text else spec.datatype.dtype)


def _empty_value(spec: TensorSpec) -> Any:
    array = _empty(spec)
    if spec.datatype is DataType.BF16:
        return _library.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), TensorProto.BFLOAT16)
    return _library.OrtValue.ortvalue_from_numpy(array)
