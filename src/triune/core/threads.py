"""Work in a thread of its own, which the event loop waits for and may give up."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from triune.core.errors import UnavailableError

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """As `asyncio.to_thread`, in a thread that nobody else waits for.

    `asyncio.to_thread` shares a few threads, and work that never ends takes them from all others; the interpreter joins
    them when it exits, too. If the caller is cancelled, the thread goes on, and what it returns or raises is dropped.

    Raises:
        UnavailableError: the system has no thread for it.
    """
    return await in_thread_or(lambda _: None, work, *args, **kwargs)


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
            threading.Thread(target=drop, args=(result,), daemon=True).start()

    def run() -> None:
        result, failure = None, None
        try:
            result = work(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
            failure = error
        # A loop that has been closed has nobody to tell.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    try:
        threading.Thread(target=run, name=getattr(work, "__qualname__", "work"), daemon=True).start()
    except RuntimeError as error:
        raise UnavailableError(f"the system has no thread for more work: {error}; try again later") from error
    return await future
