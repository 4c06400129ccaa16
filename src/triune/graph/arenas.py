"""Give a session of ONNX Runtime an arena of its own, with a memory limit.

By default each session has an arena without a limit, which keeps the memory of a run for later runs. An arena that is
registered with the environment can have a limit: sessions that are created next use it, until another arena is
registered (ONNX Runtime 1.32). The weights of the model do not count.
"""

import contextlib
import re
import threading
from collections.abc import Generator, Mapping
from typing import Any, Final

NO_LOG: Final = 4
"""The level of ONNX Runtime's log at which only fatal errors are logged."""

# The longest time, in seconds, for which the creation of a session waits until the session created before has looked up
# its own arena. A session does that first of all, so a moment is enough.
_LOOK_SECONDS = 0.05
# The arena does not double its regions beyond this size, in bytes: otherwise it would keep up to four times what the
# runs need.
_LARGEST_REGION_BYTES = 32 << 20

# If memory is returned soon, because the runs' needs differ or are large, the arena allocates exactly what is requested
# (kSameAsRequested), not powers of 2.
_EXACT: Final = {"arena_extend_strategy": 1, "max_dead_bytes_per_chunk": 1 << 20}
_DOUBLING: Final = {"max_power_of_two_extend_bytes": _LARGEST_REGION_BYTES}

_BEYOND = re.compile(r"Available memory of (\d+) is smaller than requested bytes of (\d+)")


class _Arenas:
    """Gives each session its own arena. Two sessions that are created at the same moment may share one."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._made = threading.Event()
        self._made.set()

    @contextlib.contextmanager
    def own(self, settings: Mapping[str, int]) -> Generator[None]:
        """Within this context, a new session with `session.use_env_allocators` gets an arena with these settings."""
        made = threading.Event()
        with self._gate:
            self._made.wait(_LOOK_SECONDS)
            self._register(settings)
            self._made = made
        try:
            yield
        finally:
            # Register another arena: the environment would otherwise keep this one alive after its session.
            self._register(settings)
            made.set()

    def _register(self, settings: Mapping[str, int]) -> None:
        # Import here: the library takes time to import. `Any`, since it has no type hints.
        import onnxruntime

        library: Any = onnxruntime
        kinds, memory = library.OrtAllocatorType, library.OrtMemType
        info = library.OrtMemoryInfo("Cpu", kinds.ORT_ARENA_ALLOCATOR, 0, memory.DEFAULT)
        library.create_and_register_allocator(info, library.OrtArenaCfg(settings))


# A process has only one ONNX Runtime environment, so that there is one `_Arenas`.
_ARENAS = _Arenas()


@contextlib.contextmanager
def own_arena(options: Any, max_bytes: int | None, *, is_returned: bool) -> Generator[None]:
    """Within this context, a new session with these SessionOptions gets its own arena with a limit.

    If the options turn arenas off, the session gets neither an arena nor a limit.

    Args:
        options: the SessionOptions.
        max_bytes: the memory limit of a run; None sets no limit.
        is_returned: whether the memory of a run is returned soon.
    """
    if not options.enable_cpu_mem_arena:
        yield
        return
    options.add_session_config_entry("session.use_env_allocators", "1")
    with _ARENAS.own({"max_mem": max_bytes or 0, **(_EXACT if is_returned else _DOUBLING)}):
        yield


def beyond_arena(error: Exception) -> tuple[int, int] | None:
    """If a run failed at the arena's limit, the bytes that were left and the bytes that were asked for; else None."""
    found = _BEYOND.search(str(error))
    return None if found is None else (int(found[1]), int(found[2]))


def returning_run(library: Any) -> Any:
    """RunOptions that make a session's arena return the memory that is not in use to the system. A run with them ends
    before its first node, by an error.

    Args:
        library: the module `onnxruntime`.
    """
    options = library.RunOptions()
    options.log_severity_level = NO_LOG
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    options.terminate = True
    return options
