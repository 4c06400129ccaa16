"""Functions that run in a new thread. The event loop waits for their results, and may cancel the wait."""

import contextlib
import re
import threading
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar, cast

from triune.core.errors import UnavailableError

_P = ParamSpec("_P")
_T = TypeVar("_T")


_PAUSE_SECONDS = 50e-6


def pause() -> None:
    """Release the GIL for other threads. A thread calls this after each millisecond of work that holds the GIL."""
    # The pause must be longer than waking a thread takes. Otherwise this thread gets the GIL again before any other.
    time.sleep(_PAUSE_SECONDS)


class NoThreadError(UnavailableError):
    """The system cannot start a thread: the limit is reached, or there is no memory for a stack."""


# Matches the messages with which Python (`threading`), C++ (`std::thread`) and the system (`fork`, EAGAIN) say that the
# limit of threads or processes is reached.
_LACKING: Final = re.compile(r"can't start new thread|Resource temporarily unavailable|pthread_create")


def lacks_thread(error: BaseException) -> bool:
    """Whether an error, or one of its causes, comes from a system that cannot start a thread or a process now."""
    left: BaseException | None = error
    while left is not None:
        if isinstance(left, NoThreadError) or _LACKING.search(f"{left}"):
            return True
        left = left.__cause__
    return False


def no_thread(what: str, error: Exception) -> NoThreadError:
    """Make the error for `what`, which failed with an error for which `lacks_thread` is true."""
    if isinstance(error, NoThreadError):
        return error
    return NoThreadError(
        f"the system has no thread or process for {what} now: {error}; try again later, or allow more of them"
    )


class _Awaited(threading.Thread):
    """A thread that `in_thread` started."""


def is_work_left() -> bool:
    """Whether a thread that `in_thread` started still runs. Call this after the end of the event loop, when no result
    is needed any more.

    If such a thread is inside a library when the interpreter unloads its libraries, the process may crash (SIGSEGV).
    """
    return any(isinstance(each, _Awaited) for each in threading.enumerate())


def start_thread(
    work: Callable[[], object], name: str, kind: type[threading.Thread] = threading.Thread
) -> threading.Thread:
    """Start a thread that the interpreter does not wait for when it exits.

    Raises:
        NoThreadError: the system cannot start a thread.
    """
    try:
        thread = kind(target=work, name=name, daemon=True)
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise NoThreadError(f"the system has no thread for more work: {error}; try again later") from error
    return thread


async def in_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `work` in a new daemon thread, and wait for its result, as `asyncio.to_thread` does.

    `asyncio.to_thread` is not used, since its small pool could fill up with work that never ends, and since the
    interpreter joins its threads on exit. If the caller is cancelled, the thread goes on, and its result or error is
    dropped.

    Raises:
        NoThreadError: the system cannot start a thread.
    """
    return await in_thread_or(lambda _: None, work, *args, **kwargs)


async def in_thread_to_its_end(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `work` as `in_thread` does. If the caller is cancelled, it waits until the thread has ended.

    Use it where the caller holds a slot that limits the number of threads.
    """
    import asyncio

    running = asyncio.ensure_future(in_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()
        raise


async def in_thread_or_here(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run work that must be done, such as freeing memory, in a new thread. If no thread can start, run it in the
    caller's thread.
    """
    try:
        return await in_thread(work, *args, **kwargs)
    except NoThreadError:
        return work(*args, **kwargs)


async def in_thread_or(drop: Callable[[_T], object], work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `work` as `in_thread` does. If the caller was cancelled, pass the result to `drop`, in another thread."""
    # Import asyncio only here, where the caller's event loop has imported it already. Worker processes import this
    # module too, to start threads, and they start a tenth faster without asyncio.
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if error is not None and not future.cancelled():
            future.set_exception(error)
        elif not future.cancelled():
            future.set_result(result)  # pyright: ignore[reportArgumentType]
        elif error is None:
            try:
                start_thread(lambda: drop(cast("_T", result)), "drop")
            except NoThreadError:
                drop(cast("_T", result))

    def run() -> None:
        result, failure = None, None
        try:
            result = work(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - the caller gets every error
            failure = error
        # Ignore the error if the event loop is closed: nothing waits for the result then.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)
        # Delete both names: the error's traceback refers to this frame, which would keep the objects alive that `work`
        # used.
        del result, failure

    start_thread(run, getattr(work, "__qualname__", "work"), _Awaited)
    return await future
