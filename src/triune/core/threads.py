"""Work in a thread of its own, which the event loop waits for and may give up."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from triune.core.errors import UnavailableError

_P = ParamSpec("_P")
_T = TypeVar("_T")


class NoThreadError(UnavailableError):
    """The system starts no thread: there are as many as it allows, or there is no memory for a stack."""


class _Awaited(threading.Thread):
    """A thread of `in_thread`."""


def is_work_left() -> bool:
    """Whether a thread of `in_thread` is at work. After the end of the event loop it is for nobody.

    A library that it is in may end the process in failure (SIGSEGV) when the interpreter takes its libraries down.
    """
    return any(isinstance(each, _Awaited) for each in threading.enumerate())


def start_thread(
    work: Callable[[], object], name: str, kind: type[threading.Thread] = threading.Thread
) -> threading.Thread:
    """Start a thread that the interpreter does not wait for when it exits.

    Raises:
        NoThreadError: the system has none.
    """
    try:
        thread = kind(target=work, name=name, daemon=True)
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise NoThreadError(f"the system has no thread for more work: {error}; try again later") from error
    return thread


async def in_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """As `asyncio.to_thread`, in a thread that nobody else waits for.

    `asyncio.to_thread` shares a few threads, and work that never ends takes them from all others; the interpreter joins
    them when it exits, too. If the caller is cancelled, the thread goes on, and what it returns or raises is dropped.

    Raises:
        NoThreadError: the system has no thread for it.
    """
    return await in_thread_or(lambda _: None, work, *args, **kwargs)


async def in_thread_or_here(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """As `in_thread`. Where the system has no thread, the caller's does what has to be done, as freeing things has."""
    try:
        return await in_thread(work, *args, **kwargs)
    except NoThreadError:
        return work(*args, **kwargs)


async def in_thread_or(drop: Callable[[_T], object], work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """As `in_thread`. What `work` returns after the caller was cancelled is given to `drop`, in another thread."""
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
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
            failure = error
        # A loop that has been closed has nobody to tell.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    start_thread(run, getattr(work, "__qualname__", "work"), _Awaited)
    return await future
